"""Where objects lie: S3, local files, or a local folder whose sub-folders are buckets.

S3 is read and written with obstore (a tenth of boto3's CPU per small object) where it can say the
key: object_store's paths have no empty, `.` or `..` segments, no control characters, and lose
slashes at either end, and its listing takes a prefix for a folder. So boto3 lists, and reads and
writes the keys that obstore cannot say; measured against ministack and moto, see tests.

Outputs become visible in one step, or never: a file beside its place that is renamed, or an upload
of what was gathered (in memory, then in a temporary file).
"""

import asyncio
import contextlib
import os
import re
import shutil
import tempfile
import threading
import urllib.parse
import uuid
from collections.abc import AsyncIterator, Awaitable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from transform_engine.spec import JobSpec

CHUNK_BYTES = 1 << 20
_SPOOL_BYTES = 8 << 20
_NAME_BYTES = 200
_S3_URI = re.compile(r"s3://([^/]+)/?(.*)", re.DOTALL)
_FILE_URI = "file:///"
#: The bucket of local files: S3 has none without a name. Their keys are absolute paths.
LOCAL = ""
_IN_THE_MAKING = ".transform-"


@dataclass(frozen=True, slots=True)
class StoredObject:
    """A key and its size."""

    bucket: str
    key: str
    size: int


def split_uri(uri: str) -> tuple[str, str]:
    """Return bucket and key of an `s3://` URI, or `LOCAL` and the path of a `file://` one.

    :raises ValueError: it is neither.
    """
    if uri.startswith(_FILE_URI):
        return LOCAL, urllib.parse.unquote(uri[len(_FILE_URI) :])
    match = _S3_URI.fullmatch(uri)
    if match is None:
        raise ValueError(
            f"an object's URI must start with s3:// or file:///, got {uri!r}; write s3://bucket/key"
        )
    return match.group(1), match.group(2)


class Storage(Protocol):
    """What the engine needs of a place for objects; keys are S3's, any text."""

    def list(self, bucket: str, prefix: str) -> Iterator[StoredObject]:
        """Every object whose key starts with the string, in key order."""

    def size(self, bucket: str, key: str) -> int:
        """Return an object's size; raises FileNotFoundError."""

    def chunks(self, bucket: str, key: str) -> AsyncIterator[bytes]:
        """An object's bytes, in pieces."""

    def download(self, bucket: str, key: str, path: Path) -> None:
        """Write an object to a local file."""

    def path(self, bucket: str, key: str) -> Path | None:
        """Return the file that holds an object's bytes; None if it is not on this machine."""

    def output(
        self, bucket: str, key: str, *, scratch: str | None = None, kms_key_id: str | None = None
    ) -> "Output":
        """Begin an object that appears whole or not at all.

        :param scratch: a folder for what is too long to gather in memory.
        :param kms_key_id: the key that S3 encrypts it with.
        """

    def delete(self, bucket: str, key: str) -> None:
        """Remove an object; a missing one is no error."""


class Output(Protocol):
    """An object in the making."""

    def write(self, data: bytes) -> None:
        """Append."""

    def commit(self) -> Awaitable[None] | None:
        """Make it visible; done on return, or once what is returned is awaited."""

    def discard(self) -> None:
        """Leave nothing of it, unless it is visible already; may be called at any time."""


async def write_object(
    storage: Storage, bucket: str, key: str, content: bytes, *, kms_key_id: str | None = None
) -> None:
    """Write an object that is whole already."""
    output = storage.output(bucket, key, kms_key_id=kms_key_id)
    try:
        output.write(content)
        if (visible := output.commit()) is not None:
            await visible
    finally:
        output.discard()


