"""Which files of a project have changed.

It looks at all of them again and again, and is not told: that works on every file system (mounts of
containers and of other machines tell nobody), and takes no further package.
"""

import contextlib
import hashlib
import os
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path

_NEVER = {"__pycache__", "cdk.out", "node_modules"}
_NO_SOURCE = ("~", ".pyc", ".swp", ".tmp", ".log")  # what programs leave beside one
_CHUNK_BYTES = 1 << 20

_ITS_OWN_AFTER = 3

Look = dict[str, tuple[int, ...]]
"""What was seen of each file."""


class FileWatch:
    """Tells of changes below some folders, each once, when nothing changes any more.

    Names that begin with a dot, caches, virtual environments, logs, the output of `cdk synth` and
    what this program says itself are not looked at.

    :param ignored: further folders that are not.
    """

    def __init__(self, folders: Iterable[Path], *, ignored: Collection[Path] = ()) -> None:
        self._folders = [folder.absolute() for folder in folders]
        self._ignored = {str(folder.absolute()) for folder in ignored}
        self._said = _own_output()
        self._told = self._last = self.look()
        self._digests: dict[str, bytes | None] = {}
        self._written_in_a_row: Counter[str] = Counter()
        self._written: set[str] = set()

    def changed(self) -> list[str]:
        """Return the files that have changed since the last answer; none while they still do."""
        before, self._last = self._last, self.look()
        if self._last != before or self._last == self._told:
            return []
        names = sorted(_differing(self._told, self._last) - self._written)
        self._told = self._last
        # What writes a file anew as it was, such as the app itself, has changed nothing.
        return [name for name in names if self._is_other(name)]

    def app_has_run(self, before: Look) -> list[str]:
        """Learn what the app itself writes; return what is no longer watched because of that.

        Else an app that writes something else each time, such as a model that it trains, would be
        deployed for ever.

        :param before: what was seen before the app ran.
        """
        written = _differing(before, self.look()) - self._written
        self._written_in_a_row = Counter(
            {name: self._written_in_a_row[name] + 1 for name in written}
        )
        its_own = [n for n, count in self._written_in_a_row.items() if count == _ITS_OWN_AFTER]
        self._written |= {*its_own}
        return sorted(its_own)

    def _is_other(self, name: str) -> bool:
        digest = _digest(name)
        known = name in self._digests and self._digests[name] == digest
        self._digests[name] = digest
        return not known

    def look(self) -> Look:
        """Look at all files."""
        found: Look = {}
        seen: set[tuple[int, int]] = set()  # a link can lead into a circle
        folders = [str(folder) for folder in self._folders]
        while folders:
            folder = folders.pop()
            try:
                place = os.stat(folder)
                if (place.st_dev, place.st_ino) in seen:
                    continue
                seen.add((place.st_dev, place.st_ino))
                entries = list(os.scandir(folder))
            except OSError:
                continue  # It went while we looked, or is not ours to read.
            if any(entry.name == "pyvenv.cfg" for entry in entries):
                continue
            for entry in entries:
                if self._is_nothing(entry):
                    continue
                try:
                    if entry.is_dir():
                        folders.append(entry.path)
                        continue
                    at = entry.stat()
                    if (at.st_dev, at.st_ino) not in self._said:
                        found[entry.path] = (at.st_mtime_ns, at.st_size, at.st_ino, at.st_mode)
                except OSError:
                    continue  # As above.
        return found

    def _is_nothing(self, entry: os.DirEntry[str]) -> bool:
        return (
            entry.name.startswith(".")
            or entry.name in _NEVER
            or entry.name.endswith(_NO_SOURCE)
            or entry.path in self._ignored
        )


def _own_output() -> set[tuple[int, int]]:
    """Return what this program's own words go to, such as nohup.out: each would be a change."""
    found = set()
    for stream in (1, 2):
        with contextlib.suppress(OSError):  # It is closed.
            at = os.fstat(stream)
            found.add((at.st_dev, at.st_ino))
    return found


def _differing(before: Look, after: Look) -> set[str]:
    return {n for n in before.keys() | after.keys() if before.get(n) != after.get(n)}


def _digest(name: str) -> bytes | None:
    """Return a digest of the file's content and mode; None if there is no such file."""
    try:
        with open(name, "rb") as file:
            digest = hashlib.sha256(str(os.fstat(file.fileno()).st_mode).encode())
            while data := file.read(_CHUNK_BYTES):
                digest.update(data)
    except OSError:
        return None
    return digest.digest()
