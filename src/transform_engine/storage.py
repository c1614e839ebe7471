"""Where objects lie: S3, local files, or a local folder whose sub-folders are buckets.

Outputs become visible in one step, or never: a file beside its place that is renamed, or an upload
of what was gathered (see `s3`). What a place cannot do is a `StorageFailed` that says what to do.
"""

import asyncio
import contextlib
import errno
import functools
import hashlib
import itertools
import os
import re
import shutil
import stat
import urllib.parse
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from transform_engine.errors import ObjectFailed
from transform_engine.small_files import SMALL_BYTES, SmallFiles
from transform_engine.spec import JobSpec

CHUNK_BYTES = 1 << 20
_BUFFER_BYTES = 256 << 10
_PAGE_BYTES = 4096
# A pipe without a writer would be waited for.
_TO_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
_NAME_BYTES = 200
_S3_URI = re.compile(r"s3://([^/]+)/?(.*)", re.DOTALL)
_FILE_URI = "file:///"
#: The bucket of local files: S3 has none without a name. Their keys are absolute paths.
LOCAL = ""
_IN_THE_MAKING = ".transform-"
_NUMBERS = itertools.count()


class StorageFailed(ObjectFailed):
    """An object, or a bucket, cannot be read or written."""

    fault: ClassVar[str] = "ClientError"

    def __init__(self, message: str) -> None:
        super().__init__(*message.splitlines())


@dataclass(frozen=True, slots=True)
class StoredObject:
    """A key and its size in bytes; None if only reading it will tell."""

    bucket: str
    key: str
    size: int | None


def split_uri(uri: str) -> tuple[str, str]:
    """Return bucket and key of an `s3://` URI, or `LOCAL` and the path of a `file:///` one.

    A path is percent-encoded as `Path.as_uri` does it; slashes that follow a slash mean nothing.

    :raises ValueError: it is neither.
    """
    if uri.startswith(_FILE_URI):
        path = os.fsdecode(urllib.parse.unquote_to_bytes(uri[len(_FILE_URI) :]))
        return LOCAL, re.sub("/+", "/", path).removeprefix("/")
    match = _S3_URI.fullmatch(uri)
    if match is None:
        raise ValueError(
            f"an object's URI must start with s3:// or file:///, got {uri!r}; write s3://bucket/key"
        )
    return match.group(1), match.group(2)


def uri_of(bucket: str, key: str) -> str:
    """Return the URI that `split_uri` reads."""
    if bucket == LOCAL:
        return _FILE_URI + urllib.parse.quote(os.fsencode(key))
    return f"s3://{bucket}/{key}"


def in_the_making(work_dir: str) -> str:
    """Return how the names of all files start that are written for an instance's `work_dir`."""
    token = hashlib.blake2s(os.fsencode(work_dir), digest_size=8).hexdigest()
    return f"{_IN_THE_MAKING}{token}-"


class Storage(Protocol):
    """What the engine needs of a place for objects; keys are S3's, any text.

    All of it raises `StorageFailed`.
    """

    def list(self, bucket: str, prefix: str) -> Iterator[StoredObject]:
        """Every object whose key starts with the string, in key order."""

    def size(self, bucket: str, key: str) -> int:
        """Return an object's size in bytes."""

    def chunks(self, bucket: str, key: str) -> AsyncIterator[bytes]:
        """An object's bytes, in pieces; fails rather than mix two versions of them."""

    def download(self, bucket: str, key: str, path: Path) -> None:
        """Write an object to a local file."""

    def file_path(self, bucket: str, key: str) -> str | None:
        """Return the file that holds an object's bytes; None if it is not on this machine."""

    def outputs(
        self, bucket: str, *, scratch: str | None = None, kms_key_id: str | None = None
    ) -> "Callable[[str], Output]":
        """Return what begins an object of a key, which appears whole or not at all.

        What is wrong with it, it says when it is used.

        :param scratch: a folder for what is too long to gather in memory.
        :param kms_key_id: the key that S3 encrypts it with.
        """

    def delete(self, bucket: str, *keys: str) -> None:
        """Remove objects; a missing one is no error."""

    def sweep(self, bucket: str, folder: str, work_dir: str) -> None:
        """Remove what a killed instance left in the making.

        :param folder: what the keys of its objects start with, up to a slash.
        :param work_dir: the folder of its scratch files, as the storage that wrote them knew it.
        """


