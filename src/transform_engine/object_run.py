"""One object on its way: bytes, payloads, replies in the order of the records, output.

What is sent, waits to be sent, or waits for an earlier reply of the object is bounded, so that
memory does not grow with the object.
"""

import asyncio
import os
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from itertools import chain
from typing import Any

from transform_engine.errors import BadInput, ObjectFailed
from transform_engine.lanes import Lanes, StreamedPayload
from transform_engine.objects import Task
from transform_engine.packing import LinePacker, Packer, Payload, too_large
from transform_engine.records import Gunzip, Recipe
from transform_engine.settings import Settings
from transform_engine.storage import (
    CHUNK_BYTES,
    Output,
    Storage,
    must_be_unchanged,
    open_file,
    read_page,
)

# Records that are cut one by one take far more memory than their bytes.
_CUT_BYTES = 64 * 1024
_READ_AHEAD_BYTES = 1 << 20
_READ_AHEAD_PAYLOADS = 2048
_LOOK_BACK_BYTES = 4096
_GATHERED_REPLIES = 256
_GATHERED_BYTES = 4096  # A larger one is written at once.
_SAMPLE_BYTES = 16 * 1024
_WIDEST_WINDOW, _SMALL_BYTES = 256, 512 * 1024
_KEPT_BYTES = 32 * 2**20
_COUNTED_BYTES = 256 * 2**20
_NO_BATCH: Iterator[Any] = iter(())


