"""S3 and what speaks like it.

S3 is read and written with obstore (a tenth of boto3's CPU per small object) where it can say the
key: object_store's paths have no empty, `.` or `..` segments, no control characters, and lose
slashes at either end, and its listing takes a prefix for a folder. So boto3 lists, and reads and
writes the keys that obstore cannot say; measured against ministack and moto, see tests.
"""

import asyncio
import contextlib
import os
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from transform_engine.storage import CHUNK_BYTES, StoredObject

_SPOOL_BYTES = 8 << 20


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

    def delete(self, bucket: str, *keys: str) -> None:
        """Remove objects; a missing one is no error."""
        for key in keys:
            self._boto.delete_object(Bucket=bucket, Key=key)

    def sweep(self, bucket: str, prefix: str, work_dir: str) -> None:
        """Remove what a killed instance left in the making."""


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