class Output(Protocol):
    """An object in the making.

    :ivar key: the object's.
    """

    key: str

    def write(self, data: bytes) -> None:
        """Append."""

    def commit(self, rest: bytes = b"") -> "asyncio.Future[None] | None":
        """Append the last bytes and make it visible.

        Done on return, or once what is returned is done.
        """

    def discard(self) -> None:
        """Leave nothing of it, unless it is visible already; may be called at any time."""


async def write_object(
    storage: Storage, bucket: str, key: str, content: bytes, *, kms_key_id: str | None = None
) -> None:
    """Write an object that is whole already."""
    output = storage.outputs(bucket, kms_key_id=kms_key_id)(key)
    try:
        if (visible := output.commit(content)) is not None:
            await visible
    finally:
        output.discard()


class LocalOutput:
    """A file in the making: appears under its name when it is whole.

    :param path: the file that holds the bytes of the object `key`.
    :param mark: how the names of a writer's files in the making start, see `in_the_making`.
    :param small: who may make it if it is small.
    """

    __slots__ = ("_file", "_gathered", "_mark", "_path", "_size", "_small", "_temporary", "key")

    def __init__(self, key: str, path: str, mark: str, small: SmallFiles | None = None) -> None:
        self.key = key
        self._path = path
        self._mark = mark
        self._small = small
        self._gathered: list[bytes] = []
        self._size = 0
        self._file = -1
        self._temporary = ""

    def write(self, data: bytes) -> None:
        """Append."""
        self._gathered.append(data)
        self._size += len(data)
        if self._size >= _BUFFER_BYTES:
            self._flush()

    def _flush(self) -> None:
        gathered, self._gathered, self._size = self._gathered, [], 0
        try:
            if self._file < 0:
                self._open()
            # What is large is not copied for the sake of what is small.
            parts = (b"".join(gathered[:-1]), *gathered[-1:])
            for part in parts:
                written = os.write(self._file, part) if part else 0
                while written < len(part):
                    with memoryview(part) as view:
                        written += os.write(self._file, view[written:])
        except OSError as error:
            raise not_writable(self._path, error) from error

    def _open(self) -> None:
        folder = self._path[: self._path.rindex("/") + 1]
        # Not named like the file, whose name may be as long as names can be.
        temporary = f"{folder}{self._mark}{next(_NUMBERS)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            self._file = os.open(temporary, flags, 0o666)
        except FileNotFoundError:
            os.makedirs(folder, exist_ok=True)
            self._file = os.open(temporary, flags, 0o666)
        self._temporary = temporary

    def commit(self, rest: bytes = b"") -> "asyncio.Future[None] | None":
        """Append the last bytes and make the file visible; without any it is a file, too."""
        content = b"".join((*self._gathered, rest))
        if self._small is not None and len(content) <= SMALL_BYTES and self._file < 0:
            made = self._small.make(self._path, content)
            if made is not None:
                return made
        self._gathered = [content]
        self._flush()
        try:
            self._close()
            os.replace(self._temporary, self._path)
        except OSError as error:
            raise not_writable(self._path, error) from error
        self._temporary = ""
        return None

    def _close(self) -> None:
        # Some file systems tell only here that there was no space.
        file, self._file = self._file, -1
        os.close(file)

    def discard(self) -> None:
        """Leave nothing, unless it is visible already."""
        self._gathered = []
        if self._file >= 0:
            with contextlib.suppress(OSError):  # It goes away, whatever was not written.
                self._close()
        if self._temporary:
            with contextlib.suppress(OSError):  # Its disk is gone, or somebody was faster.
                os.unlink(self._temporary)
            self._temporary = ""


class _NoOutput:
    """An object whose key no file can have."""

    def __init__(self, key: str, failure: StorageFailed) -> None:
        self.key = key
        self._failure = failure

    def write(self, data: bytes) -> None:
        """Refuse."""
        raise self._failure

    def commit(self, rest: bytes = b"") -> None:
        """Refuse."""
        raise self._failure

    def discard(self) -> None:
        """Leave the nothing that there is."""


