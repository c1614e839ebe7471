"""S3 and what speaks like it.

S3 is read and written with obstore (a tenth of boto3's CPU per small object) where it can say the
key: object_store's paths have no empty, `.` or `..` segments, no control characters, and lose
slashes at either end, and its listing takes a prefix for a folder. So boto3 lists, and reads and
writes the keys that obstore cannot say; measured against ministack and moto, see tests.

An object is read in windows, each a request of its own: a slow model keeps no connection waiting, a
lost one costs one window, and memory stays flat. All windows have the first one's ETag. An output
is gathered in memory and is one PUT; a long one goes through a file to boto3's transfer manager,
which aborts an upload that fails or is given up. Every request has a time limit, and once S3 has
not answered through all retries, what follows soon fails at once.
"""

import asyncio
import contextlib
import functools
import json
import os
import re
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
import obstore
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig, create_transfer_manager
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    NoCredentialsError,
    PartialCredentialsError,
    ReadTimeoutError,
)
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.exceptions import BaseError
from obstore.store import S3Store

from transform_engine.storage import (
    CHUNK_BYTES,
    StorageFailed,
    StoredObject,
    not_writable,
    uri_of,
)

if TYPE_CHECKING:
    from obstore import GetOptions

_WINDOW_BYTES = 4 << 20
_IN_MEMORY_BYTES = 2 << 20
_BUFFER_BYTES = 256 << 10
_PART_BYTES = 8 << 20
_UPLOAD_THREADS = 4
_POOL = 32
_KEYS_A_DELETE = 1000
_CONNECT_TIMEOUT_S = 5
_STALL_TIMEOUT_S = 20
_REQUEST_TIMEOUT_S = 60  # 0.6 Mbit/s are enough for a window.
_PATIENCE_S = 20
_MANY = 1000  # The time ends the retries.
_MAX_BACKOFF_S = 4
_PAUSE_S = 0.2
_ATTEMPTS = 4
_GONE_FOR_S = 30
_GIVE_UP_S = 5
_REASON_LENGTH = 300
_UPLOADS = "uploads.jsonl"

_RENEW = "renew the credentials"
_ALLOW = "allow it to the credentials in use"
_NAME = "check its name"
_REGION = "give the bucket's own region"
_REMEDIES = {
    "NoSuchBucket": "create the bucket or change the URI",
    "NoSuchKey": _NAME,
    "404": _NAME,
    "AccessDenied": _ALLOW,
    "403": _ALLOW,
    "InvalidAccessKeyId": _RENEW,
    "SignatureDoesNotMatch": _RENEW,
    "ExpiredToken": _RENEW,
    "InvalidToken": _RENEW,
    "PermanentRedirect": _REGION,
    "301": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "PreconditionFailed": "run the job again when nobody writes the object",
}


#: An object's size, its ETag, and what reads the part of it that was asked for.
_Answer = tuple[int, str | None, Callable[[], Awaitable[Any]]]


