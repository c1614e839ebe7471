"""A directory of model files as a model.tar.gz that is the same for the same content."""

import gzip
import hashlib
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

_BLOCK_BYTES = 1 << 20


def content_hash(directory: Path) -> str:
    """Return a hash of names, executable bits and bytes of every file in `directory`.

    Of the content and not of the archive: another version of zlib packs into other bytes.
    """
    digest = hashlib.sha256()
    for path in _files(directory):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(directory).as_posix()}\0{_mode(path)}\0{size}\0".encode())
        with path.open("rb") as content:
            while block := content.read(_BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()


def pack(directory: Path, archive: Path) -> None:
    """Write the files of `directory` to `archive`: sorted, without times, owners or links."""
    with (
        archive.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for path in _files(directory):
            member = tarfile.TarInfo(path.relative_to(directory).as_posix())
            member.size = path.stat().st_size
            member.mode = _mode(path)
            with path.open("rb") as content:
                tar.addfile(member, content)


def _files(directory: Path) -> Iterator[Path]:
    for path in sorted(directory.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path


def _mode(path: Path) -> int:
    return 0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644
