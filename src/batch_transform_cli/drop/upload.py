"""Sends files to the input bucket: many at once, large ones in parts, whole or not at all."""

import io
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from boto3.s3.transfer import TransferConfig, create_transfer_manager
from botocore.exceptions import ClientError
from rich.console import RenderableType
from s3transfer.exceptions import CancelledError
from s3transfer.futures import TransferFuture
from s3transfer.subscribers import BaseSubscriber

from batch_transform_cli.drop.files import Upload
from batch_transform_cli.job.progress import bar, clock_time
from batch_transform_cli.screen import counted, size

AT_ONCE = 10
"""Requests at once; as many connections the client of S3 has."""
_PART_BYTES = 16 * 1024 * 1024
_LOOK_S = 0.1
_FORESEEN = 0.01  # before that, a guess of what is left jumps about
_KEY = "batch-transform-key"
_UNSEEN = {"403", "AccessDenied", "Forbidden"}
_ABSENT = {"404", "NoSuchKey", "NotFound"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Version:
    """What S3 said of an upload.

    :ivar version_id: empty in a bucket that keeps no versions.
    :ivar at: when it answered, by its own clock.
    """

    etag: str
    version_id: str
    at: datetime


@dataclass(slots=True)
class Sent:
    """What arrived, by key, and what failed; a key that is in neither was given up."""

    versions: dict[str, Version] = field(default_factory=dict)
    problems: dict[str, Exception] = field(default_factory=dict)
    interrupted: bool = False


class UploadProgress:
    """Counts files and bytes; may be told by several threads."""

    def __init__(
        self,
        files: int,
        total_bytes: int = 0,
        *,
        phase: str = "sending",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self._phase = phase
        self.files = files
        self.ended = 0
        self.sent_bytes = 0
        self._total_bytes = total_bytes
        self._begun = clock()
        self._lock = threading.Lock()

    def add_bytes(self, count: int) -> None:
        """Count bytes; less than none when a part begins anew."""
        with self._lock:
            self.sent_bytes += count

    @property
    def seconds(self) -> float:
        """The time since it began."""
        return self.clock() - self._begun

    @property
    def fraction(self) -> float:
        """How much is sent: of the bytes, or of the files if none has one."""
        if self._total_bytes:
            return min(1.0, self.sent_bytes / self._total_bytes)
        return self.ended / (self.files or 1)

    @property
    def line(self) -> str:
        """How far it is, in a line."""
        said = [f"{self.ended:,} of {counted(self.files, 'file')}"]
        if self._total_bytes:
            said.append(f"{size(self.sent_bytes)} of {size(self._total_bytes)}")
        seconds, fraction = self.seconds, self.fraction
        if seconds and self.sent_bytes:
            said.append(f"{size(self.sent_bytes / seconds)}/s")
        if fraction >= _FORESEEN:
            said.append(f"{clock_time(seconds / fraction - seconds)} left")
        return ", ".join(said)

    @property
    def picture(self) -> RenderableType:
        """How far it is, for a terminal."""
        return bar(self._phase, self.fraction, self.line, at=self.clock())


def existing(
    s3: Any, bucket: str, keys: Sequence[str], progress: UploadProgress, show: Callable[[], None]
) -> dict[str, int | None]:
    """Return how large the objects are that these keys have; `None` where that is not allowed."""
    found: dict[str, int | None] = {}

    def look(key: str) -> tuple[str, int | None] | None:
        try:
            return key, int(s3.head_object(Bucket=bucket, Key=key)["ContentLength"])
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in _ABSENT:
                return None
            if code in _UNSEEN:
                return key, None  # who may only drop may not look
            raise

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for object_there in pool.map(look, keys):
            progress.ended += 1
            show()
            if object_there is not None:
                found.update([object_there])
    return found


def send(
    s3: Any,
    bucket: str,
    waves: Iterable[Sequence[Upload]],
    progress: UploadProgress,
    show: Callable[[], None],
) -> Sent:
    """Send wave after wave, each when all of the one before has arrived, until one upload fails.

    After a failure, or Ctrl-C, what had begun is taken back: no part of a file stays in S3.

    :param s3: a client for this alone, since it is listened to.
    """
    sending = _Sending(s3, bucket, progress, show)
    try:
        for wave in waves:
            sending.send(wave)
    except _Failed:
        pass  # what and why is in `sent`
    except KeyboardInterrupt:
        sending.sent.interrupted = True
    sending.collect()
    return sending.sent


class _Failed(Exception):
    """An upload failed; the others are not to go on."""


class _Sending:
    def __init__(
        self, s3: Any, bucket: str, progress: UploadProgress, show: Callable[[], None]
    ) -> None:
        self.sent = Sent()
        self._s3 = s3
        self._bucket = bucket
        self._progress = progress
        self._show = show
        self._ended: queue.SimpleQueue[TransferFuture] = queue.SimpleQueue()
        self._versions = _versions_of(s3)

    def send(self, uploads: Sequence[Upload]) -> None:
        begun = ended = 0
        config = TransferConfig(
            max_concurrency=AT_ONCE,
            multipart_threshold=_PART_BYTES,
            multipart_chunksize=_PART_BYTES,
            preferred_transfer_client="classic",  # the other one tells no versions
        )
        # When this is left by an error it cancels what has begun, and waits for that.
        with create_transfer_manager(self._s3, config) as manager:
            for upload in uploads:
                manager.upload(
                    io.BytesIO() if upload.path is None else str(upload.path),
                    self._bucket,
                    upload.key,
                    subscribers=[_Subscriber(self._progress, self._ended)],
                )
                begun += 1
                ended += self._collect_one(wait_s=0)
            while ended < begun:
                ended += self._collect_one(wait_s=_LOOK_S)

    def collect(self) -> None:
        """Take note of what has ended while the rest was cancelled."""
        while not self._ended.empty():
            self._take(self._ended.get())

    def _collect_one(self, *, wait_s: float) -> int:
        self._show()
        try:
            future = self._ended.get(block=wait_s > 0, timeout=wait_s or None)
        except queue.Empty:
            return 0
        self._take(future)
        if self.sent.problems:
            raise _Failed
        return 1

    def _take(self, future: TransferFuture) -> None:
        key = future.meta.call_args.key
        try:
            future.result()
        except CancelledError:
            return  # because of another, or of Ctrl-C
        except Exception as error:  # whatever it is, it is told, and ends the command
            self.sent.problems[key] = error
            return
        self.sent.versions[key] = self._versions[key]
        self._progress.ended += 1


class _Subscriber(BaseSubscriber):  # type: ignore[misc]  # s3transfer ships no types
    def __init__(
        self, progress: UploadProgress, ended: "queue.SimpleQueue[TransferFuture]"
    ) -> None:
        self._progress = progress
        self._ended = ended

    def on_progress(self, bytes_transferred: int, **_: Any) -> None:
        self._progress.add_bytes(bytes_transferred)

    def on_done(self, future: TransferFuture, **_: Any) -> None:
        self._ended.put(future)


def _versions_of(s3: Any) -> Mapping[str, Version]:
    """Return what fills with the version of each upload: the transfer manager does not tell it."""
    versions: dict[str, Version] = {}

    def before(params: Mapping[str, Any], context: dict[str, Any], **_: Any) -> None:
        context[_KEY] = params["Key"]

    def after(parsed: Mapping[str, Any], context: Mapping[str, Any], **_: Any) -> None:
        if "ETag" in parsed:
            versions[context[_KEY]] = Version(
                etag=parsed["ETag"].strip('"'),
                version_id=parsed.get("VersionId", ""),
                at=_answered_at(parsed["ResponseMetadata"]["HTTPHeaders"]),
            )

    for request in ("PutObject", "CompleteMultipartUpload"):
        s3.meta.events.register(f"provide-client-params.s3.{request}", before)
        s3.meta.events.register(f"after-call.s3.{request}", after)
    return versions


def _answered_at(headers: Mapping[str, str]) -> datetime:
    """Return the time of whoever answered; ours, if it does not tell."""
    told = headers.get("date")
    return datetime.now(UTC) if told is None else parsedate_to_datetime(told)
