"""A small HTTP/1.1 client for model servers on loopback, which tolerates what they do.

Kept-alive connections; a request on a pooled connection that the server had closed meanwhile is
sent again on a fresh one, which is no retry. No redirects, no content coding, any status line that
llhttp reads. See reference/model-servers.md.

Made for a hundred thousand small requests a second: an exchange costs no task, no future and no
timer, and a small reply is known by its shape, or parsed without a look at its headers. `post`
calls back; `call` is the same for who would rather wait.
"""

import asyncio
import fcntl
import os
import socket
import sys
import termios
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import httptools

from transform_engine.http_replies import CarefulReader, QuickReader, Shapes

Stream = Callable[[], AsyncIterator[bytes]]
Body = bytes | Stream
_CR = "\r"
_HEADS_KEPT = 4096
_HEADERS_BYTES = 1 << 20
# Larger bodies may still be on their way when the server answers.
_AT_ONCE_BYTES = 64 * 1024
_QUICK_BYTES = 64 * 1024
_NO_BODY = b""
_TURNS, _TURN_S = 64, 0.001
_PATIENCE_S = 0.05


class NoReply(Exception):
    """The connection was refused or lost before the reply was whole."""


class TimedOut(Exception):
    """The reply was not whole in time."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole reply."""

    status: int
    content_type: str | None
    body: bytes


class Waiter(Protocol):
    """Who sent a request; called once for each, from the event loop."""

    def replied(self, status: int, body: bytes, content_type: str | None) -> None:
        """The reply is whole; the content type is told if the client was asked to tell it."""

    def lost(self, why: str) -> None:
        """There is no connection, or it was lost before the reply was whole."""


