"""A model server that says `100 Continue` before each reply, though nobody asked for it.

    python interim_server.py PORT COUNT_FILE [--plain]

Replies with the request's body, and writes one byte to the file for each request for /invocations.
`--plain` leaves the 100 out: what the rest of this server costs. nginx cannot do this.
"""

import asyncio
import sys
from typing import IO, Any

import uvloop

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_HEAD = b"HTTP/1.1 %s\r\nContent-Type: text/csv\r\nContent-Length: %d\r\n\r\n"


class Connection(asyncio.Protocol):
    """One connection; knows only requests with a Content-Length, or without a body."""

    def __init__(self, count: IO[bytes], before: bytes) -> None:
        self._count = count
        self._before = before
        self._received = b""
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer the requests that are whole."""
        self._received += data
        while (end := self._received.find(b"\r\n\r\n") + 4) > 3:
            head = self._received[:end].lower()
            _, _, length = head.partition(b"\r\ncontent-length:")
            size = int(length.partition(b"\r\n")[0] or 0)
            if len(self._received) < end + size:
                return
            body = self._received[end : end + size]
            self._received = self._received[end + size :]
            status = b"200 OK"
            if head.startswith(b"post /invocations "):
                self._count.write(b".")
            elif not head.startswith(b"get /ping "):
                status = b"404 Not Found"
            self._transport.write(self._before + _HEAD % (status, size) + body)


async def serve(port: int, count_file: str, *, plain: bool) -> None:
    """Serve until the process is ended."""
    with open(count_file, "wb", buffering=0) as count:
        loop = asyncio.get_running_loop()
        before = b"" if plain else _CONTINUE
        server = await loop.create_server(lambda: Connection(count, before), "127.0.0.1", port)
        await server.serve_forever()


if __name__ == "__main__":
    port, count_file, *plain = sys.argv[1:]
    uvloop.run(serve(int(port), count_file, plain=plain == ["--plain"]))