class LocalOutput:
    """A file in the making: appears under its name when it is whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = ""
        self._file = -1

    def write(self, data: bytes) -> None:
        """Append."""
        if self._file < 0:
            self._open()
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]

    def _open(self) -> None:
        folder, _ = os.path.split(self._path)
        # The name may be as long as names can be.
        self._temporary = os.path.join(folder, f"{_IN_THE_MAKING}{uuid.uuid4().hex}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
        try:
            self._file = os.open(self._temporary, flags, 0o666)
        except FileNotFoundError:
            os.makedirs(folder, exist_ok=True)
            self._file = os.open(self._temporary, flags, 0o666)

    def commit(self) -> None:
        """Make the file visible."""
        if self._file < 0:
            self._open()  # An empty output is a file, too.
        os.close(self._file)
        self._file = -1
        os.replace(self._temporary, self._path)
        self._temporary = ""

    def discard(self) -> None:
        """Leave nothing, unless it is visible already."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        if self._temporary:
            os.unlink(self._temporary)
            self._temporary = ""


def open_storage(spec: JobSpec) -> Storage:
    """Return the storage that a job is told to use."""
    if spec.s3_folder is not None:
        return Places(FolderStorage(Path(spec.s3_folder)))
    return Places(S3Storage(endpoint=spec.s3_endpoint, region=spec.region))


class Places:
    """Local files, and S3 or what stands for it, as one storage."""

    def __init__(self, s3: Storage) -> None:
        self._s3 = s3
        self._files = LocalFiles()

    def _of(self, bucket: str) -> Storage:
        return self._files if bucket == LOCAL else self._s3

    def list(self, bucket: str, prefix: str) -> Iterator[StoredObject]:
        """Every object whose key starts with the string, in key order."""
        return self._of(bucket).list(bucket, prefix)

    def size(self, bucket: str, key: str) -> int:
        """Return an object's size; raises FileNotFoundError."""
        return self._of(bucket).size(bucket, key)

    def chunks(self, bucket: str, key: str) -> AsyncIterator[bytes]:
        """An object's bytes, in pieces."""
        return self._of(bucket).chunks(bucket, key)

    def download(self, bucket: str, key: str, path: Path) -> None:
        """Write an object to a local file."""
        self._of(bucket).download(bucket, key, path)

    def path(self, bucket: str, key: str) -> Path | None:
        """Return the file that holds an object's bytes; None if it is not on this machine."""
        return self._of(bucket).path(bucket, key)

    def output(
        self, bucket: str, key: str, *, scratch: str | None = None, kms_key_id: str | None = None
    ) -> Output:
        """Begin an object that appears whole or not at all."""
        return self._of(bucket).output(bucket, key, scratch=scratch, kms_key_id=kms_key_id)

    def delete(self, bucket: str, key: str) -> None:
        """Remove an object; a missing one is no error."""
        self._of(bucket).delete(bucket, key)


class _OnThisMachine:
    """What is the same wherever objects are files."""

    def path(self, bucket: str, key: str) -> Path:
        """Return the file that holds an object's bytes."""
        raise NotImplementedError

    def size(self, bucket: str, key: str) -> int:
        """Return an object's size; raises FileNotFoundError."""
        return self.path(bucket, key).stat().st_size

    async def chunks(self, bucket: str, key: str) -> AsyncIterator[bytes]:
        """An object's bytes, in pieces."""
        with self.path(bucket, key).open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    def download(self, bucket: str, key: str, path: Path) -> None:
        """Write an object to a local file."""
        shutil.copyfile(self.path(bucket, key), path)

    def output(
        self, bucket: str, key: str, *, scratch: str | None = None, kms_key_id: str | None = None
    ) -> LocalOutput:
        """Begin a file that appears whole or not at all; files have no encryption key."""
        return LocalOutput(self.path(bucket, key))

    def delete(self, bucket: str, key: str) -> None:
        """Remove an object; a missing one is no error."""
        self.path(bucket, key).unlink(missing_ok=True)


