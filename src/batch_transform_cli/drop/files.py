"""Which files are dropped, under which keys, and what speaks against it before any is sent."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from batch_transform_cli.errors import NothingTried
from batch_transform_cli.screen import counted, printable, size

KEY_LIMIT_BYTES = 918
"""The longest key whose output has a key, too; `transform_lambdas.drops` says why."""
_PROBLEMS_SHOWN = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Watched:
    """What a pipeline takes for a drop, as the construct publishes it.

    :ivar marker: the name of the objects that are no drops but make a batch due; empty for none.
    :ivar events: whether an upload is taken when it happens, and not by a backfill only.
    """

    prefix: str
    suffixes: Sequence[str] = ()
    marker: str = ""
    min_bytes: int = 1
    max_bytes: int | None = None
    events: bool = True

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> Self:
        """Read what the construct publishes of a pipeline's settings."""
        return cls(
            prefix=settings["input-prefix"],
            suffixes=settings.get("suffixes", ()),
            marker=settings.get("marker", ""),
            min_bytes=max(1, settings.get("min-bytes", 1)),
            max_bytes=settings.get("max-bytes"),
            events=settings.get("events", True),
        )

    def is_marker(self, key: str) -> bool:
        """Whether it is the key of a marker."""
        return bool(self.marker) and key.rpartition("/")[2] == self.marker

    def name_problem(self, key: str) -> str | None:
        """Why the pipeline takes no notice of an object of this key, if so."""
        if not key.startswith(self.prefix):
            return (
                f"its key must begin with {self.prefix!r}, which the pipeline watches, "
                f"got {key!r}; write {self.prefix + key.lstrip('/')!r}"
            )
        if self.suffixes and not self.is_marker(key) and not key.endswith(tuple(self.suffixes)):
            wanted = " or ".join(map(repr, self.suffixes))
            return f"its key must end with {wanted}, which the pipeline takes, got {key!r}"
        return None

    def object_problem(self, key: str, size_bytes: int) -> str | None:
        """Why the pipeline would fail a drop of this key and size, if so."""
        try:
            length = len(key.encode())
        except UnicodeEncodeError:
            return f"its name must be UTF-8, got {key!r}; rename it"
        if length > KEY_LIMIT_BYTES:
            return f"its key must have at most {KEY_LIMIT_BYTES} bytes, got {length}; shorten it"
        if self.is_marker(key):
            return None
        if size_bytes < self.min_bytes:
            return f"it must have at least {counted(self.min_bytes, 'byte')}, got {size_bytes:,}"
        if self.max_bytes is not None and size_bytes > self.max_bytes:
            return (
                f"it must have at most {size(self.max_bytes)}, got {size(size_bytes)}; "
                "cut it into several files"
            )
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Upload:
    """A file to send, as it was when it was looked at.

    :ivar path: `None` for a marker that no file is.
    """

    path: Path | None
    key: str
    size: int
    modified_ns: int = 0

    @property
    def has_changed(self) -> bool:
        """Whether somebody wrote to the file since."""
        if self.path is None:
            return False
        try:
            now = self.path.stat()
        except OSError:
            return True
        return (now.st_size, now.st_mtime_ns) != (self.size, self.modified_ns)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is to be sent, and which files of folders are not, with the reason."""

    drops: list[Upload]
    markers: list[Upload] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def uploads(self) -> list[Upload]:
        """All that is sent, the markers at last."""
        return [*self.drops, *self.markers]

    @property
    def size(self) -> int:
        """How many bytes that is."""
        return sum(upload.size for upload in self.uploads)


def plan(
    paths: Sequence[Path],
    watched: Watched,
    *,
    prefix: str | None = None,
    key: str | None = None,
    marker: bool = False,
) -> Plan:
    """Choose the key of each file, and check all that can be before one is sent.

    :param prefix: the folder of keys. Default: the prefix that the pipeline watches.
    :param key: of the one file that there is.
    :param marker: whether to send a marker, too.
    :raises NothingTried: with everything that has to be mended.
    """
    folder = _folder(prefix, watched)
    if key is not None and (prefix is not None or len(paths) != 1 or paths[0].is_dir()):
        raise NothingTried("--key must name the key of one file, got more; give one file alone")
    found: dict[str, Upload] = {}
    left_out: dict[str, str] = {}
    problems: list[str] = []
    for path, name, is_named in _files(paths, problems):
        its_key = key or f"{folder}{name}"
        try:
            upload = _upload(path, its_key)
        except NothingTried as refused:
            problems.append(str(refused))
            continue
        why_not = None if is_named else _unwanted(name, upload, watched)
        if why_not is not None:
            left_out[str(path)] = why_not
            continue
        problem = watched.name_problem(its_key) or watched.object_problem(its_key, upload.size)
        if problem is not None:
            problems.append(f"{printable(str(path))}: {problem}")
        elif its_key in found and not path.samefile(found[its_key].path or path):
            problems.append(
                f"no two files may have one key, got {str(found[its_key].path)!r} and "
                f"{str(path)!r} for {its_key!r}; drop the folder that holds both"
            )
        else:
            found.setdefault(its_key, upload)
    if marker:
        found.setdefault(*_marker(folder, watched))
    if not found and not problems:
        files = f" but for {counted(len(left_out), 'file')} that it does not take"
        problems.append(
            f"there must be a file to drop, got none{files if left_out else ''}; name others"
        )
    if problems:
        more = len(problems) - _PROBLEMS_SHOWN
        raise NothingTried(
            *problems[:_PROBLEMS_SHOWN],
            *([f"and {counted(more, 'problem')} more; nothing was sent"] if more > 0 else []),
        )
    return Plan(
        drops=[upload for upload in found.values() if not watched.is_marker(upload.key)],
        markers=[upload for upload in found.values() if watched.is_marker(upload.key)],
        left_out=left_out,
    )


def _folder(prefix: str | None, watched: Watched) -> str:
    if prefix is None:
        return watched.prefix
    folder = f"{prefix.rstrip('/')}/"
    if not folder.startswith(watched.prefix):
        raise NothingTried(
            f"--prefix must begin with {watched.prefix!r}, which the pipeline watches, "
            f"got {prefix!r}; write {watched.prefix + folder.lstrip('/')!r}"
        )
    return folder


def _marker(folder: str, watched: Watched) -> tuple[str, Upload]:
    if not watched.marker:
        raise NothingTried(
            "--marker must be for a pipeline whose batches have one, got one without; "
            "give it batch: {marker: _SUCCESS}, or leave --marker out"
        )
    key = f"{folder}{watched.marker}"
    return key, Upload(path=None, key=key, size=0)


def _files(paths: Sequence[Path], problems: list[str]) -> Iterator[tuple[Path, str, bool]]:
    """Yield each file, its name below the prefix, and whether it was named itself."""
    for path in paths:
        if not path.is_dir():
            yield path, path.name, True
            continue

        def tell(error: OSError, path: Path = path) -> None:
            problems.append(
                f"the folder {str(path)!r} must be readable, got {error.strerror} at "
                f"{error.filename!r}; let it be read"
            )

        for home, folders, names in os.walk(path, onerror=tell, followlinks=True):
            folders[:] = sorted(name for name in folders if not _is_loop(Path(home, name)))
            for name in sorted(names):
                file = Path(home, name)
                yield file, file.relative_to(path).as_posix(), False


def _is_loop(folder: Path) -> bool:
    """Whether a link leads to a folder that it lies in."""
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


def _upload(path: Path, key: str) -> Upload:
    try:
        status = path.stat()
    except OSError as error:
        raise NothingTried(
            f"a file to drop must exist, got {error.strerror} at {str(path)!r}; correct the name"
        ) from None
    if not path.is_file():
        raise NothingTried(
            f"what is dropped must be a file or a folder, got {str(path)!r}; name another"
        )
    if not os.access(path, os.R_OK):
        raise NothingTried(f"a file to drop must be readable, got {str(path)!r}; let it be read")
    return Upload(path=path, key=key, size=status.st_size, modified_ns=status.st_mtime_ns)


def _unwanted(name: str, upload: Upload, watched: Watched) -> str | None:
    """Why a file of a folder is not meant to be dropped, if so."""
    if any(part.startswith(".") for part in name.split("/")):
        return "hidden"
    if watched.is_marker(upload.key):
        return None
    if watched.name_problem(upload.key):
        return f"its name does not end with {' or '.join(map(repr, watched.suffixes))}"
    return None if upload.size else "empty"