def not_readable(path: str | Path, error: OSError) -> StorageFailed:
    """Say why a local file cannot be read."""
    return StorageFailed(f"{path} must be readable, got {_reason(error)}; {_remedy(error)}")


def not_writable(path: str | Path, error: OSError) -> StorageFailed:
    """Say why a local file cannot be written."""
    return StorageFailed(f"{path} must be writable, got {_reason(error)}; {_remedy(error)}")


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _remedy(error: OSError) -> str:
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR | errno.EISDIR | errno.ELOOP:
            return "check what is there"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return "check its permissions"
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            return "free some space"
        case errno.ENAMETOOLONG:
            return "shorten its name"
        case _:
            return "check the disk"


def small_files(spec: JobSpec) -> SmallFiles:
    """Return what makes a job's small outputs where they are local files."""
    mark = in_the_making(spec.work_dir)

    def make(path: str, content: bytes) -> None:
        output = LocalOutput(path[1:], path, mark)
        try:
            output.commit(content)
        finally:
            output.discard()

    return SmallFiles(mark, make)


def open_storage(spec: JobSpec, small: SmallFiles | None = None) -> Storage:
    """Return the storage that a job is told to use."""
    mark = in_the_making(spec.work_dir)

    def s3() -> Storage:
        if spec.s3_folder is not None:
            return FolderStorage(Path(spec.s3_folder), mark)
        # Its clients cost 0.3 s and 30 MB, which a job of files does not pay.
        from transform_engine.s3 import S3Storage

        return S3Storage(endpoint=spec.s3_endpoint, region=spec.region, work_dir=spec.work_dir)

    return Places(LocalFiles(mark, small), s3)


class Places:
    """Local files, and S3 or what stands for it, as one storage.

    :param s3: makes it when a bucket is asked for.
    """

    def __init__(self, files: Storage, s3: Callable[[], Storage]) -> None:
        self._files = files
        self._s3 = functools.cache(s3)

    def _of(self, bucket: str) -> Storage:
        return self._files if bucket == LOCAL else self._s3()

    def list(self, bucket: str, prefix: str) -> Iterator[StoredObject]:
        """Every object whose key starts with the string, in key order."""
        return self._of(bucket).list(bucket, prefix)

    def size(self, bucket: str, key: str) -> int:
        """Return an object's size in bytes."""
        return self._of(bucket).size(bucket, key)

    def chunks(self, bucket: str, key: str) -> AsyncIterator[bytes]:
        """An object's bytes, in pieces."""
        return self._of(bucket).chunks(bucket, key)

    def download(self, bucket: str, key: str, path: Path) -> None:
        """Write an object to a local file."""
        self._of(bucket).download(bucket, key, path)

    def file_path(self, bucket: str, key: str) -> str | None:
        """Return the file that holds an object's bytes; None if it is not on this machine."""
        return self._of(bucket).file_path(bucket, key)

    def outputs(
        self, bucket: str, *, scratch: str | None = None, kms_key_id: str | None = None
    ) -> Callable[[str], Output]:
        """Return what begins an object of a key, which appears whole or not at all."""
        return self._of(bucket).outputs(bucket, scratch=scratch, kms_key_id=kms_key_id)

    def delete(self, bucket: str, *keys: str) -> None:
        """Remove objects; a missing one is no error."""
        self._of(bucket).delete(bucket, *keys)

    def sweep(self, bucket: str, folder: str, work_dir: str) -> None:
        """Remove what a killed instance left in the making."""
        self._of(bucket).sweep(bucket, folder, work_dir)


