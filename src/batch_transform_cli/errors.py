"""Errors of the command line.

CommandError           the command cannot go on; its text is the one line that the user reads
├── BadValue           an option or argument has a value that it never can have
├── PipelineNotFound   no such pipeline where we look, or more than one to choose from
├── NothingTried       asked in a way that nothing was tried, for one reason or for several
│   └── JobRefused     a transform job that would be refused, before anything of it has started
├── SynthesisFailed    the CDK app does not make a cloud assembly
└── Interrupted        the user ended it, with Ctrl-C or another signal
"""

import signal


class CommandError(Exception):
    """The command cannot go on."""

    exit_code = 1


class BadValue(CommandError):
    """An option or an argument has a value that it never can have."""

    exit_code = 2


class PipelineNotFound(CommandError):
    """No such pipeline, or none was named and there are several."""

    exit_code = 2


class NothingTried(CommandError):
    """Asked in a way that nothing was tried."""

    exit_code = 2

    def __init__(self, *problems: str) -> None:
        super().__init__("\nbatch-transform: ".join(problems))


class JobRefused(NothingTried):
    """The job would be refused; nothing of it has started."""


class SynthesisFailed(CommandError):
    """The CDK app ended without a cloud assembly."""


class Interrupted(CommandError):
    """The user ended it.

    :param number: of the signal.
    """

    exit_code = 130

    def __init__(self, message: str, number: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.exit_code = 128 + number