class HttpClient:
    """Calls one server; as many connections as calls at a time.

    :param tell_types: tell the content types of replies to `post`; costs a look at their headers.
    """

    def __init__(self, port: int, host: str = "127.0.0.1", *, tell_types: bool = False) -> None:
        self._host = host
        self._port = port
        self._tell_types = tell_types
        self.idle: list[_Connection] = []
        self.shapes = Shapes()
        self._open: set[_Connection] = set()
        self._connecting: dict[Waiter, asyncio.Task[None]] = {}
        self._turn = asyncio.Lock()
        self._turns_left = _TURNS
        # And the id of the body that was on its way, which may be too large to be kept for this.
        self._patient: dict[_Connection, int] = {}
        self._watch: asyncio.TimerHandle | None = None

    def heads(self, content_type: str | None, accept: str | None) -> "Heads":
        """Return the heads of requests with these headers, for `post`."""
        headers = {}
        if content_type:
            headers["Content-Type"] = content_type
        if accept:
            headers["Accept"] = accept
        return Heads(lambda length: self._head("POST", "/invocations", headers, length))

    def post(self, heads: "Heads", body: bytes, waiter: Waiter) -> None:
        """Send a body to /invocations and tell the waiter what came of it."""
        if self.idle:
            self.idle.pop().send(heads[len(body)], body, waiter)
        else:
            self._connect(heads[len(body)], body, waiter)

    def abandon(self, waiter: Waiter) -> None:
        """Give up the waiter's request; it is told nothing more."""
        connecting = self._connecting.pop(waiter, None)
        if connecting is not None:
            connecting.cancel()
        for connection in [each for each in self._open if each.waiter is waiter]:
            connection.close()  # The reply would meet another call.

    async def call(
        self,
        method: str,
        path: str,
        *,
        timeout_s: float,
        headers: Mapping[str, str] | None = None,
        body: Body = _NO_BODY,
        chunked: bool = False,
        keep: bool = True,
    ) -> Reply:
        """Send a request and return its reply, whatever the status.

        :param body: bytes, or a function that opens the body anew for each sending.
        :param chunked: send bytes with chunked transfer encoding too.
        :param keep: let later calls use the connection.
        :raises NoReply: no connection, or it was lost.
        :raises TimedOut: nothing whole within `timeout_s`.
        """
        chunked = chunked or not isinstance(body, bytes)
        length = len(body) if isinstance(body, bytes) and not chunked else None
        head = self._head(method, path, headers or {}, length)
        waiting = _Waiting(asyncio.get_running_loop().create_future())
        try:
            async with asyncio.timeout(timeout_s):
                if not chunked:
                    assert isinstance(body, bytes)
                    if self.idle and keep:
                        self.idle.pop().send(head, body, waiting)
                    else:
                        self._connect(head, body, waiting, keep=keep)
                    return await waiting.reply
                return await self._stream(head, body, waiting, keep)
        except TimeoutError as error:
            raise TimedOut(f"no reply within {timeout_s} s") from error
        finally:
            self.abandon(waiting)

    def close(self) -> None:
        """Close all connections; nobody is told of the replies that they waited for."""
        for task in self._connecting.values():
            task.cancel()
        self._connecting.clear()
        for connection in [*self._open]:
            connection.close()
        self.idle.clear()
        if self._watch is not None:
            self._watch.cancel()

    def _head(
        self, method: str, path: str, headers: Mapping[str, str], length: int | None
    ) -> bytes:
        """Return a request's head; no length is a body in chunks."""
        lines = [
            f"{method} {path} HTTP/1.1",
            f"Host: {self._host}:{self._port}",
            "User-Agent: Go-http-client/1.1",
        ]
        # A carriage return is allowed in a ContentType, and would forge a header here.
        lines += [f"{name}: {value.replace(_CR, ' ')}" for name, value in headers.items()]
        if length is None:
            lines.append("Transfer-Encoding: chunked")
        elif method == "POST":
            lines.append(f"Content-Length: {length}")
        return "\r\n".join((*lines, "", "")).encode("latin-1", errors="replace")

    def _connect(self, head: bytes, body: bytes, waiter: Waiter, *, keep: bool = True) -> None:
        async def connect() -> None:
            await self._take_turn()
            try:
                connection = await self._connected(keep=keep)
            except NoReply as error:
                del self._connecting[waiter]
                waiter.lost(str(error))
            else:
                del self._connecting[waiter]
                connection.send(head, body, waiter)

        self._connecting[waiter] = asyncio.get_running_loop().create_task(connect())

    async def _take_turn(self) -> None:
        """Wait a moment before each of the first connections.

        A server of several processes that share a port gives most connections of a burst to the
        process that is awake, and these stay there: with none in between, the others idle.
        """
        if self._turns_left:
            self._turns_left -= 1
            async with self._turn:
                await asyncio.sleep(_TURN_S)

    async def _connected(self, *, keep: bool) -> "_Connection":
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(
                lambda: _Connection(self, tell_types=self._tell_types or not keep, keep=keep),
                self._host,
                self._port,
            )
        except OSError as error:
            raise NoReply(str(error)) from error
        return connection

    async def _stream(self, head: bytes, body: Body, waiting: "_Waiting", keep: bool) -> Reply:
        while self.idle:
            connection = self.idle.pop()
            try:
                return await connection.send_chunks(head, body, waiting)
            except NoReply:
                # The server had closed it while it was idle, unless a reply had begun.
                if connection.answered:
                    raise
                waiting.reply = asyncio.get_running_loop().create_future()
        return await (await self._connected(keep=keep)).send_chunks(head, body, waiting)

    def opened(self, connection: "_Connection") -> None:
        """Remember a connection (called by it)."""
        self._open.add(connection)

    def lost(self, connection: "_Connection") -> None:
        """Forget a connection (called by it)."""
        self._open.discard(connection)
        if connection in self.idle:
            self.idle.remove(connection)

    def patient(self, connection: "_Connection") -> None:
        """Look after a connection that waits for more than the first byte (called by it)."""
        self._patient[connection] = 0
        if self._watch is None:
            self._watch = asyncio.get_running_loop().call_later(_PATIENCE_S, self._look)

    def _look(self) -> None:
        self._watch = None
        for connection, before in [*self._patient.items()]:
            # Another body may have the same id: then patience is lost too early, which is harmless.
            if connection not in self._open or (
                id(connection.body) == before and connection.lose_patience()
            ):
                del self._patient[connection]
            else:
                self._patient[connection] = id(connection.body)
        if self._patient:
            self._watch = asyncio.get_running_loop().call_later(_PATIENCE_S, self._look)

    def again(self, head: bytes, body: bytes, waiter: Waiter) -> None:
        """Send on a fresh connection what met one that had gone stale (called by it)."""
        self._connect(head, body, waiter)


class Heads(dict[int, bytes]):
    """Heads of requests that differ in the length of their body, each made once."""

    def __init__(self, make: Callable[[int], bytes]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, length: int) -> bytes:
        if len(self) >= _HEADS_KEPT:
            self.clear()  # Bodies of that many lengths are long ones, too.
        head = self[length] = self._make(length)
        return head


