"""Ports for model servers on loopback: low ones, and each handed out once."""

import itertools
import os
import socket

from transform_engine.errors import INTERNAL_ERROR, InstanceFailed

# Some servers refuse 32767 and above, and the kernel hands out the ports above 32768.
SAFE_PORTS = range(18000, 32000)
SERVICE_PORT = 8080
"""Where a model server listens that knows no `SAGEMAKER_BIND_TO_PORT` (reference §4)."""

# Processes that start at the same time look in different places.
_TURNS = itertools.count(os.getpid() % 875 * 16)


def free_port() -> int:
    """Return a low port that nothing listens on, another at every call."""
    for turn in itertools.islice(_TURNS, len(SAFE_PORTS)):
        port = SAFE_PORTS[turn % len(SAFE_PORTS)]
        if _is_free(port):
            return port
    raise InstanceFailed(INTERNAL_ERROR, "a port between 18000 and 32000 must be free, got none")


def claim_service_port() -> socket.socket | None:
    """Claim port 8080 of this machine until the socket closes; None if it has another owner.

    The claim is the UDP port of that number: it leaves the TCP port to the server, and the kernel
    gives it back however its owner ends.
    """
    claim = socket.socket(type=socket.SOCK_DGRAM)
    try:
        claim.bind(("127.0.0.1", SERVICE_PORT))
        if _is_free(SERVICE_PORT):
            return claim
    except OSError:
        pass  # Another model server's.
    claim.close()
    return None


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