class S3Storage:
    """S3 or something that speaks like it.

    :param endpoint: its address; None is AWS's, or what AWS's tools are told in the environment.
    :param work_dir: where uploads in parts are noted, so that `sweep` finds those of the killed.
    :param patience_s: how long a request is tried again that gets no answer.
    """

    def __init__(
        self,
        *,
        endpoint: str | None,
        region: str,
        work_dir: str | None = None,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        told = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        self._endpoint = endpoint or told
        self._region = region
        self._patience_s = patience_s
        self._uploads = Path(work_dir, _UPLOADS) if work_dir else None
        self._stores: dict[tuple[str, str | None], S3Store] = {}
        self._session = boto3.Session(region_name=region)
        if endpoint and self._session.get_credentials() is None:
            # An emulator takes any, but the clients want some.
            self._session = boto3.Session("local", "local", region_name=region)
        self._client: Any = None
        self._manager: Any = None
        self._lock = threading.Lock()
        # What was said when S3 did not answer, and until when nobody asks again.
        self._gone: str | None = None
        self._gone_until = 0.0

    @property
    def _boto(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = _client(self._session, self._endpoint)
                self._client.meta.events.register(
                    "after-call.s3.CreateMultipartUpload", self._note_upload
                )
            return self._client

    @property
    def _transfers(self) -> Any:
        client = self._boto
        with self._lock:
            if self._manager is None:
                config = TransferConfig(
                    multipart_threshold=_PART_BYTES,
                    multipart_chunksize=_PART_BYTES,
                    max_concurrency=_UPLOAD_THREADS,
                    preferred_transfer_client="classic",
                )
                self._manager = create_transfer_manager(client, config)
            return self._manager

    def _store(self, bucket: str, kms_key_id: str | None = None) -> S3Store:
        store = self._stores.get((bucket, kms_key_id))
        if store is None:
            options: dict[str, Any] = {
                "region": self._region,
                "client_options": {
                    "connect_timeout": timedelta(seconds=_CONNECT_TIMEOUT_S),
                    "timeout": timedelta(seconds=_REQUEST_TIMEOUT_S),
                },
                "retry_config": {
                    "max_retries": _MANY,
                    "retry_timeout": timedelta(seconds=self._patience_s),
                    "backoff": {"max_backoff": timedelta(seconds=_MAX_BACKOFF_S)},
                },
            }
            endpoint = self._boto.meta.endpoint_url
            if ".amazonaws.com" not in endpoint:
                options |= {"endpoint": endpoint, "virtual_hosted_style_request": False}
                options["client_options"]["allow_http"] = True
            if kms_key_id:
                options |= {
                    "aws_server_side_encryption": "aws:kms",
                    "aws_sse_kms_key_id": kms_key_id,
                }
            # boto3 finds credentials everywhere AWS's tools do, obstore only in a few places.
            if self._session.get_credentials() is None:
                raise NoCredentialsError
            provider = Boto3CredentialProvider(self._session)
            store = S3Store(bucket, credential_provider=provider, **options)
            self._stores[bucket, kms_key_id] = store
        return store

    def list(self, bucket: str, prefix: str) -> Iterator[StoredObject]:
        """Every object whose key starts with the string, in key order."""
        with self._told("listable", bucket, prefix):
            pages = self._boto.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=bucket, Prefix=prefix):
                for entry in page.get("Contents", ()):
                    yield StoredObject(bucket, entry["Key"], entry["Size"])

    def size(self, bucket: str, key: str) -> int:
        """Return an object's size in bytes."""
        with self._told("readable", bucket, key):
            return int(self._boto.head_object(Bucket=bucket, Key=key)["ContentLength"])

    async def chunks(self, bucket: str, key: str) -> AsyncIterator[bytes]:
        """An object's bytes, in pieces."""
        read, size, etag = 0, 1, None
        while read < size:
            with self._told("readable", bucket, key):
                try:
                    window, size, etag = await self._window(bucket, key, read, etag)
                except (BaseError, ClientError) as error:
                    if _code(error) == "InvalidRange" and not read:
                        return  # An empty object has no first byte.
                    raise
            if len(window) != min(size - read, _WINDOW_BYTES):
                raise StorageFailed(
                    f"{uri_of(bucket, key)} must be read whole, got {len(window)} bytes at {read} "
                    f"of {size}; check what answers for S3"
                )
            read += len(window)
            with memoryview(window) as view:
                for at in range(0, len(view), CHUNK_BYTES):
                    yield bytes(view[at : at + CHUNK_BYTES])

    async def _window(
        self, bucket: str, key: str, start: int, etag: str | None
    ) -> tuple[Any, int, str | None]:
        """Return the bytes from `start` on, the object's size, and its ETag."""
        begin = self._obstore_get if _obstore_can_say(key) else self._boto_get
        deadline = time.monotonic() + self._patience_s
        while True:
            size, etag, read = await begin(bucket, key, start, etag)
            try:
                return await read(), size, etag
            except (BaseError, BotoCoreError):
                # The clients try again by themselves only until the answer has begun.
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(_PAUSE_S)

    async def _obstore_get(self, bucket: str, key: str, start: int, etag: str | None) -> _Answer:
        options: GetOptions = {"range": (start, start + _WINDOW_BYTES)}
        if etag:
            options["if_match"] = etag
        answer = await obstore.get_async(self._store(bucket), key, options=options)
        return answer.meta["size"], answer.meta["e_tag"], answer.bytes_async

    async def _boto_get(self, bucket: str, key: str, start: int, etag: str | None) -> _Answer:
        options = {"Range": f"bytes={start}-{start + _WINDOW_BYTES - 1}"}
        if etag:
            options["IfMatch"] = etag
        answer = await asyncio.to_thread(self._boto.get_object, Bucket=bucket, Key=key, **options)

        def read() -> Any:
            with contextlib.closing(answer["Body"]) as body:
                return body.read()

        # What knows no ranges sends all of it.
        size = int(answer.get("ContentRange", "").rpartition("/")[2] or answer["ContentLength"])
        return size, answer["ETag"], functools.partial(asyncio.to_thread, read)

    def download(self, bucket: str, key: str, path: Path) -> None:
        """Write an object to a local file."""
        with self._told("readable", bucket, key):
            try:
                self._boto.download_file(bucket, key, str(path))
            except BotoCoreError:
                raise  # Some of them are OSErrors, too.
            except OSError as error:
                raise not_writable(path, error) from error

    def file_path(self, bucket: str, key: str) -> None:
        """Objects in S3 are on no disk of ours."""

    def outputs(
        self, bucket: str, *, scratch: str | None = None, kms_key_id: str | None = None
    ) -> "Callable[[str], S3Output]":
        """Return what begins an object of a key, which appears whole or not at all."""
        return functools.partial(S3Output, self, bucket, scratch=scratch, kms_key_id=kms_key_id)

    async def put(self, bucket: str, key: str, content: bytes, kms_key_id: str | None) -> None:
        """Make an object of bytes."""
        with self._told("writable", bucket, key):
            if _obstore_can_say(key):
                put = obstore.put_async(
                    self._store(bucket, kms_key_id), key, content, use_multipart=False
                )
            else:
                put = asyncio.to_thread(
                    self._boto.put_object,
                    Bucket=bucket,
                    Key=key,
                    Body=content,
                    **_encryption(kms_key_id),
                )
            await self._or_gone(bucket, key, put)

    async def upload(self, bucket: str, key: str, path: str, kms_key_id: str | None) -> None:
        """Make an object of a file."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        with self._told("writable", bucket, key):
            transfer = self._transfers.upload(
                path,
                bucket,
                key,
                extra_args=_encryption(kms_key_id),
                subscribers=[_Done(loop, done)],
            )

            async def end() -> None:
                await done.wait()
                transfer.result()

            await self._or_gone(bucket, key, end(), cancel=transfer.cancel)

    async def _or_gone(
        self,
        bucket: str,
        key: str,
        upload: Awaitable[Any],
        cancel: Callable[[], None] = lambda: None,
    ) -> None:
        """Await an upload; if that is cancelled, see to it that nothing of it stays."""
        work = asyncio.ensure_future(upload)
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            cancel()
            await asyncio.wait((work,), timeout=_GIVE_UP_S)
            if not work.done():
                work.cancel()
            elif work.exception() is None:
                await asyncio.to_thread(self.delete, bucket, key)
            raise

    def delete(self, bucket: str, *keys: str) -> None:
        """Remove objects; a missing one is no error."""
        # XML has no control characters.
        plain = [key for key in keys if key.isprintable()]
        with self._told("removable", bucket, keys[0] if keys else ""):
            for at in range(0, len(plain), _KEYS_A_DELETE):
                batch = [{"Key": key} for key in plain[at : at + _KEYS_A_DELETE]]
                answer = self._boto.delete_objects(
                    Bucket=bucket, Delete={"Objects": batch, "Quiet": True}
                )
                for error in answer.get("Errors", ()):
                    raise ClientError({"Error": error}, "DeleteObjects")
            for key in {*keys}.difference(plain):
                self._boto.delete_object(Bucket=bucket, Key=key)

    def _note_upload(self, parsed: Mapping[str, Any], **_: Any) -> None:
        if self._uploads and "UploadId" in parsed:
            note = {name: parsed[name] for name in ("Bucket", "Key", "UploadId")}
            with self._uploads.open("a") as file:
                file.write(json.dumps(note) + "\n")

    def sweep(self, bucket: str, folder: str, work_dir: str) -> None:
        """Abort the uploads that a killed instance left in the making."""
        try:
            notes = Path(work_dir, _UPLOADS).read_text()
        except FileNotFoundError:
            return
        for line in notes.splitlines():
            upload = json.loads(line)
            # Most of them are complete, and so unknown.
            with (
                self._told("removable", upload["Bucket"], upload["Key"]),
                contextlib.suppress(self._boto.exceptions.NoSuchUpload),
            ):
                self._boto.abort_multipart_upload(**upload)

    @contextlib.contextmanager
    def _told(self, doing: str, bucket: str, key: str) -> Iterator[None]:
        """Say in one line what S3 or its clients say in twenty."""
        if self._gone is not None and time.monotonic() < self._gone_until:
            raise StorageFailed(f"{uri_of(bucket, key)} must be {doing}, {self._gone}")
        try:
            yield
        except (BaseError, FileNotFoundError, ClientError, BotoCoreError, Boto3Error) as error:
            if _is_silence(error):
                said = f"got no answer from {self._boto.meta.endpoint_url} ({_reason(error)}); "
                said += "check the network and the endpoint"
                self._gone, self._gone_until = said, time.monotonic() + _GONE_FOR_S
            else:
                said = f"got {_reason(error)}; {_remedy(error)}"
            raise StorageFailed(f"{uri_of(bucket, key)} must be {doing}, {said}") from error
        self._gone = None


def _client(session: Any, endpoint: str | None) -> Any:
    s3: dict[str, str] = {}
    options: dict[str, Any] = {}
    if endpoint:
        s3["addressing_style"] = "path"
        # What speaks like S3 seldom speaks the newest of it.
        options["request_checksum_calculation"] = "when_required"
        options["response_checksum_validation"] = "when_required"
        if urlsplit(endpoint).hostname in ("127.0.0.1", "localhost", "::1"):
            options["proxies"] = {}
    return session.client(
        "s3",
        endpoint_url=endpoint,
        config=Config(
            s3=s3,
            connect_timeout=_CONNECT_TIMEOUT_S,
            read_timeout=_STALL_TIMEOUT_S,
            retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
            max_pool_connections=_POOL,
            **options,
        ),
    )


class _Done:
    # What s3transfer calls a subscriber.
    def __init__(self, loop: asyncio.AbstractEventLoop, done: asyncio.Event) -> None:
        self._loop = loop
        self._done = done

    def on_done(self, future: Any, **_: Any) -> None:
        self._loop.call_soon_threadsafe(self._done.set)


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
        self._bucket = bucket
        self.key = key
        self._scratch = scratch or tempfile.gettempdir()
        self._kms_key_id = kms_key_id
        self._start = bytearray()
        self._file: IO[bytes] | None = None

    def write(self, data: bytes) -> None:
        """Append."""
        if self._file is None:
            self._start += data
            if len(self._start) < _IN_MEMORY_BYTES:
                return
        try:
            if self._file is None:
                self._file = tempfile.NamedTemporaryFile(  # noqa: SIM115 - lives as long as the output
                    dir=self._scratch, buffering=_BUFFER_BYTES
                )
                data = bytes(self._start)
            self._file.write(data)
            self._start.clear()
        except OSError as error:
            raise not_writable(self._scratch, error) from error

    def commit(self, rest: bytes = b"") -> "asyncio.Future[None]":
        """Append the last bytes and upload the content."""
        self.write(rest)
        return asyncio.create_task(self._upload())

    async def _upload(self) -> None:
        if self._file is None:
            await self._storage.put(self._bucket, self.key, bytes(self._start), self._kms_key_id)
            return
        try:
            self._file.flush()
        except OSError as error:
            raise not_writable(self._scratch, error) from error
        await self._storage.upload(self._bucket, self.key, self._file.name, self._kms_key_id)

    def discard(self) -> None:
        """Drop the content."""
        self._start.clear()
        if self._file is not None:
            with contextlib.suppress(OSError):  # What could not be written is not wanted.
                self._file.close()
            self._file = None


def _encryption(kms_key_id: str | None) -> dict[str, str]:
    return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key_id} if kms_key_id else {}


def _obstore_can_say(key: str) -> bool:
    segments = key.split("/")
    return not ({"", ".", ".."} & {*segments}) and key.isprintable()


def _code(error: Exception) -> str:
    """Return S3's name of an error; empty if it is not S3 who says it."""
    if isinstance(error, ClientError):
        return str(error.response["Error"].get("Code", ""))
    if match := re.search(r"<Code>([\w.]+)</Code>", str(error)):
        return match[1]
    return "PermanentRedirect" if "Received redirect without LOCATION" in str(error) else ""


def _is_silence(error: Exception) -> bool:
    """Whether S3 did not answer at all, so that it will not answer another request either."""
    if isinstance(error, BaseError):
        return re.search("kind: (Connect|Timeout)", str(error)) is not None
    return isinstance(error, (ConnectionError, ReadTimeoutError))


def _reason(error: Exception) -> str:
    text = str(error)
    if code := _code(error):
        if isinstance(error, ClientError):
            said = str(error.response["Error"].get("Message", ""))
        else:
            match = re.search(r"<Message>(.*?)</Message>", text, re.DOTALL)
            said = match[1] if match else ""
        said = " ".join(said.split())[:_REASON_LENGTH]
        return f"{code} ({said})" if said else code
    if isinstance(error, BaseError):
        if "TimedOut" in text:
            return "timed out"
        # Its last words are the first cause.
        told = re.findall(r'(?:message|error): "([^"]*)"', text)
        text = told[-1] if told else text.partition("\n")[0]
    return " ".join(text.split())[:_REASON_LENGTH]


def _remedy(error: Exception) -> str:
    if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
        return "sign in, or set AWS_PROFILE or AWS_ACCESS_KEY_ID and its secret"
    return _REMEDIES.get(_code(error), "check the bucket and its endpoint")