class LocalFiles(_OnThisMachine):
    """Files under their own names: a key is an absolute path without its first slash.

    Keys come from listings, from manifests and from S3, so those that a path would read otherwise
    (`..`, an empty segment) are refused.
    """

    def path(self, bucket: str, key: str) -> Path:
        """Return the file of a key.

        :raises ValueError: the path could mean another place.
        """
        if {"", ".", ".."} & {*key.split("/")} or "\0" in key:
            raise ValueError(
                f"a local file's path must have only names between its slashes, got {'/' + key!r}; "
                "rename the object"
            )
        return Path(f"/{key}")

    def list(self, bucket: str, prefix: str) -> Iterator[StoredObject]:
        """Every file whose path starts with the string, in the order of paths as bytes."""
        above, _, _ = f"/{prefix}".rpartition("/")
        found = []
        for folder, _, names in os.walk(above or "/", onerror=_raise_unless_missing):
            for name in names:
                path = os.path.join(folder, name)
                if path.startswith(f"/{prefix}") and not name.startswith(_IN_THE_MAKING):
                    found.append(path)
        for path in sorted(found, key=os.fsencode):
            yield StoredObject(bucket, path[1:], os.stat(path).st_size)


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


class FolderStorage(_OnThisMachine):
    """Buckets as folders, for runs without S3.

    A key is a percent-encoded file name (`in/a.csv` is the file `in%2Fa.csv`), so that no key from
    outside can name a place outside its bucket, and `a` and `a/b` can both exist. Names that are
    too long for a file system go on in sub-folders, whose names end in `+`.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, bucket: str, key: str) -> Path:
        """Return where a key's bytes lie."""
        name = urllib.parse.quote(key, safe=" ")
        if name.startswith("."):
            name = "%2E" + name[1:]  # A leading dot marks files in the making.
        parts = [name[at : at + _NAME_BYTES] for at in range(0, len(name), _NAME_BYTES)]
        return self._bucket(bucket).joinpath(*(f"{part}+" for part in parts[:-1]), *parts[-1:])

    def _bucket(self, bucket: str) -> Path:
        if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,254}", bucket):
            raise ValueError(
                f"a bucket's name must be letters, digits, dots and hyphens, got {bucket!r}; "
                "change the URI"
            )
        return self.root / bucket

    def list(self, bucket: str, prefix: str) -> Iterator[StoredObject]:
        """Every object whose key starts with the string, in key order."""
        root = self._bucket(bucket)
        keys = []
        for folder, _, names in os.walk(root):
            above = "".join(part[:-1] for part in Path(folder).relative_to(root).parts)
            keys += [urllib.parse.unquote(above + name) for name in names if name[0] != "."]
        for key in sorted((key for key in keys if key.startswith(prefix)), key=str.encode):
            yield StoredObject(bucket, key, self.path(bucket, key).stat().st_size)


