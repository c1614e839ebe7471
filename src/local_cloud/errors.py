"""Errors of the local cloud.

LocalCloudError
├── CloudUnavailable     it does not start, or it is no longer there
│   └── PortInUse        another program listens on the port that was asked for
├── EmulatorMismatch     the installed emulator is not the one that we extend
├── ImageRefused         a directory cannot serve as a model image
└── DeployFailed         the assembly cannot be deployed, or a resource of it failed
"""


class LocalCloudError(Exception):
    """Base of every error that the local cloud raises on purpose; its text is one clear message."""


class CloudUnavailable(LocalCloudError):
    """The server did not start, or died."""


class PortInUse(CloudUnavailable):
    """The port that was asked for belongs to another program."""

    def __init__(self, port: int) -> None:
        super().__init__(
            f"port {port} must be free, got one that another program listens on; "
            "stop that program, name another port, or name none to get a free one"
        )
        self.port = port


class EmulatorMismatch(LocalCloudError):
    """Another version of the emulator is installed than the one whose tables we extend."""


class ImageRefused(LocalCloudError):
    """The directory has no program `serve`, or no image of that name is registered."""


class DeployFailed(LocalCloudError):
    """The assembly cannot be deployed; the message names the resource and its reason."""