class _Waiting:
    """Turns what a waiter is told into a future."""

    def __init__(self, reply: "asyncio.Future[Reply]") -> None:
        self.reply = reply

    def replied(self, status: int, body: bytes, content_type: str | None) -> None:
        if not self.reply.done():
            self.reply.set_result(Reply(status, content_type, body))

    def lost(self, why: str) -> None:
        if not self.reply.done():
            self.reply.set_exception(NoReply(why))
            self.reply.exception()  # Nobody may be left to ask for it.


class _Connection(asyncio.Protocol):
    """One connection: one exchange at a time."""

    def __init__(self, client: HttpClient, *, tell_types: bool, keep: bool) -> None:
        self._client = client
        self._idle, self._shapes = client.idle, client.shapes
        self._keep = keep
        self._transport: Any = None
        self._reader: QuickReader | CarefulReader = QuickReader()
        self._quick = not tell_types
        self._come = _NO_BODY  # Of a reply that is not whole, if no careful reader has it.
        self._unparsed = False  # Whether no reader has had what came.
        self._may_be_patient = sys.platform == "linux"  # Elsewhere nobody tried it.
        self._head = self.body = _NO_BODY
        self._large = self._streaming = False
        self._writable: asyncio.Event | None = None
        self._used = False
        self.waiter: Waiter | None = None
        self.answered = False

    def send(self, head: bytes, body: bytes, waiter: Waiter) -> None:
        """Send a request; the waiter is told the rest."""
        self.waiter = waiter
        self.answered = False
        if not self._quick:
            self._reader = CarefulReader()
        self._head, self.body = head, body
        # If it is closing, `connection_lost` follows and sends the request again.
        if len(body) > _AT_ONCE_BYTES:
            self._large, self._unparsed = True, False
            self._transport.writelines((head, body))
        else:
            self._large, self._unparsed = False, self._quick
            self._transport.write(head + body)

    async def send_chunks(self, head: bytes, body: Body, waiting: _Waiting) -> Reply:
        """Send a request in chunks and return its reply."""
        self.waiter = waiting
        self.answered = False
        self._reader = CarefulReader()
        self._head = self.body = _NO_BODY
        self._large = self._streaming = True
        self._unparsed = False
        self._writable = asyncio.Event()
        self._writable.set()
        if self._transport.is_closing():
            self._fail("the server closed the connection")
            return await waiting.reply
        self._transport.write(head)
        if isinstance(body, bytes):
            self._transport.writelines((b"%x\r\n" % len(body), body, b"\r\n") if body else ())
        else:
            async for piece in body():
                if waiting.reply.done() or self._transport.is_closing():
                    # The reply came before the body was read: no request can follow.
                    self._keep = False
                    reply = await waiting.reply
                    self.close()
                    return reply
                if piece:
                    self._transport.writelines((b"%x\r\n" % len(piece), piece, b"\r\n"))
                await self._writable.wait()
        self._streaming = False
        if waiting.reply.done():
            self.close()
        else:
            self._transport.write(b"0\r\n\r\n")
        return await waiting.reply

    def close(self) -> None:
        """Close without telling the waiter."""
        self.waiter = None
        if self._transport is not None:
            self._transport.abort()

    def _closed_early(self, error: Exception | None = None) -> None:
        waiter = self.waiter
        # A body in chunks is no longer there; who opens it anew sends it again.
        if waiter is not None and self._used and not self.answered and self._head:
            self.waiter = None  # The server had closed it while it was idle.
            self._client.again(self._head, self.body, waiter)
        else:
            self._fail(str(error or "the server closed the connection"))

    def _fail(self, why: str) -> None:
        waiter, self.waiter = self.waiter, None
        if waiter is not None:
            waiter.lost(why)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._client.opened(self)

    def data_received(self, data: bytes) -> None:
        waiter, reader = self.waiter, self._reader
        if waiter is None:
            self.close()  # Bytes that nobody asked for.
            return
        self.answered = True
        if self._unparsed:
            if self._come:
                data = self._come + data
            shape = self._shapes.get(len(data))
            if shape is not None:
                begins, body_at, body_end, ends = shape
                if data.startswith(begins) and data.endswith(ends):
                    # What nearly all replies are.
                    if body_at is None:
                        self._come = data
                        return
                    if self._come:
                        self._be_patient()
                    self.waiter = None
                    self._used = True
                    self._idle.append(self)
                    waiter.replied(200, data[body_at:body_end], None)
                    return
            self._unparsed, self._come = False, _NO_BODY
        try:
            reader.feed(data)
            if reader.neat and not self._large:
                # The connection is as it was before.
                reader.whole = reader.neat = False
                self.waiter = None
                self._used = True
                self._idle.append(self)
                body = reader.body()
                if reader.status == 200:
                    self._shapes.learn(self._come, data, body)
                self._come = _NO_BODY
                waiter.replied(reader.status, body, None)
                return
            if not (reader.whole or reader.careful):
                self._come += data  # No copy of the first piece, and mostly there are but two.
                if len(self._come) > _QUICK_BYTES:
                    reader = self._read_carefully()
        except httptools.HttpParserUpgrade:
            reader.whole = False
            self._broken("the server switched protocols")
            return
        except httptools.HttpParserError as error:
            if not reader.whole:
                self._broken(f"the reply is no HTTP: {error}")
                return
            reader.surplus, reader.neat = True, False
        if reader.whole:
            self._replied(waiter, reader)
        elif isinstance(reader, CarefulReader) and reader.headers_bytes > _HEADERS_BYTES:
            self._broken(f"the reply has more than {_HEADERS_BYTES} bytes of headers")

    def _be_patient(self) -> None:
        """Be woken only when more is there than what came first of this reply.

        A server that writes a reply's head and then its body would wake us for each, and needs the
        processor itself meanwhile.
        """
        if self._may_be_patient:
            self._may_be_patient = False
            self._wake_at(len(self._come) + 1)
            self._client.patient(self)
        self._come = _NO_BODY

    def lose_patience(self) -> bool:
        """Be woken by any byte from now on, if some wait unseen: a reply is shorter than others."""
        if self.waiter is None or self._transport.is_closing():
            return False
        unseen = fcntl.ioctl(self._socket.fileno(), termios.FIONREAD, bytes(4))
        if not any(unseen):
            return False  # The server takes its time.
        self._wake_at(1)
        return True

    def _wake_at(self, size: int) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)

    @property
    def _socket(self) -> Any:
        return self._transport.get_extra_info("socket")

    def _read_carefully(self) -> "CarefulReader":
        """Read again, with its headers, what has come of a reply, and the rest of it likewise."""
        self._reader = reader = CarefulReader()
        reader.feed(self._come)
        self._come = _NO_BODY
        return reader

    def _replied(self, waiter: Waiter, reader: "QuickReader | CarefulReader") -> None:
        status, body, content_type = reader.status, reader.body(), reader.content_type
        self.waiter = None
        self._used = True
        self.body = self._come = _NO_BODY
        # A reply that came before the body was read leaves the connection in between requests; of
        # refusals nobody can tell, since the body may lie unread in the kernel.
        if (
            reader.surplus
            or status >= 400
            or not reader.keep_alive
            or not self._keep
            or self._streaming
            or self._transport.is_closing()
            or self._transport.get_write_buffer_size()
        ):
            if self._streaming:
                assert self._writable is not None
                self._writable.set()  # Who sends the body need not wait for room any more.
            else:
                self._transport.abort()
        else:
            if reader.careful:
                self._reader = QuickReader()
            else:
                reader.whole = reader.neat = False
            self._idle.append(self)
        waiter.replied(status, body, content_type)

    def _broken(self, why: str) -> None:
        self._transport.abort()
        self._fail(why)

    def eof_received(self) -> None:
        """Let the transport close itself."""

    def connection_lost(self, error: Exception | None) -> None:
        self._client.lost(self)
        if self._writable is not None:
            self._writable.set()
        if error is not None and self.waiter is not None:
            self._read_the_rest()
        waiter = self.waiter
        if waiter is None:
            return
        reader = self._read_carefully() if self._come else self._reader
        if error is None and isinstance(reader, CarefulReader) and reader.ends_with_connection:
            self._replied(waiter, reader)  # A body without a length ends with its connection.
        else:
            self._closed_early(error)

    def _read_the_rest(self) -> None:
        """Read what the server said before it closed on a body that was on its way.

        Writing failed, so the loop has read no more; the kernel still has what came before.
        """
        fileno = self._socket.fileno()
        try:
            while self.waiter is not None and fileno >= 0 and (data := os.read(fileno, 1 << 16)):
                self.data_received(data)
        except OSError:
            pass  # Nothing more is there.

    def pause_writing(self) -> None:
        if self._writable is not None:
            self._writable.clear()

    def resume_writing(self) -> None:
        if self._writable is not None:
            self._writable.set()