class _OnThisMachine:
    """What is the same wherever objects are files.

    :param mark: how the names of files in the making start.
    :param small: who may make small files.
    """

    def __init__(self, mark: str | None = None, small: SmallFiles | None = None) -> None:
        self._mark = mark or in_the_making(uuid.uuid4().hex)
        self._small = small

    def path(self, bucket: str, key: str) -> Path:
        """Return the file that holds an object's bytes."""
        return Path(self.file_path(bucket, key))

    def file_path(self, bucket: str, key: str) -> str:
        """Return the file that holds an object's bytes."""
        raise NotImplementedError

    def size(self, bucket: str, key: str) -> int:
        """Return an object's size in bytes."""
        path = self.file_path(bucket, key)
        try:
            return os.stat(path).st_size
        except OSError as error:
            raise not_readable(path, error) from error

    async def chunks(self, bucket: str, key: str) -> AsyncIterator[bytes]:
        """An object's bytes, in pieces."""
        for chunk in _pieces(self.file_path(bucket, key)):
            yield chunk

    def download(self, bucket: str, key: str, path: Path) -> None:
        """Write an object to a local file."""
        source = self.file_path(bucket, key)
        try:
            shutil.copyfile(source, path)
        except OSError as error:
            raise not_readable(source, error) from error

    def outputs(
        self, bucket: str, *, scratch: str | None = None, kms_key_id: str | None = None
    ) -> Callable[[str], Output]:
        """Return what begins a file that appears whole or not at all; none is encrypted."""
        return functools.partial(self._output, bucket)

    def _output(self, bucket: str, key: str) -> Output:
        try:
            return LocalOutput(key, self.file_path(bucket, key), self._mark, self._small)
        except StorageFailed as failure:
            return _NoOutput(key, failure)

    def delete(self, bucket: str, *keys: str) -> None:
        """Remove objects; a missing one is no error."""
        for key in keys:
            path = self.file_path(bucket, key)
            try:
                os.unlink(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise not_writable(path, error) from error

    def _sweep(self, root: str, work_dir: str) -> None:
        mark = in_the_making(work_dir)
        for folder, _, names in os.walk(root):
            for name in names:
                if name.startswith(mark):
                    os.unlink(os.path.join(folder, name))


def _pieces(path: str) -> Iterator[bytes]:
    """Return a file's bytes, in pieces, or fail if they are not those of one moment."""
    file, before = open_file(path)
    try:
        while chunk := os.read(file, CHUNK_BYTES):
            yield chunk
        must_be_unchanged(path, file, before)
    except OSError as error:
        raise not_readable(path, error) from error
    finally:
        os.close(file)


def open_file(path: str | Path) -> tuple[int, os.stat_result]:
    """Open a file to read it, and return its descriptor and what `must_be_unchanged` wants.

    :raises StorageFailed: it is none, or may not be read.
    """
    try:
        file = os.open(path, _TO_READ)
    except OSError as error:
        raise not_readable(path, error) from error
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode):
        os.close(file)
        raise StorageFailed(f"{path} must be a file, got none; check what is there")
    return file, status


def must_be_unchanged(path: str | Path, file: int, before: os.stat_result) -> None:
    """Fail if an open file was written to since `open_file`: then no one has meant its bytes."""
    after = os.fstat(file)
    if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise StorageFailed(
            f"{path} must not change while it is read, got {after.st_size} bytes that had "
            f"{before.st_size}; run the job again when it is whole"
        )


def read_page(path: str, size: int) -> bytes | None:
    """Return the bytes of a file that was a file of this size when it was listed, or None.

    None is no failure: it has more than a page, which is read in one go, or has changed since.

    :raises StorageFailed: it may not be read.
    """
    if size > _PAGE_BYTES:
        return None
    try:
        file = os.open(path, _TO_READ)
        try:
            content = os.read(file, size + 1)
        finally:
            os.close(file)
    except OSError as error:
        raise not_readable(path, error) from error
    return content if len(content) == size else None


class LocalFiles(_OnThisMachine):
    """Files under their own names: a key is an absolute path without its first slash.

    Links are followed, but not into a folder that they lie in. What is neither file nor folder is
    no object. Keys come from manifests and from S3, too, so those that a path would read otherwise
    (`..`, an empty segment) are refused.
    """

    def file_path(self, bucket: str, key: str) -> str:
        """Return the file that holds an object's bytes."""
        path = f"/{key}"
        framed = f"{path}/"
        if "//" in framed or "/./" in framed or "/../" in framed or "\0" in key:
            raise StorageFailed(
                f"a local file's path must have only names between its slashes, got {'/' + key!r}; "
                "rename the object"
            )
        return path

    def list(self, bucket: str, prefix: str) -> Iterator[StoredObject]:
        """Every file whose path starts with the string, in the order of paths."""
        above, _, start = f"/{prefix}".rpartition("/")
        folders = [_Folder(above or "/", start)]
        while folders:
            for path, size, is_folder in folders[-1].entries:
                if not is_folder:
                    yield StoredObject(bucket, path[1:], size)
                    continue
                below = _Folder(path)
                if all(below.identity != each.identity for each in folders):
                    folders.append(below)
                    break
            else:
                folders.pop()

    def sweep(self, bucket: str, folder: str, work_dir: str) -> None:
        """Remove what a killed instance left in the making."""
        self._sweep(f"/{folder}", work_dir)


