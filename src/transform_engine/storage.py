"""Where objects lie: S3, or a local folder whose sub-folders are buckets.

S3 is read and written with obstore (a tenth of boto3's CPU per small object) where it can say the
key: object_store's paths have no empty, `.` or `..` segments, no control characters, and lose
slashes at either end, and its listing takes a prefix for a folder. So boto3 lists, and reads and
writes the keys that obstore cannot say; measured against ministack and moto, see tests.

Outputs are spooled (memory, then a temporary file) and become visible in one step, or never.
"""

import asyncio
import contextlib
import os
import re
import shutil
import tempfile
import threading
import urllib.parse
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from transform_engine.spec import JobSpec

CHUNK_BYTES = 1 << 20
_SPOOL_BYTES = 8 << 20
_NAME_BYTES = 200
_S3_URI = re.compile(r"s3://([^/]+)/?(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class StoredObject:
    """A key and its size."""

    bucket: str
    key: str
    size: int


def split_uri(uri: str) -> tuple[str, str]:
    """Return bucket and key of an `s3://` URI.

    :raises ValueError: it is none.
    """
    match = _S3_URI.fullmatch(uri)
    if match is None:
        raise ValueError(
            f"an object's URI must start with s3://, got {uri!r}; write s3://bucket/key"
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

    async def put(self, bucket: str, key: str, body: "Spool") -> None:
        """Make an object visible, whole."""

    def delete(self, bucket: str, key: str) -> None:
        """Remove an object; a missing one is no error."""


class Spool:
    """An output in the making: in memory first, in a temporary file when it grows."""

    def __init__(self, folder: str | None = None) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES, dir=folder)  # noqa: SIM115

    def write(self, data: bytes) -> None:
        """Append."""
        self._file.write(data)

    @property
    def file(self) -> Any:
        """The whole content as a file, from its start."""
        self._file.seek(0)
        return self._file

    def fileno(self) -> int:
        """Return the descriptor of the content, which from now on is in a real file."""
        self._file.flush()
        return self._file.fileno()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


def open_storage(spec: JobSpec) -> Storage:
    """Return the storage that a job is told to use."""
    if spec.s3_folder is not None:
        return FolderStorage(Path(spec.s3_folder))
    return S3Storage(endpoint=spec.s3_endpoint, region=spec.region)


class FolderStorage:
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

    async def put(self, bucket: str, key: str, body: Spool) -> None:
        """Make an object visible, whole."""
        target = self.path(bucket, key)
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".")
        try:
            with os.fdopen(handle, "wb") as file:
                shutil.copyfileobj(body.file, file)
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise

    def delete(self, bucket: str, key: str) -> None:
        """Remove an object; a missing one is no error."""
        self.path(bucket, key).unlink(missing_ok=True)


class S3Storage:
    """S3 or something that speaks like it."""

    def __init__(self, *, endpoint: str | None, region: str) -> None:
        self._endpoint = endpoint
        self._region = region
        self._stores: dict[str, Any] = {}
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

    def _store(self, bucket: str) -> Any:
        store = self._stores.get(bucket)
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
            # boto3 finds credentials everywhere AWS's tools do, obstore only in a few places.
            provider = Boto3CredentialProvider(boto3.Session(region_name=self._region))
            store = S3Store(bucket, credential_provider=provider, **options)
            self._stores[bucket] = store
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

    async def put(self, bucket: str, key: str, body: Spool) -> None:
        """Make an object visible, whole."""
        if _obstore_can_say(key):
            import obstore

            await obstore.put_async(self._store(bucket), key, body.file)
        else:
            # boto3 may close the file that it uploads, so it gets a handle of its own.
            with os.fdopen(os.dup(body.fileno()), "rb") as copy:
                copy.seek(0)
                await asyncio.to_thread(self._boto.upload_fileobj, copy, bucket, key)

    def delete(self, bucket: str, key: str) -> None:
        """Remove an object; a missing one is no error."""
        self._boto.delete_object(Bucket=bucket, Key=key)


def _obstore_can_say(key: str) -> bool:
    segments = key.split("/")
    return not ({"", ".", ".."} & {*segments}) and key.isprintable()
