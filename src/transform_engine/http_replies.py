"""How replies are read: by their shape, by a parser, or with all their headers.

Most replies of a server are like one that came before, and are read by their `Shape`. A
`QuickReader` parses others and looks at no header; a `CarefulReader` looks at those that a caller
asks for, or that tell how a reply ends that is large or ends with its connection.
"""

from collections.abc import Callable
from typing import NamedTuple

import httptools

_KEPT = 256
_SMALL_BYTES = 8 * 1024


class Shape(NamedTuple):
    """What a reply of some length was like, that left its connection fit for the next one.

    If one of the same length begins and ends with the same bytes, what is between them is its body:
    to parse it would say what it said then.

    :ivar body_at: where the body begins; None if all of it is only the beginning of a reply.
    """

    begins: bytes
    body_at: int | None
    body_end: int
    ends: bytes


class Shapes(dict[int, Shape]):
    """The last shape for each length of a small reply with status 200, or of what came of one."""

    def learn(self, first: bytes, rest: bytes, body: bytes) -> None:
        """Remember the shape of a reply that was parsed.

        :param first: what came of it before the `rest`, or nothing.
        """
        if len(first) + len(rest) > _SMALL_BYTES:
            return
        reply = first + rest
        head, blank_line, after = reply.partition(b"\r\n\r\n")
        chunk, last_chunk = b"%x\r\n" % len(body), b"\r\n0\r\n\r\n"
        if after == body:
            begins, ends = head + blank_line, b""
        elif after == chunk + body + last_chunk:
            begins, ends = head + blank_line + chunk, last_chunk
        else:
            return  # Several chunks, or another reply before this one: parsed each time.
        if len(self) >= _KEPT:
            self.clear()  # Replies of that many lengths are like no earlier ones.
        at = len(begins)
        self[len(reply)] = Shape(begins, at, at + len(body), ends)
        if first:
            self[len(first)] = Shape(first, None, 0, b"")


class QuickReader:
    """Reads replies one after the other; looks at no header."""

    careful = False
    content_type: str | None = None

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        # The peer is a model server that the user chose, on loopback and with no proxy between:
        # what smuggles requests elsewhere is only sloppy here, and Go's client takes it.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True,
            lenient_optional_cr_before_lf=True,
            lenient_optional_lf_after_cr=True,
            lenient_optional_crlf_after_chunk=True,
            lenient_spaces_after_chunk_size=True,
        )
        self.feed: Callable[[bytes], None] = self._parser.feed_data
        self.pieces: list[bytes] = []
        self.status = 0
        self.keep_alive = False
        self.whole = self.surplus = False
        self.neat = False  # Whole, no refusal, and the connection can be used again.

    def body(self) -> bytes:
        """Take the body."""
        pieces = self.pieces
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        return body

    # httptools

    def on_message_begin(self) -> None:
        """Notice a second reply."""
        if self.whole:
            self.surplus, self.neat = True, False

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body."""
        if not self.whole:
            self.pieces.append(body)

    def on_message_complete(self) -> None:
        """Say what the reply was, unless it only comes before one."""
        if not self.whole:
            status = self._parser.get_status_code()
            if status >= 200:  # 100 Continue and its like come before the reply.
                self.status = status
                self.keep_alive = self._parser.should_keep_alive()
                self.whole = True
                self.neat = self.keep_alive and status < 400 and not self.careful


class CarefulReader(QuickReader):
    """Reads one reply of any size, and its headers."""

    careful = True

    def __init__(self) -> None:
        super().__init__()
        self.feed = self._feed
        self.headers_bytes = 0
        self._delimited = self._headers_done = False

    def _feed(self, data: bytes) -> None:
        if not self._headers_done:
            self.headers_bytes += len(data)
        self._parser.feed_data(data)
        if self._headers_done:
            self.headers_bytes = 0

    @property
    def ends_with_connection(self) -> bool:
        """Whether the end of the connection is the end of the reply."""
        if self._headers_done and not self._delimited and not self.whole:
            self.status = self._parser.get_status_code()
            self.keep_alive = False
            return True
        return False

    # httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        """Look at a header."""
        if self.whole:
            return
        match name.lower():
            case b"content-type":
                self.content_type = value.decode("latin-1")
            case b"content-length" | b"transfer-encoding":
                self._delimited = True

    def on_headers_complete(self) -> None:
        """Notice that no header follows."""
        if not self.whole:
            self._headers_done = self._parser.get_status_code() >= 200

    def on_message_complete(self) -> None:
        """Forget the headers of what only comes before a reply."""
        if not self._headers_done:
            self.content_type, self._delimited = None, False  # 100 Continue has headers, too.
        super().on_message_complete()