async def pieces(
    storage: Storage,
    task: Task,
    *,
    gzip: bool,
    on_read: Callable[[int], None] = lambda size: None,
) -> AsyncGenerator[bytes, None]:
    """Read an object in pieces, decompressed if need be.

    :param on_read: told of the bytes that were read, before they are decompressed.
    :raises BadInput: it cannot be read.
    """
    unpack = Gunzip() if gzip else None
    try:
        async for piece in storage.chunks(task.bucket, task.key):
            on_read(len(piece))
            for part in unpack.feed(piece) if unpack is not None else (piece,):
                yield part
        if unpack is not None:
            unpack.end()
    except ObjectFailed:
        raise
    except Exception as error:
        # Whatever a storage raises: this object cannot be read, and the others may.
        raise _unreadable(error) from error


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What the objects of a job have in common.

    :param window: how many payloads of an object may be sent, or wait for the reply of an earlier
        one, however large they are.
    :param on_end: called once for each object, with why it failed or None.
    """

    recipe: Recipe
    settings: Settings
    storage: Storage
    lanes: Lanes
    window: int
    on_end: Callable[["ObjectRun", ObjectFailed | None], None]


class ObjectRun:
    """Transforms one object.

    :ivar all_taken: there will be no other payload to take.
    :ivar bytes_read: of the object as it is stored.
    :ivar records: how many of its records have their reply; `records_estimated` says whether that
        is told by samples, since lines that are sent together are not counted.
    """

    # These are the same for most objects, and there may be ten thousand a second.
    bytes_read = 0
    records = 0
    records_estimated = False
    _at = 0  # Where the first payload in waiting begins, if its records are not counted.
    # What is read ahead, if the object is on no disk of ours.
    _ready: deque[Payload] | None = None
    _ready_bytes = 0
    _room: asyncio.Event | None = None
    _all_read = False
    _background: asyncio.Future[None] | None = None
    _batches: Iterator[Iterable[Payload]] = _NO_BATCH
    _batch: Iterator[Payload] = _NO_BATCH
    _path: str | None = None
    all_taken = False
    _is_streamed = _over = False

    def __init__(self, task: Task, output: Output, job: Job) -> None:
        self.task = task
        self.output = output
        self._job = job
        self._waiting: deque[Payload] = deque()  # In order, from the first without a reply.
        self._gathered: list[bytes] = []
        self._reads_replies = job.recipe.reads_replies
        self._window = job.window  # Wider for a while, where what waits is small.
        self._next: Callable[[], Payload | None] = self._begin

    def take(self) -> Payload | None:
        """Give the next payload to send; None if there is none at the moment, or no more."""
        if self.all_taken or (len(self._waiting) >= self._window and not self._widen()):
            return None
        try:
            payload = next(self._batch, None) or self._next()
        except ObjectFailed as failure:
            self.fail(failure)
            return None
        except OSError as error:
            self.fail(_unreadable(error))
            return None
        if payload is None:
            if self._ready is None or self._all_read:
                self.all_taken = True
                self._end_if_whole()
            return None
        self._waiting.append(payload)
        return payload

    def _widen(self) -> bool:
        """Let more payloads wait for an earlier reply, if all that do are small.

        A server may let one request wait while it replies to many others.
        """
        waiting = self._waiting
        held = sum(len(payload.body) + len(payload.reply or b"") for payload in waiting)
        if len(waiting) >= _WIDEST_WINDOW or held > _SMALL_BYTES:
            return False
        self._window = len(waiting) + self._job.settings.max_concurrent
        return True

    def close(self) -> None:
        """Leave nothing behind: the job is given up, or the object has ended."""
        self._over = self.all_taken = True
        self._waiting.clear()
        self._ready = None
        self._next = _nothing
        self._batch = self._batches = _NO_BATCH  # Closes the file.
        if self._background is not None:
            self._background.cancel()
        self.output.discard()

    async def wait_closed(self) -> None:
        """Wait until nothing of it goes on behind."""
        if self._background is not None:
            await asyncio.wait((self._background,))

    # lanes.Sender

    def weigh(self, payload: Payload) -> None:
        """Estimate the records of lines that went together, and drop what is not needed again."""
        sample = payload.body[:_SAMPLE_BYTES]
        lines = sample.count(b"\n") or 1
        payload.records = max(1, round(lines * payload.size / len(sample)))
        self.records_estimated = self.records_estimated or len(sample) < payload.size
        if not self._job.recipe.keeps_bodies:
            payload.body = b""

    def failed(self, payload: Payload, failure: ObjectFailed) -> None:
        """Wait for the replies before it, then fail with the first failure in order."""
        payload.failure = failure
        self.all_taken = True
        waiting = self._waiting
        while waiting[-1] is not payload:
            self._job.lanes.abandon(waiting.pop())
        self.deliver()

    def deliver(self) -> None:
        """Write the replies that are next in order."""
        waiting, gathered = self._waiting, self._gathered
        try:
            while waiting:
                payload = waiting[0]
                reply = payload.reply
                if reply is None:
                    if payload.failure is not None:
                        self.fail(payload.failure, payload)
                    return
                if self._reads_replies:
                    for part in self._job.recipe.output(payload, reply):
                        self.output.write(part)
                else:
                    gathered.append(reply)
                    if len(reply) > _GATHERED_BYTES or len(gathered) == _GATHERED_REPLIES:
                        self.output.write(self._job.recipe.plain_output(gathered))
                        gathered.clear()
                waiting.popleft()
                self.records += payload.records
                if payload.size:
                    self._at += payload.size
        except ObjectFailed as failure:
            self.fail(failure, waiting[0])
            return
        except OSError as error:
            self.fail(self._unwritable(error))
            return
        if self.all_taken:
            self._end_if_whole()

    def _end_if_whole(self) -> None:
        if not self.all_taken or self._waiting or self._over:
            return
        try:
            if (
                not (self.records or self._is_streamed)
                and self._job.settings.readings.empty_object_fails
            ):
                raise BadInput("the object must have a record, got an empty object; remove it")
            visible = self.output.commit(self._job.recipe.plain_output(self._gathered))
        except ObjectFailed as failure:
            self.fail(failure)
        except Exception as error:
            # Whatever a storage raises: this object has no output, and the others may.
            self.fail(self._unwritable(error))
        else:
            if visible is None:
                self._end(None)
            else:
                self._background = visible
                visible.add_done_callback(self._committed)

    def _committed(self, visible: asyncio.Future[None]) -> None:
        if visible.cancelled():
            return
        error = visible.exception()
        if error is None:
            self._background = None
            self._end(None)
        else:
            # Whatever a storage raises: this object has no output, and the others may.
            self.fail(error if isinstance(error, ObjectFailed) else self._unwritable(error))

    def fail(self, failure: ObjectFailed, payload: Payload | None = None) -> None:
        """Give the object up; its output does not appear.

        :param payload: the one that failed, for the records in it.
        """
        if self._over:
            return
        if payload is not None:
            failure.records = self._place(payload)
        # Its frames hold the payloads, and refer to it in turn: they would wait for the collector,
        # which counts objects and not bytes.
        failure.with_traceback(None)
        for waiting in self._waiting:
            self._job.lanes.abandon(waiting)
        self._end(failure)

    def _end(self, failure: ObjectFailed | None) -> None:
        self.close()
        self._job.on_end(self, failure)

    def _place(self, payload: Payload) -> str:
        """Say which records a payload has."""
        first, count = self.records, payload.records
        if payload.size:
            end = self._at + payload.size
            if self._path is None or self._job.settings.gzip or end > _COUNTED_BYTES:
                return f"bytes {self._at} to {end - 1}"
            first = _count_lines(self._path, 0, self._at)
            count = max(1, _count_lines(self._path, self._at, end))
        if not count:
            return ""
        return f"record {first}" if count == 1 else f"records {first} to {first + count - 1}"

    # Where payloads come from

    def _begin(self) -> Payload | None:
        """Open the object."""
        task, job = self.task, self._job
        job.recipe.check()
        try:
            path = None if job.recipe.can_stream else job.storage.file_path(task.bucket, task.key)
        except ObjectFailed:
            raise
        except Exception as error:
            # Whatever a storage raises: its key may be none that a place can have.
            raise _unreadable(error) from error
        self._path = path
        if path is None:
            self._ready = deque()
            self._next = self._read
            self._room = asyncio.Event()
            self._background = asyncio.create_task(self._read_ahead())
        elif job.settings.split == "None":
            return self._whole_file(path)
        else:
            self._batches = self._of_file(path, job.recipe.packer())
            self._next = self._from_file
        return self._next()

    def _whole_file(self, path: str) -> Payload | None:
        """Read a file whose content is one payload, or none."""
        self.all_taken = True
        size = self.task.size
        if size and not self._job.settings.gzip:
            body = read_page(path, size)
            if body is not None:
                self.bytes_read = size
                return self._job.recipe.pack_whole(body)
        batches = self._of_file(path, self._job.recipe.packer())
        payloads = [*chain.from_iterable(batches)]
        return payloads[0] if payloads else None

    def _from_file(self) -> Payload | None:
        for batch in self._batches:
            self._window = self._job.window  # What comes now may be larger.
            self._batch = iter(batch)
            payload = next(self._batch, None)
            if payload is not None:
                return payload
        return None

    def _of_file(self, path: str, packer: Packer) -> Iterator[Iterable[Payload]]:
        """Read a file when its payloads are asked for; those of a piece come together."""
        file, before = open_file(path)
        try:
            size = before.st_size
            if isinstance(packer, LinePacker) and not self._job.settings.gzip:
                yield from self._lines_of_file(file, size, packer)
                must_be_unchanged(path, file, before)
                return
            unpack = Gunzip() if self._job.settings.gzip else None
            step = CHUNK_BYTES if self._job.settings.split == "None" else _CUT_BYTES
            at = 0
            while at < size:
                piece = os.read(file, min(step, size - at))
                at += len(piece)
                _must_be_there(piece, at, size)
                self.bytes_read += len(piece)
                for part in unpack.feed(piece) if unpack is not None else (piece,):
                    yield packer.feed(part)
            if unpack is not None:
                unpack.end()
            yield packer.end()
            must_be_unchanged(path, file, before)
        finally:
            os.close(file)

    def _lines_of_file(
        self, file: int, size: int, packer: LinePacker
    ) -> Iterator[Iterable[Payload]]:
        at = 0
        while at < size:
            end = min(at + packer.limit, size)
            if end < size:
                end = _line_end(file, at, end)
                if end == at:
                    raise too_large("a line", packer.limit + 1, packer.limit, at_least=True)
            self.bytes_read += end - at
            # Not kept here, so that it goes as soon as it is answered.
            yield (packer.payload(_read(file, at, end, size)),)
            at = end

    async def _read_ahead(self) -> None:
        try:
            if self._job.recipe.can_stream:
                await self._stream()
            else:
                packer = self._job.recipe.packer()
                async with aclosing(self._pieces()) as read:
                    async for piece in read:
                        await self._put(packer.feed(piece))
                await self._put(packer.end())
        except ObjectFailed as failure:
            self.fail(failure)
            return
        except Exception as error:
            self._job.lanes.broke(error)
            return
        self._all_read = True
        self._job.lanes.wake()

    def _pieces(self) -> AsyncGenerator[bytes, None]:
        self.bytes_read = 0  # It may be opened anew, for another try.
        return pieces(
            self._job.storage, self.task, gzip=self._job.settings.gzip, on_read=self._count_bytes
        )

    def _count_bytes(self, size: int) -> None:
        self.bytes_read += size

    async def _put(self, payloads: Iterable[Payload]) -> None:
        ready, room = self._ready, self._room
        assert ready is not None
        assert room is not None
        self._window = self._job.window  # What comes now may be larger.
        for payload in payloads:
            ready.append(payload)
            self._ready_bytes += len(payload.body)
            if self._ready_bytes >= _READ_AHEAD_BYTES or len(ready) >= _READ_AHEAD_PAYLOADS:
                room.clear()
                self._job.lanes.wake()
                await room.wait()
        self._job.lanes.wake()

    def _read(self) -> Payload | None:
        ready, room = self._ready, self._room
        assert room is not None
        if not ready:
            room.set()
            return None
        payload = ready.popleft()
        self._ready_bytes -= len(payload.body)
        if len(ready) < _READ_AHEAD_PAYLOADS // 2 and self._ready_bytes < _READ_AHEAD_BYTES // 2:
            room.set()
        return payload

    async def _stream(self) -> None:
        """Make the whole object one payload that is read while it is sent, unless it is empty."""
        async with aclosing(self._pieces()) as read:
            async for piece in read:
                if piece:
                    self._is_streamed = True
                    await self._put((StreamedPayload(b"", records=0, open=self._pieces),))
                    return

    def _unwritable(self, error: BaseException) -> ObjectFailed:
        return BadInput(
            f"the output {self.task.relative}.out must be writable, got {error!r}; "
            "check the output path"
        )


def window(settings: Settings, recipe: Recipe) -> int:
    """Return how many payloads of an object are sent, or wait for the reply of an earlier one."""
    enough = 2 * settings.max_concurrent + 2
    if recipe.keeps_bodies and settings.limit_bytes is not None:
        # All of them are in memory: as many as are sent at a time, and what else is small.
        fit = _KEPT_BYTES // settings.limit_bytes
        return max(settings.max_concurrent + 1, min(enough, fit))
    return enough


def _nothing() -> None:
    return None


def _unreadable(error: Exception) -> BadInput:
    return BadInput(f"the object must be readable, got {error!r}; check that it exists")


def _must_be_there(piece: bytes, at: int, size: int) -> None:
    if not piece:
        raise BadInput(
            f"the object must not change while it is read, got {at} of {size} bytes; "
            "drop it again when it is whole"
        )


def _read(file: int, at: int, end: int, size: int) -> bytes:
    body = os.pread(file, end - at, at)
    while len(body) < end - at:  # The kernel may give less than it was asked for.
        more = os.pread(file, end - at - len(body), at + len(body))
        _must_be_there(more, at + len(body), size)
        body += more
    return body


def _line_end(file: int, at: int, end: int) -> int:
    """Return where the last line ends that lies between two places of a file; `at` if none does."""
    step, stop = _LOOK_BACK_BYTES, end
    while stop > at:
        start = max(at, stop - step)
        found = os.pread(file, stop - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        step, stop = min(step * 8, CHUNK_BYTES), start
    return at


def _count_lines(path: str, at: int, end: int) -> int:
    """Count the lines between two places of a file; a last one without a line feed counts, too."""
    count, last = 0, b"\n"
    with open(path, "rb") as file:
        file.seek(at)
        while at < end and (piece := file.read(min(CHUNK_BYTES, end - at))):
            count += piece.count(b"\n")
            at += len(piece)
            last = piece[-1:]
    return count + (last != b"\n")
