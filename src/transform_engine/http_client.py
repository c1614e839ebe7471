"""A small HTTP/1.1 client for model servers on loopback, which tolerates what they do.

Kept-alive connections; a request on a pooled connection that the server had closed meanwhile is
sent again on a fresh one, which is no retry. No redirects, no content coding, any status line that
llhttp reads. See reference/model-servers.md.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httptools

Stream = Callable[[], AsyncIterator[bytes]]
Body = bytes | Stream
_CR = "\r"


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


class HttpClient:
    """Calls one server; as many connections as calls at a time."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._host = host
        self._port = port
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()

    async def call(
        self,
        method: str,
        path: str,
        *,
        timeout_s: float,
        headers: Mapping[str, str] | None = None,
        body: Body = b"",
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
        head = self._head(method, path, headers or {}, body, chunked)
        try:
            async with asyncio.timeout(timeout_s):
                while self._idle:
                    connection = self._idle.pop()
                    try:
                        return await self._send(connection, head, body, chunked, keep)
                    except NoReply:
                        # The server had closed it while it was idle, unless a reply had begun.
                        if connection.answered:
                            raise
                return await self._send(await self._connect(), head, body, chunked, keep)
        except TimeoutError as error:
            raise TimedOut(f"no reply within {timeout_s} s") from error

    def close(self) -> None:
        """Close all connections."""
        for connection in [*self._open]:
            connection.close()
        self._idle.clear()

    def _head(
        self, method: str, path: str, headers: Mapping[str, str], body: Body, chunked: bool
    ) -> bytes:
        lines = [
            f"{method} {path} HTTP/1.1",
            f"Host: {self._host}:{self._port}",
            "User-Agent: Go-http-client/1.1",
        ]
        # A carriage return is allowed in a ContentType, and would forge a header here.
        lines += [f"{name}: {value.replace(_CR, ' ')}" for name, value in headers.items()]
        if chunked:
            lines.append("Transfer-Encoding: chunked")
        elif method == "POST":
            assert isinstance(body, bytes)
            lines.append(f"Content-Length: {len(body)}")
        return "\r\n".join((*lines, "", "")).encode("latin-1", errors="replace")

    async def _connect(self) -> "_Connection":
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(
                lambda: _Connection(self), self._host, self._port
            )
        except OSError as error:
            raise NoReply(str(error)) from error
        return connection

    async def _send(
        self, connection: "_Connection", head: bytes, body: Body, chunked: bool, keep: bool
    ) -> Reply:
        try:
            reply = await connection.exchange(head, body, chunked)
        except BaseException:
            connection.close()  # Also when the caller gives up: the reply would meet another call.
            raise
        if keep and connection.reusable:
            self._idle.append(connection)
        else:
            connection.close()
        return reply

    def opened(self, connection: "_Connection") -> None:
        """Remember a connection (called by it)."""
        self._open.add(connection)

    def lost(self, connection: "_Connection") -> None:
        """Forget a connection (called by it)."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)


class _Connection(asyncio.Protocol):
    """One connection: one exchange at a time."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client
        self._transport: Any = None
        self._parser: Any = None
        self._reply: asyncio.Future[Reply] | None = None
        self._body: list[bytes] = []
        self._content_type: str | None = None
        self._delimited = False
        self._headers_done = False
        self._writable = asyncio.Event()
        self._writable.set()
        self.answered = False
        self.reusable = False

    async def exchange(self, head: bytes, body: Body, chunked: bool) -> Reply:
        if self._transport is None or self._transport.is_closing():
            raise NoReply("the server closed the connection")
        self._reset()
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._reply = reply
        if not chunked:
            self._transport.writelines((head, body) if body else (head,))
            written = True
        else:
            written = await self._write_chunks(head, body, reply)
        answer = await reply
        # A reply that came before the body was read leaves the connection in between requests.
        self.reusable = self.reusable and written and not self._transport.is_closing()
        return answer

    async def _write_chunks(self, head: bytes, body: Body, reply: "asyncio.Future[Reply]") -> bool:
        self._transport.write(head)
        if isinstance(body, bytes):
            self._transport.writelines((b"%x\r\n" % len(body), body, b"\r\n") if body else ())
        else:
            async for piece in body():
                if reply.done() or self._transport.is_closing():
                    return False
                if piece:
                    self._transport.writelines((b"%x\r\n" % len(piece), piece, b"\r\n"))
                await self._writable.wait()
        self._transport.write(b"0\r\n\r\n")
        return True

    def _reset(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._body = []
        self._content_type = None
        self._delimited = self._headers_done = False
        self.answered = self.reusable = False

    def close(self) -> None:
        self._fail("the connection was closed")
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, why: str) -> None:
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(NoReply(why))
            self._reply.exception()  # Nobody may be left to ask for it.

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._client.opened(self)

    def data_received(self, data: bytes) -> None:
        if self._reply is None or self._reply.done():
            self.close()  # Bytes that nobody asked for.
            return
        self.answered = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail("the server switched protocols")
        except httptools.HttpParserError as error:
            self._fail(f"the reply is no HTTP: {error}")

    def eof_received(self) -> None:
        """Let the transport close itself."""

    def connection_lost(self, error: Exception | None) -> None:
        self._client.lost(self)
        self._writable.set()
        if self._headers_done and not self._delimited and error is None:
            self._finish()  # A body without a length ends with its connection.
        self._fail(str(error or "the server closed the connection"))

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        match name.lower():
            case b"content-type":
                self._content_type = value.decode("latin-1")
            case b"content-length" | b"transfer-encoding":
                self._delimited = True

    def on_headers_complete(self) -> None:
        self._headers_done = self._parser.get_status_code() >= 200

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        if not self._headers_done:
            # 100 Continue and its like come before the reply.
            self._content_type, self._delimited = None, False
            return
        self.reusable = self._parser.should_keep_alive()
        self._finish()

    def _finish(self) -> None:
        if self._reply is not None and not self._reply.done():
            status = self._parser.get_status_code()
            self._reply.set_result(Reply(status, self._content_type, b"".join(self._body)))
