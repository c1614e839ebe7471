"""The local cloud of a project: how commands in its folder find the one that `up` runs there.

`up` writes `.batch-transform/local-cloud.json` and holds a lock on it while it lives. The lock goes
with the process however that ends, so a file without one is of a cloud that is no more.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from batch_transform_cli.errors import CommandError

FOLDER = ".batch-transform"
"""What belongs to this machine in a project's folder; git ignores it."""

_FILE = "local-cloud.json"
_LOOKS_LIMIT_S = 0.5  # Who only looks whether a cloud lives holds the lock for a moment, too.


class Place(NamedTuple):
    """Where a pipeline is."""

    account: str
    region: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ProjectCloud:
    """A local cloud that runs.

    :ivar project: the folder where `up` was started.
    :ivar places: accounts and regions that have pipelines.
    """

    endpoint: str
    project: Path
    pid: int
    places: tuple[Place, ...]

    def place(self, account: str, region: str) -> Place:
        """Return the place of pipelines nearest to the one asked for, which may mean AWS's."""
        if not self.places:
            return Place(account, region)
        return max(
            self.places, key=lambda place: (place.account == account, place.region == region)
        )


def running_cloud(folder: Path) -> ProjectCloud | None:
    """Return the local cloud of the project that the folder is in; None if none runs.

    :raises CommandError: it is about to start.
    """
    for project in (folder, *folder.parents):
        told = _of_a_living_process(_file_of(project))
        if told is None:
            continue
        if "endpoint" not in told:
            raise CommandError(
                f"the local cloud of {project} must have started, got one that starts still; "
                "try again in a moment, or name --endpoint"
            )
        return ProjectCloud(
            endpoint=told["endpoint"],
            project=project,
            pid=told["pid"],
            places=tuple(Place(*place) for place in told["places"]),
        )
    return None


class Claim:
    """The right to run a project's local cloud."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._write({"pid": os.getpid()})

    def announce(self, endpoint: str, places: Iterable[Place] = ()) -> None:
        """Let the commands of the project find the cloud.

        :param places: that have pipelines by now.
        """
        self._write({"endpoint": endpoint, "pid": os.getpid(), "places": [*places]})

    def _write(self, told: dict[str, Any]) -> None:
        text = json.dumps(told).encode() + b"\n"
        os.ftruncate(self._file, os.pwrite(self._file, text, 0))


@contextmanager
def claimed(project: Path) -> Iterator[Claim]:
    """Hold the project for one local cloud; afterwards nothing tells of it any more.

    :raises CommandError: another one runs there, or the folder cannot be written.
    """
    path = _file_of(project)
    try:
        path.parent.mkdir(exist_ok=True)
        (path.parent / ".gitignore").write_text("*\n")
        file = _lock(path)
    except BlockingIOError:
        there = (_read(path) or {}).get("pid", "?")
        raise CommandError(
            f"a project must have one local cloud, got a `batch-transform up` in {project} already "
            f"(process {there}); use that one, or end it with Ctrl-C"
        ) from None
    except OSError as error:
        raise CommandError(
            f"the project's folder must be one that can be written, got {error}; "
            "start `up` in another one"
        ) from error
    try:
        yield Claim(file)
    finally:
        path.unlink(missing_ok=True)
        os.close(file)


def _lock(path: Path) -> int:
    """Open the file and lock it, in the place where it stands then."""
    deadline = time.monotonic() + _LOOKS_LIMIT_S
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
                return file
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(file)
                raise
            time.sleep(_LOOKS_LIMIT_S / 20)
        os.close(file)  # Perhaps an `up` that ended has removed it since we opened it.


def _of_a_living_process(path: Path) -> dict[str, Any] | None:
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return None  # No cloud was started there, or by somebody whose files are not ours to read.
    try:
        if os.fstat(file).st_uid != os.getuid():
            return None  # Another user's cloud would get what is dropped here.
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(path)
    finally:
        os.close(file)
    return None


def _read(path: Path) -> dict[str, Any] | None:
    try:
        told: dict[str, Any] = json.loads(path.read_text("utf-8") or "{}")
    except FileNotFoundError:
        return None  # It ended meanwhile.
    return told


def _file_of(project: Path) -> Path:
    return project / FOLDER / _FILE
