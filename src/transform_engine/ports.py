"""Ports for model servers on loopback: low ones, in blocks, and each handed out once."""

import itertools
import os
import socket
from collections import deque
from pathlib import Path

from transform_engine.errors import INTERNAL_ERROR, InstanceFailed

SERVICE_PORT = 8080
"""Where a model server listens that knows no `SAGEMAKER_BIND_TO_PORT` (reference §4)."""

# Some servers refuse 32767 and above, and the kernel hands out the ports above 32768.
_PORTS = range(18000, 32000)
# A server's own port, and those it may use beside it.
_BLOCK = 20
_BLOCKS = len(_PORTS) // _BLOCK

# Processes that start at the same time look in different places.
_TURNS = itertools.count(os.getpid() % _BLOCKS)
_CLAIMS: deque[socket.socket] = deque(maxlen=32)


def free_ports() -> range:
    """Return a block of low ports that nothing listens on, another at every call."""
    for turn in itertools.islice(_TURNS, _BLOCKS):
        first = _PORTS[turn % _BLOCKS * _BLOCK]
        block = range(first, first + _BLOCK)
        if _claim(first) and all(map(_is_free, block)):
            return block
    raise InstanceFailed(
        INTERNAL_ERROR,
        f"{_BLOCK} ports in a row between {_PORTS.start} and {_PORTS.stop} must be free, got none; "
        "end some of the servers on this machine",
    )


def _claim(port: int) -> bool:
    """Claim a block for a while: until its servers listen, others would find it free, too."""
    # The UDP port of that number, which no model server wants.
    claim = socket.socket(type=socket.SOCK_DGRAM)
    try:
        claim.bind(("127.0.0.1", port))
    except OSError:
        claim.close()
        return False
    if len(_CLAIMS) == _CLAIMS.maxlen:
        _CLAIMS[0].close()
    _CLAIMS.append(claim)
    return True


def free_port() -> int:
    """Return a low port that nothing listens on, another at every call."""
    return free_ports()[0]


def claim_service_port() -> socket.socket | None:
    """Claim port 8080 of this machine until the socket closes; None while a claim is another's.

    The claim is the UDP port of that number: it leaves the TCP port to the server, and the kernel
    gives it back however its owner ends.

    :raises InstanceFailed: something that claimed nothing listens there.
    """
    claim = socket.socket(type=socket.SOCK_DGRAM)
    try:
        claim.bind(("127.0.0.1", SERVICE_PORT))
    except OSError:
        claim.close()
        return None
    if _listening(SERVICE_PORT):
        claim.close()
        raise InstanceFailed(
            INTERNAL_ERROR,
            f"port {SERVICE_PORT} must be free for a model server that listens nowhere else, got "
            "another server on it; end that one",
        )
    return claim


def listens(ancestor: int, port: int) -> bool:
    """Say whether a process or what it started listens on a TCP port; False where unknown."""
    sockets = {f"socket:[{inode}]" for inode in _listening(port)}
    if not sockets:
        return False
    parents = _parents()
    return any(_below(pid, ancestor, parents) and _holds(pid, sockets) for pid in parents)


def _listening(port: int) -> list[str]:
    """Return the inodes of the sockets that listen on a port."""
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue  # No Linux, or no IPv6.
        for line in lines:
            fields = line.split()
            if fields[1].endswith(f":{port:04X}") and fields[3] == "0A":
                found.append(fields[9])
    return found


def _parents() -> dict[int, int]:
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                stat = Path("/proc", name, "stat").read_bytes()
            except OSError:
                continue  # It has just ended.
            parents[int(name)] = int(stat.rpartition(b")")[2].split()[1])
    return parents


def _below(pid: int, ancestor: int, parents: dict[int, int]) -> bool:
    while pid in parents and pid != ancestor:
        pid = parents[pid]
    return pid == ancestor


def _holds(pid: int, sockets: set[str]) -> bool:
    folder = f"/proc/{pid}/fd"
    try:
        return any(os.readlink(f"{folder}/{name}") in sockets for name in os.listdir(folder))
    except OSError:
        return False  # It has just ended, or closed one.


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
