"""Which processes belong to a local cloud, and ending them all.

The server starts with a marker in its environment, and whatever it starts inherits it. On Linux
that finds a process even when its parent is dead and it belongs to init; elsewhere the parents and
the process groups have to do. Names of programs are never looked at.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

MARKER = "LOCAL_CLOUD_ID"
"""Environment variable that every process of a local cloud carries."""

_KILL_LIMIT_S = 10.0  # One that hangs in the kernel goes when the kernel lets it go.
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class _Process:
    pid: int
    parent: int
    group: int
    session: int


def family(marker: str, leader: int | None = None) -> set[int]:
    """Find the living processes of the cloud with that marker, whoever their parent is now.

    :param leader: the server's process id: it leads a session, which tells its processes on
        systems whose process environments cannot be read.
    """
    living = list(_living())
    found = {process.pid for process in living if _carries(process.pid, marker)}
    leaders = found | ({leader} if leader is not None else set())
    grew = True
    while grew:
        more = {
            process.pid
            for process in living
            if process.pid not in found
            and (process.parent in found or process.group in leaders or process.session in leaders)
        }
        found |= more
        leaders |= more
        grew = bool(more)
    return found - {os.getpid()}


def end(marker: str, leader: int | None = None, *, grace_s: float = 3.0) -> set[int]:
    """Ask every process of the cloud to end, then kill what is left; returns what was there."""
    there = family(marker, leader)
    seen = set(there)
    _signal(there, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while there and time.monotonic() < deadline:
        time.sleep(0.02)
        there = family(marker, leader)
        seen |= there
    deadline = time.monotonic() + _KILL_LIMIT_S
    while there and time.monotonic() < deadline:
        # A process can start another between our look and our signal, so look again.
        _signal(there, signal.SIGKILL)
        time.sleep(0.02)
        there = family(marker, leader)
        seen |= there
    return seen


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass  # It ended between our look and our signal.


def _carries(pid: int, marker: str) -> bool:
    try:
        environment = (_PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return False  # Another user's, already gone, or a system without /proc.
    return f"{MARKER}={marker}".encode() in environment.split(b"\0")


def _living() -> Iterator[_Process]:
    if _PROC.joinpath("self", "stat").exists():
        yield from _living_by_proc()
    else:
        yield from _living_by_ps()


def _living_by_proc() -> Iterator[_Process]:
    for entry in _PROC.iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            stat = (entry / "stat").read_text()
        except OSError:
            continue  # Ended since it was listed.
        state, parent, group, session = stat.rpartition(")")[2].split()[:4]
        if state != "Z":  # A zombie is over: only its parent has not asked yet.
            yield _Process(int(entry.name), int(parent), int(group), int(session))


def _living_by_ps() -> Iterator[_Process]:
    listing = subprocess.run(
        ["ps", "-axo", "pid=,ppid=,pgid=,stat="], capture_output=True, text=True, check=True
    )
    for line in listing.stdout.splitlines():
        pid, parent, group, state = line.split()[:4]
        if not state.startswith("Z"):
            yield _Process(int(pid), int(parent), int(group), int(group))