class _Folder:
    """What lies in a folder, in the order that paths have, and which folder it is."""

    def __init__(self, path: str, start: str = "") -> None:
        self.identity: tuple[int, int] | None = None
        found: list[tuple[str, int | None, bool]] = []
        try:
            status = os.stat(path)
            self.identity = status.st_dev, status.st_ino
            with os.scandir(path) as entries:
                for entry in entries:
                    name = entry.name
                    if not name.startswith(start) or name.startswith(_IN_THE_MAKING):
                        continue
                    if (known := _known(entry)) is not None:
                        found.append(known)
        except (FileNotFoundError, NotADirectoryError):
            pass  # Gone since its name was read: then nothing lies in it, as in S3.
        except OSError as error:
            raise not_readable(path, error) from error
        # Paths sort as if folders' names ended in their slash.
        found.sort(key=_order)
        self.entries = iter(found)


def _order(entry: tuple[str, int | None, bool]) -> str:
    path, _, is_folder = entry
    return f"{path}/" if is_folder else path


def _known(entry: os.DirEntry[str]) -> tuple[str, int | None, bool] | None:
    """Return path, size, and whether it is a folder; None if it is no object and has none."""
    try:
        if entry.is_file():
            return entry.path, entry.stat().st_size, False
        if entry.is_dir():
            return entry.path, None, True
        # A link that leads nowhere fails when it is read; pipes and sockets are no objects.
        return (entry.path, None, False) if entry.is_symlink() else None
    except FileNotFoundError:
        return None  # Gone since its name was read.
    except OSError:
        return entry.path, None, False  # Whatever it is, it fails when it is read.


class FolderStorage(_OnThisMachine):
    """Buckets as folders, for runs without S3.

    A key is a percent-encoded file name (`in/a.csv` is the file `in%2Fa.csv`), so that no key from
    outside can name a place outside its bucket, and `a` and `a/b` can both exist. Names that are
    too long for a file system go on in sub-folders, whose names end in `+`.
    """

    def __init__(self, root: Path, mark: str | None = None) -> None:
        super().__init__(mark)
        self.root = root

    def file_path(self, bucket: str, key: str) -> str:
        """Return the file that holds an object's bytes."""
        name = urllib.parse.quote(key, safe=" ")
        if name.startswith("."):
            name = "%2E" + name[1:]  # A leading dot marks files in the making.
        parts = [name[at : at + _NAME_BYTES] for at in range(0, len(name), _NAME_BYTES)]
        return os.path.join(self._bucket(bucket), *(f"{part}+" for part in parts[:-1]), *parts[-1:])

    def _bucket(self, bucket: str) -> str:
        if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,254}", bucket):
            raise StorageFailed(
                f"a bucket's name must be letters, digits, dots and hyphens, got {bucket!r}; "
                "change the URI"
            )
        return os.path.join(self.root, bucket)

    def list(self, bucket: str, prefix: str) -> Iterator[StoredObject]:
        """Every object whose key starts with the string, in key order."""
        root = self._bucket(bucket)
        keys = []
        for folder, _, names in os.walk(root):
            above = "".join(part[:-1] for part in Path(folder).relative_to(root).parts)
            keys += [urllib.parse.unquote(above + name) for name in names if name[0] != "."]
        for key in sorted((key for key in keys if key.startswith(prefix)), key=str.encode):
            yield StoredObject(bucket, key, self.size(bucket, key))

    def sweep(self, bucket: str, folder: str, work_dir: str) -> None:
        """Remove what a killed instance left in the making."""
        self._sweep(self._bucket(bucket), work_dir)
