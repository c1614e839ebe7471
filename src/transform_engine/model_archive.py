"""A model's files, as its server finds them: an unpacked archive, or a link to a folder."""

import shutil
import tarfile
from pathlib import Path
from urllib.parse import unquote

from transform_engine.errors import INTERNAL_ERROR, SEE_LOGS, InstanceFailed
from transform_engine.storage import Storage, split_uri

_FILE = "file://"


def lay_model(storage: Storage, url: str | None, folder: Path, *, limit_bytes: int) -> None:
    """Let a server find its model in `folder`.

    :param url: a folder at a `file://` URI that ends in `/` is linked; an archive is unpacked;
        None is a model without files.
    :raises InstanceFailed: it is missing, no archive, too large, or unsafe.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    if url is not None and url.startswith(_FILE) and url.endswith("/"):
        place = _local_path(url)
        if not place.is_dir():
            raise InstanceFailed(
                SEE_LOGS, f"the model's folder must exist, got none at {url}; check the URL"
            )
        folder.symlink_to(place.resolve())
        return
    folder.mkdir()
    folder.chmod(0o755)  # A container's user may be another than ours.
    if url is not None:
        unpack_model(storage, url, folder, limit_bytes=limit_bytes)


def unpack_model(storage: Storage, url: str, folder: Path, *, limit_bytes: int) -> None:
    """Unpack a model archive, without letting it write elsewhere or without bounds.

    :raises InstanceFailed: it is missing, no archive, too large, or unsafe.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if url.startswith(_FILE):
        _unpack(_local_path(url), url, folder, limit_bytes)
        return
    archive = folder.with_suffix(".tar.gz")
    try:
        storage.download(*split_uri(url), archive)
    except Exception as error:
        raise InstanceFailed(
            SEE_LOGS, f"the model archive must be readable, got {error!r} for {url}; check the URL"
        ) from error
    try:
        _unpack(archive, url, folder, limit_bytes)
    finally:
        archive.unlink(missing_ok=True)


def _local_path(url: str) -> Path:
    path = Path(url.removeprefix(_FILE))
    # A key of S3 is written as it is; Path.as_uri() escapes.
    return path if path.exists() else Path(unquote(str(path)))


def _unpack(archive: Path, url: str, folder: Path, limit_bytes: int) -> None:
    size = 0
    try:
        with tarfile.open(archive, "r:*") as tar:
            for member in tar:
                size += member.size
                if size > limit_bytes:
                    raise InstanceFailed(
                        INTERNAL_ERROR,
                        f"the model must unpack to at most {limit_bytes} bytes, got more from "
                        f"{url}; remove what the server does not need",
                    )
                _unpack_member(tar, member, folder.resolve())
    except FileNotFoundError as error:
        raise InstanceFailed(
            SEE_LOGS, f"the model archive must be readable, got {error!r} for {url}; check the URL"
        ) from error
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InstanceFailed(
            SEE_LOGS,
            f"the model archive must be a safe tar.gz, got {error!r} for {url}; pack it again",
        ) from error


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    """Unpack a file, a folder or a link that stays inside (tarfile filters need 3.11.4)."""
    # Resolved against what is unpacked already: a link must not lead the next member out.
    parent = _inside(folder, folder / Path(member.name).parent)
    target = parent / Path(member.name).name
    if member.isdir():
        _inside(folder, target).mkdir(parents=True, exist_ok=True)
        return
    parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)  # The later of two members with one name stays.
    content = tar.extractfile(member) if member.isfile() else None
    if content is not None:
        with content, target.open("xb") as file:
            shutil.copyfileobj(content, file)
        target.chmod(0o755 if member.mode & 0o100 else 0o644)
    elif member.issym():
        _inside(folder, parent / member.linkname)
        target.symlink_to(member.linkname)
    elif member.islnk():
        target.hardlink_to(_inside(folder, folder / member.linkname))
    else:
        raise tarfile.TarError(f"{member.name} is a device")


def _inside(folder: Path, path: Path) -> Path:
    resolved = path.resolve()
    if not resolved.is_relative_to(folder):
        raise tarfile.TarError(f"{path} leads outside the model's folder")
    return resolved
