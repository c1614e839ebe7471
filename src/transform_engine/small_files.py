"""Outputs of a few bytes, where there are very many of them.

To make a file costs the kernel several times what a request does. A job that makes some hundreds a
second gets a process beside the agent that makes them (`file_writer`), so that both cores of a
small machine have work. What that process has no time for, or could not do, the agent does itself:
that is also how an error gets its words.
"""

import asyncio
import contextlib
import marshal
import os
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transform_engine import file_writer
from transform_engine.file_writer import temporary_name

SMALL_BYTES = 16 * 1024
#: How many may be on their way; who has more makes them itself meanwhile.
ON_THEIR_WAY = 64
_MANY, _MANY_S = 128, 1.0
_ANSWER_S = 10
_PROGRAM = Path(file_writer.__file__)

Make = Callable[[str, bytes], None]


class SmallFiles:
    """Decides who makes a small file.

    :param mark: how the names of files in the making start.
    :param make_here: makes a file at once, or raises why not.
    :ivar make: has a file made that appears whole or not at all; None: the caller makes it. Who
        cancels what it returns wants no such file any more.
    """

    def __init__(self, mark: str, make_here: Make) -> None:
        self._mark = mark
        self._make_here = make_here
        self._count = 0
        self._since = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._writer: _Writer | None = None
        self.make: Callable[[str, bytes], asyncio.Future[None] | None] = self._make_none

    def _make_none(self, path: str, content: bytes) -> None:
        if not self._count:
            self._since = time.monotonic()
        self._count += 1
        if self._count == _MANY:
            if self._process is None and time.monotonic() - self._since < _MANY_S:
                self._start()
            self._count = 0

    def _start(self) -> None:
        if (os.cpu_count() or 1) < 2:
            return
        ours, its = socket.socketpair()
        try:
            # It inherits the instance's lifeline, so that a job also waits for its end.
            self._process = subprocess.Popen(
                [sys.executable, "-IS", str(_PROGRAM), self._mark],
                stdin=its.fileno(),
                stdout=subprocess.DEVNULL,
                close_fds=False,
            )
        except OSError:
            ours.close()  # The machine has no process left: then it goes on as before.
        else:
            self._connecting = asyncio.create_task(self._connect(ours))
        finally:
            its.close()

    async def _connect(self, ours: socket.socket) -> None:
        assert self._process is not None
        loop = asyncio.get_running_loop()
        writer = _Writer(self._mark, self._make_here, kill=self._process.kill)
        await loop.create_connection(lambda: writer, sock=ours)
        self._writer, self.make = writer, writer.make

    async def close(self) -> None:
        """Wait until every file is made or given up, and the process has ended."""
        if self._process is None:
            return
        assert self._connecting is not None
        try:
            async with asyncio.timeout(2 * _ANSWER_S):
                await self._connecting
                assert self._writer is not None
                await self._writer.close()
        except OSError:
            pass  # It does not answer, or was never reached.
        finally:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)


class _Writer(asyncio.Protocol):
    """The connection to the process.

    :param kill: ends it, if it does not answer.
    """

    def __init__(self, mark: str, make_here: Make, *, kill: Callable[[], None]) -> None:
        self._mark = mark
        self._make_here = make_here
        self._kill = kill
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self._batch: list[tuple[str, bytes]] = []
        self._pending: deque[tuple[asyncio.Future[None], str, bytes]] = deque()
        self._count = 0
        self._watch: asyncio.TimerHandle | None = None
        self._ended = self._loop.create_future()

    def make(self, path: str, content: bytes) -> "asyncio.Future[None] | None":
        if len(self._pending) >= ON_THEIR_WAY or self._ended.done():
            return None
        made: asyncio.Future[None] = self._loop.create_future()
        self._pending.append((made, path, content))
        if not self._batch:
            # With those of all other replies that are there.
            self._loop.call_soon(self._send)
        self._batch.append((path, content))
        return made

    def _send(self) -> None:
        if self._batch:
            batch = marshal.dumps(self._batch)
            self._batch.clear()
            self._transport.write(len(batch).to_bytes(4, "big") + batch)
            if self._watch is None:
                self._watch = self._loop.call_later(_ANSWER_S, self._look, self._count)

    def _look(self, count: int) -> None:
        self._watch = None
        if self._pending and self._count == count:
            self._kill()
        elif self._pending:
            self._watch = self._loop.call_later(_ANSWER_S, self._look, self._count)

    async def close(self) -> None:
        if not self._ended.done():
            self._send()
            self._transport.write_eof()
        await self._ended

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        for is_made in data:
            made, path, content = self._next()
            if made.cancelled():
                if is_made:
                    _remove(path)
            elif is_made:
                made.set_result(None)
            else:
                self._make(made, path, content)

    def connection_lost(self, error: Exception | None) -> None:
        self._ended.set_result(None)
        if self._watch is not None:
            self._watch.cancel()
        self._batch.clear()
        while self._pending:
            made, path, content = self._next()
            _remove(temporary_name(path, self._mark, self._count))
            if made.cancelled():
                _remove(path)
            else:
                self._make(made, path, content)

    def _next(self) -> "tuple[asyncio.Future[None], str, bytes]":
        self._count += 1
        return self._pending.popleft()

    def _make(self, made: "asyncio.Future[None]", path: str, content: bytes) -> None:
        try:
            self._make_here(path, content)
        except Exception as error:
            made.set_exception(error)
        else:
            made.set_result(None)


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):  # It is not there, or cannot be removed.
        os.unlink(path)