class S3Storage:
    """S3 or something that speaks like it."""

    def __init__(self, *, endpoint: str | None, region: str) -> None:
        self._endpoint = endpoint
        self._region = region
        self._stores: dict[tuple[str, str | None], Any] = {}
        self._client: Any = None
        self._lock = threading.Lock()

    @property
    def _boto(self) -> Any:
        with self._lock:
            if self._client is None:
                import boto3  # Costs 0.2 s, which a job of plain keys pays only for listing.
                from botocore.config import Config

                style = "path" if self._endpoint else "auto"
                self._client = boto3.client(
                    "s3",
                    endpoint_url=self._endpoint,
                    region_name=self._region,
                    config=Config(
                        s3={"addressing_style": style},
                        retries={"mode": "standard", "max_attempts": 5},
                    ),
                )
            return self._client

    def _store(self, bucket: str, kms_key_id: str | None = None) -> Any:
        store = self._stores.get((bucket, kms_key_id))
        if store is None:
            import boto3
            from obstore.auth.boto3 import Boto3CredentialProvider
            from obstore.store import S3Store

            options: dict[str, Any] = {"region": self._region}
            if self._endpoint:
                options |= {
                    "endpoint": self._endpoint,
                    "client_options": {"allow_http": True},
                    "virtual_hosted_style_request": False,
                }
            if kms_key_id:
                options |= {
                    "aws_server_side_encryption": "aws:kms",
                    "aws_sse_kms_key_id": kms_key_id,
                }
            # boto3 finds credentials everywhere AWS's tools do, obstore only in a few places.
            provider = Boto3CredentialProvider(boto3.Session(region_name=self._region))
            store = S3Store(bucket, credential_provider=provider, **options)
            self._stores[bucket, kms_key_id] = store
        return store

    def list(self, bucket: str, prefix: str) -> Iterator[StoredObject]:
        """Every object whose key starts with the string, in key order."""
        pages = self._boto.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        for page in pages:
            for entry in page.get("Contents", ()):
                yield StoredObject(bucket, entry["Key"], entry["Size"])

    def size(self, bucket: str, key: str) -> int:
        """Return an object's size; raises FileNotFoundError."""
        from botocore.exceptions import ClientError

        try:
            return int(self._boto.head_object(Bucket=bucket, Key=key)["ContentLength"])
        except ClientError as error:
            if error.response["Error"]["Code"] in ("404", "NoSuchKey", "NotFound", "NoSuchBucket"):
                raise FileNotFoundError(f"s3://{bucket}/{key}") from error
            raise

    async def chunks(self, bucket: str, key: str) -> AsyncIterator[bytes]:
        """An object's bytes, in pieces."""
        if _obstore_can_say(key):
            import obstore

            answer = await obstore.get_async(self._store(bucket), key)
            async for chunk in answer.stream(min_chunk_size=CHUNK_BYTES):
                yield bytes(chunk)
            return
        found = await asyncio.to_thread(self._boto.get_object, Bucket=bucket, Key=key)
        with contextlib.closing(found["Body"]) as body:
            while chunk := await asyncio.to_thread(body.read, CHUNK_BYTES):
                yield chunk

    def download(self, bucket: str, key: str, path: Path) -> None:
        """Write an object to a local file."""
        self._boto.download_file(bucket, key, str(path))

    def output(
        self, bucket: str, key: str, *, scratch: str | None = None, kms_key_id: str | None = None
    ) -> "S3Output":
        """Begin an object that appears whole or not at all."""
        return S3Output(self, bucket, key, scratch=scratch, kms_key_id=kms_key_id)

    async def upload(
        self, bucket: str, key: str, content: Any, *, kms_key_id: str | None = None
    ) -> None:
        """Make a file object's content an object."""
        content.seek(0)
        if _obstore_can_say(key):
            import obstore

            await obstore.put_async(self._store(bucket, kms_key_id), key, content)
            return
        # boto3 may close the file that it uploads, so it gets a handle of its own.
        with os.fdopen(os.dup(content.fileno()), "rb") as copy:
            copy.seek(0)
            await asyncio.to_thread(
                self._boto.upload_fileobj, copy, bucket, key, ExtraArgs=_encryption(kms_key_id)
            )

    def path(self, bucket: str, key: str) -> None:
        """Objects in S3 are on no disk of ours."""

    def delete(self, bucket: str, key: str) -> None:
        """Remove an object; a missing one is no error."""
        self._boto.delete_object(Bucket=bucket, Key=key)


class S3Output:
    """An object of S3 in the making: in memory first, in a temporary file when it grows."""

    def __init__(
        self,
        storage: S3Storage,
        bucket: str,
        key: str,
        *,
        scratch: str | None,
        kms_key_id: str | None,
    ) -> None:
        self._storage = storage
        self._place = bucket, key
        self._kms_key_id = kms_key_id
        self._content = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES, dir=scratch)  # noqa: SIM115 - lives as long as the output

    def write(self, data: bytes) -> None:
        """Append."""
        self._content.write(data)

    async def commit(self) -> None:
        """Upload the content."""
        self._content.flush()
        await self._storage.upload(*self._place, self._content, kms_key_id=self._kms_key_id)

    def discard(self) -> None:
        """Drop the content."""
        self._content.close()


def _encryption(kms_key_id: str | None) -> dict[str, str]:
    return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key_id} if kms_key_id else {}


def _obstore_can_say(key: str) -> bool:
    segments = key.split("/")
    return not ({"", ".", ".."} & {*segments}) and key.isprintable()
