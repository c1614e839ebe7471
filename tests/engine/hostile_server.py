"""A model server that misbehaves as its caller asks, in plain sockets: python -IS hostile_server.py

It answers /ping well. A request to /invocations with `Content-Type: BEHAVIOUR; run=RUN` is treated
as the function BEHAVIOUR below says. `GET /notes/RUN` tells what came: one line for each call
(`call KEY`), noted as its body begins, and one for each body that was read whole (`body KEY LENGTH
CRC32`). A key is what stands between `@` and `:` at the start of a body.

As the first container of a pipeline it is sent `hands_on/BEHAVIOUR; run=RUN`: it echoes, with what
stands behind the slash as the type, and tells nothing of it.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import termios
import threading
import time
import zlib

TYPE_CHECKING = False
if TYPE_CHECKING:  # Importing typing costs 10 ms, which each server would pay.
    from collections.abc import Callable

    Behaviour = Callable[["Call"], bool]

_READ_BYTES = 1 << 18
_GIVE_UP_S = 20


class Call:
    """One request whose head has been read, and whose body has not."""

    def __init__(self, server: Server, connection: socket.socket, buffer: bytearray) -> None:
        self._server = server
        self._buffer = buffer
        self.connection = connection
        self.head = self._until(b"\r\n\r\n").lower()

    @property
    def path(self) -> str:
        return self.head.split(b" ", 2)[1].decode()

    def header(self, name: bytes) -> bytes:
        return self.head.partition(b"\r\n%s: " % name)[2].partition(b"\r\n")[0]

    def take_key(self) -> None:
        """Look into the body for its key; note the call."""
        while (start := self._buffer.find(b"@")) < 0 or self._buffer.find(b":", start) < 0:
            self._receive()
        self.key = bytes(self._buffer[start : self._buffer.find(b":", start)])
        behaviour, _, run = self.header(b"content-type").decode().partition("; run=")
        self.behaviour, _, self.next_behaviour = behaviour.partition("/")
        self._run = run + self.next_behaviour
        self.attempt = self._server.note_call(self._run, self.key)

    def read(self, *, pause_s: float = 0) -> bytes:
        """Read the body; note it."""
        if self.header(b"transfer-encoding") == b"chunked":
            body = bytearray()
            while size := int(self._until(b"\r\n"), 16):
                body += self._exactly(size, pause_s)
                self._until(b"\r\n")
            self._until(b"\r\n")
        else:
            body = self._exactly(int(self.header(b"content-length")), pause_s)
        self._server.note(self._run, b"body %s %d %d" % (self.key, len(body), zlib.crc32(body)))
        return bytes(body)

    def send(self, *pieces: bytes) -> None:
        """Send all of it."""
        self.connection.sendall(b"".join(pieces))

    def reset(self) -> None:
        """Make the end of the connection a reset, once what was sent has arrived."""
        for _ in range(1000):
            if not any(fcntl.ioctl(self.connection, termios.TIOCOUTQ, bytes(4))):
                break
            time.sleep(0.001)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def stall(self) -> None:
        """Do nothing until the caller has gone."""
        poll = select.poll()
        poll.register(self.connection, select.POLLRDHUP)
        poll.poll(_GIVE_UP_S * 1000)

    def _receive(self) -> None:
        data = self.connection.recv(_READ_BYTES)
        if not data:
            raise ConnectionError
        self._buffer += data

    def _until(self, mark: bytes) -> bytes:
        while (end := self._buffer.find(mark)) < 0:
            self._receive()
        taken = bytes(self._buffer[: end + len(mark)])
        del self._buffer[: end + len(mark)]
        return taken

    def _exactly(self, size: int, pause_s: float) -> bytearray:
        body = self._buffer[:size]
        del self._buffer[:size]
        at = len(body)
        body += bytes(size - at)
        view = memoryview(body)
        while at < size:
            time.sleep(pause_s)
            received = self.connection.recv_into(view[at:])
            if not received:
                raise ConnectionError
            at += received
        return body


def _reply(body: bytes, status: bytes = b"200 OK", headers: bytes = b"") -> bytes:
    length = b"Content-Length: %d\r\n\r\n" % len(body)
    return b"HTTP/1.1 " + status + b"\r\n" + headers + length + body


# Each returns whether the connection goes on.


def echo(call: Call) -> bool:
    call.send(_reply(call.read()))
    return True


def hands_on(call: Call) -> bool:
    next_type = call.header(b"content-type").partition(b"/")[2]
    call.send(_reply(call.read(), headers=b"Content-Type: %s\r\n" % next_type))
    return True


def says_close(call: Call) -> bool:
    call.send(_reply(call.read(), headers=b"Connection: close\r\n"))
    return False


def closes_after_reply(call: Call) -> bool:
    call.send(_reply(call.read()))
    return False


def closes_its_half_after_reply(call: Call) -> bool:
    call.send(_reply(call.read()))
    call.connection.shutdown(socket.SHUT_WR)
    call.stall()
    return False


def resets_after_reply(call: Call) -> bool:
    call.send(_reply(call.read()))
    call.reset()
    return False


def closes_when_idle(call: Call) -> bool:
    call.send(_reply(call.read()))
    return bool(select.select([call.connection], [], [], 0.002)[0])


def closes_on_the_next_request(call: Call) -> bool:
    call.send(_reply(call.read()))
    call.connection.recv(1)
    return False


def resets_on_the_next_request(call: Call) -> bool:
    call.send(_reply(call.read()))
    call.connection.recv(1)
    call.reset()
    return False


def http_1_0(call: Call) -> bool:
    body = call.read()
    call.send(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body), body)
    return False


def http_1_0_keeps_alive(call: Call) -> bool:
    body = call.read()
    head = b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: %d\r\n\r\n"
    call.send(head % len(body), body)
    return True


def http_1_0_until_close(call: Call) -> bool:
    call.send(b"HTTP/1.0 200 OK\r\nContent-Type: text/csv\r\n\r\n", call.read())
    return False


def body_until_close(call: Call) -> bool:
    call.send(b"HTTP/1.1 200 OK\r\n\r\n", call.read())
    return False


_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunked(call: Call) -> bool:
    body = call.read()
    call.send(_CHUNKED)
    at, size = 0, 1
    while at < len(body):
        piece = body[at : at + size]
        call.send(b"%04X;name=value\r\n" % len(piece), piece, b"\r\n")
        at, size = at + size, size * 7
    call.send(b"0\r\n\r\n")
    return True


def chunks_of_one_byte_and_trailers(call: Call) -> bool:
    body = call.read()
    first, rest = body[:90], body[90:]
    middle, last = rest[:-90], rest[-90:]
    chunks = [*map(bytes, zip(first)), middle, *map(bytes, zip(last))]
    call.send(b"HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: Chunked\r\n\r\n")
    call.send(*(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks if chunk))
    call.send(b"0\r\nX-Sum: 1\r\nX-More:\r\n\r\n")
    return True


def drips(call: Call) -> bool:
    answer = _reply(call.read())
    for at in range(45):
        call.send(answer[at : at + 1])
    for piece in (answer[45:70], answer[70:-1], answer[-1:]):
        time.sleep(0.001)
        call.send(piece)
    return True


def reads_slowly(call: Call) -> bool:
    call.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
    time.sleep(0.01)
    call.send(_reply(call.read(pause_s=0.001)))
    return True


def informs_first(call: Call) -> bool:
    call.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = call.read()
    call.send(b"HTTP/1.1 102 \r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", _reply(body))
    return True


def no_reason(call: Call) -> bool:
    call.send(_reply(call.read(), status=b"200 "))
    return True


def no_blank_after_status(call: Call) -> bool:
    call.send(_reply(call.read(), status=b"200"))
    return True


def long_reason(call: Call) -> bool:
    call.send(_reply(call.read(), status=b"200 " + b"why \xe9" * 200))
    return True


def long_header(call: Call) -> bool:
    call.send(_reply(call.read(), headers=b"X-Long: " + b"x" * 60_000 + b"\r\n"))
    return True


def many_headers(call: Call) -> bool:
    headers = b"".join(b"x-%d:%d\r\n" % (number, number) for number in range(500))
    call.send(_reply(call.read(), headers=headers))
    return True


def odd_header_case(call: Call) -> bool:
    body = call.read()
    call.send(b"HTTP/1.1 200 OK\r\nCONTENT-lENGTH:   %d  \r\nX-Empty:\r\n\r\n" % len(body), body)
    return True


def folded_header(call: Call) -> bool:
    call.send(_reply(call.read(), headers=b"X-Folded: one\r\n two\r\n\tthree\r\n"))
    return True


def line_feeds_only(call: Call) -> bool:
    body = call.read()
    call.send(b"HTTP/1.1 200 OK\nContent-Length: %d\n\n" % len(body), body)
    return True


def claims_gzip(call: Call) -> bool:
    call.send(_reply(call.read(), headers=b"Content-Encoding: gzip\r\n"))
    return True


def offers_an_upgrade(call: Call) -> bool:
    call.send(_reply(call.read(), headers=b"Upgrade: h2c\r\nConnection: Upgrade\r\n"))
    return True


def huge(call: Call) -> bool:
    call.send(_reply(call.read() * 4))
    return True


def no_content(call: Call) -> bool:
    call.read()
    call.send(b"HTTP/1.1 204 No Content\r\n\r\n")
    return True


def no_content_and_a_length(call: Call) -> bool:
    call.read()
    call.send(_reply(b"", status=b"204 No Content"))
    return True


def empty(call: Call) -> bool:
    call.read()
    call.send(_reply(b""))
    return True


def empty_and_chunked(call: Call) -> bool:
    call.read()
    call.send(_CHUNKED, b"0\r\n\r\n")
    return True


def empty_until_close(call: Call) -> bool:
    call.read()
    call.send(b"HTTP/1.1 200 OK\r\n\r\n")
    return False


def created(call: Call) -> bool:
    call.send(_reply(call.read(), status=b"201 Created"))
    return True


def answers_early_then_reads(call: Call) -> bool:
    call.send(_reply(call.key))
    call.read()
    return True


def answers_early_and_closes(call: Call) -> bool:
    call.send(_reply(call.key, headers=b"Connection: close\r\n"))
    return False


def answers_early_and_reads_no_more(call: Call) -> bool:
    call.send(_reply(call.key, headers=b"Connection: close\r\n"))
    call.stall()
    return False


def two_replies(call: Call) -> bool:
    call.send(_reply(call.read()), _reply(b"nobody asked for this"))
    return True


def garbage_after_reply(call: Call) -> bool:
    call.send(_reply(call.read()), b"\x00\xff\r\n\r\n")
    return True


def garbage_after_reply_that_closes(call: Call) -> bool:
    call.send(_reply(call.read(), headers=b"Connection: close\r\n"), b"\x00\xff\r\n\r\n")
    return False


def garbage_after_chunks(call: Call) -> bool:
    body = call.read()
    call.send(_CHUNKED, b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body), b"HTTP\r\n\r\n")
    return True


def length_too_short(call: Call) -> bool:
    body = call.read()
    call.send(_reply(body[:-3]), body[-3:])
    return True


def too_large(call: Call) -> bool:
    call.read()
    call.send(_reply(b"", status=b"413 ", headers=b"Connection: close\r\n"))
    return False


def refuses_early_and_closes(call: Call) -> bool:
    call.send(_reply(b"too large", status=b"413 ", headers=b"Connection: close\r\n"))
    return False


def refuses_early_and_reads_no_more(call: Call) -> bool:
    call.send(_reply(b"too large", status=b"413 Too", headers=b"Connection: close\r\n"))
    call.stall()
    return False


def refuses_early_and_does_not_say_close(call: Call) -> bool:
    call.send(_reply(b"too large", status=b"413 Payload Too Large"))
    call.stall()
    return False


def bad_request(call: Call) -> bool:
    call.read()
    call.send(_reply(b"cannot\nread it", status=b"400 Bad Request"))
    return True


def too_many_requests(call: Call) -> bool:
    call.read()
    call.send(_reply(b"", status=b"429 Too Many Requests", headers=b"Retry-After: 9\r\n"))
    return True


def redirects(call: Call) -> bool:
    call.read()
    call.send(_reply(b"", status=b"307 Temporary Redirect", headers=b"Location: /invocations\r\n"))
    return True


def not_modified(call: Call) -> bool:
    call.read()
    call.send(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n")
    return True


def status_600(call: Call) -> bool:
    call.read()
    call.send(_reply(b"", status=b"600 Beyond"))
    return True


def error_with_a_trace(call: Call) -> bool:
    call.read()
    call.send(_reply(b"no\nmodel", status=b"500 " + b"Traceback ValueError " * 50))
    return True


def error_that_closes(call: Call) -> bool:
    call.read()
    call.send(_reply(b"", status=b"503 Busy", headers=b"Connection: close\r\n"))
    return False


def _first(failing: Behaviour, call: Call) -> bool:
    return failing(call) if call.attempt == 1 else echo(call)


def errs_once(call: Call) -> bool:
    return _first(error_with_a_trace, call)


def closes_after_error_once(call: Call) -> bool:
    return _first(error_that_closes, call)


def closes(call: Call) -> bool:
    call.read()
    return False


def closes_once(call: Call) -> bool:
    return _first(closes, call)


def resets(call: Call) -> bool:
    call.read()
    call.reset()
    return False


def resets_once(call: Call) -> bool:
    return _first(resets, call)


def resets_unread(call: Call) -> bool:
    call.reset()
    return False


def resets_unread_once(call: Call) -> bool:
    return _first(resets_unread, call)


def closes_in_status_line(call: Call) -> bool:
    call.read()
    call.send(b"HTTP/1.1 20")
    return False


def closes_in_head(call: Call) -> bool:
    call.read()
    call.send(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n")
    return False


def closes_in_head_once(call: Call) -> bool:
    return _first(closes_in_head, call)


def closes_after_100(call: Call) -> bool:
    call.read()
    call.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    return False


def closes_in_body(call: Call) -> bool:
    call.send(_reply(call.read())[:-1])
    return False


def closes_in_body_once(call: Call) -> bool:
    return _first(closes_in_body, call)


def closes_before_body(call: Call) -> bool:
    body = call.read()
    call.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
    return False


def resets_in_body(call: Call) -> bool:
    call.send(_reply(call.read())[:-1])
    call.reset()
    return False


def closes_in_chunks(call: Call) -> bool:
    body = call.read()
    call.send(_CHUNKED, b"%x\r\n%s\r\n" % (len(body), body))
    return False


def closes_in_chunks_once(call: Call) -> bool:
    return _first(closes_in_chunks, call)


def resets_until_close(call: Call) -> bool:
    call.send(b"HTTP/1.1 200 OK\r\n\r\n", call.read())
    call.reset()
    return False


def garbage(call: Call) -> bool:
    call.read()
    call.send(b"SSH-2.0-OpenSSH_9.6\r\n\x00\xff")
    return False


def length_is_no_number(call: Call) -> bool:
    call.read()
    call.send(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nok")
    return False


def length_below_zero(call: Call) -> bool:
    call.read()
    call.send(b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok")
    return False


def length_beyond_64_bits(call: Call) -> bool:
    call.read()
    call.send(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nok")
    return False


def two_lengths(call: Call) -> bool:
    call.read()
    call.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!")
    return False


def chunk_size_is_no_number(call: Call) -> bool:
    call.read()
    call.send(_CHUNKED, b"xyz\r\nok\r\n0\r\n\r\n")
    return False


def chunk_longer_than_it_says(call: Call) -> bool:
    call.read()
    call.send(_CHUNKED, b"2\r\nlong\r\n0\r\n\r\n")
    return False


def switches_protocols(call: Call) -> bool:
    call.read()
    call.send(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nx")
    return False


def _first_of_object(failing: Behaviour, call: Call) -> bool:
    return _first(failing, call) if call.key.endswith(b"-0000") else echo(call)


def stalls(call: Call) -> bool:
    call.read()
    call.stall()
    return False


def stalls_once(call: Call) -> bool:
    return _first_of_object(stalls, call)


def stalls_unread(call: Call) -> bool:
    call.stall()
    return False


def stalls_unread_once(call: Call) -> bool:
    return _first_of_object(stalls_unread, call)


def stalls_in_status_line(call: Call) -> bool:
    call.read()
    call.send(b"HTTP/1.1 ")
    call.stall()
    return False


def stalls_in_head(call: Call) -> bool:
    call.read()
    call.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n")
    call.stall()
    return False


def stalls_in_head_once(call: Call) -> bool:
    return _first_of_object(stalls_in_head, call)


def stalls_in_body(call: Call) -> bool:
    call.send(_reply(call.read())[:-1])
    call.stall()
    return False


def stalls_in_body_once(call: Call) -> bool:
    return _first_of_object(stalls_in_body, call)


def stalls_in_chunks(call: Call) -> bool:
    body = call.read()
    call.send(_CHUNKED, b"%x\r\n%s\r\n" % (len(body), body))
    call.stall()
    return False


def keeps_a_body_without_length_open(call: Call) -> bool:
    call.send(b"HTTP/1.1 200 OK\r\n\r\n", call.read())
    call.stall()
    return False


def drips_without_end(call: Call) -> bool:
    call.read()
    call.send(b"HTTP/1.1 200 OK\r\n\r\n")
    for _ in range(_GIVE_UP_S * 20):
        call.send(b".")
        time.sleep(0.05)
    return False


def informs_without_end(call: Call) -> bool:
    call.read()
    for _ in range(_GIVE_UP_S * 20):
        call.send(b"HTTP/1.1 102 Processing\r\n\r\n")
        time.sleep(0.05)
    return False


def dies(call: Call) -> bool:
    os._exit(3)


class Server:
    """Serves each connection in a thread of its own."""

    def __init__(self) -> None:
        self._notes: dict[str, list[bytes]] = {}
        self._attempts: dict[tuple[str, bytes], int] = {}
        self._lock = threading.Lock()

    def note(self, run: str, line: bytes) -> None:
        with self._lock:
            self._notes.setdefault(run, []).append(line)

    def note_call(self, run: str, key: bytes) -> int:
        self.note(run, b"call " + key)
        with self._lock:
            self._attempts[run, key] = self._attempts.get((run, key), 0) + 1
            return self._attempts[run, key]

    def _serve(self, connection: socket.socket) -> None:
        buffer = bytearray()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            with connection:
                while self._answer(Call(self, connection, buffer)):
                    pass
        except OSError:
            pass  # The agent went away.

    def _answer(self, call: Call) -> bool:
        if call.head.startswith(b"get /notes/"):
            with self._lock:
                notes = self._notes.get(call.path.removeprefix("/notes/"), [])
                call.send(_reply(b"\n".join(notes)))
            return True
        if call.head.startswith(b"get "):
            call.send(_reply(b"", b"200 OK" if call.path == "/ping" else b"404 Not Found"))
            return True
        call.take_key()
        return bool(globals()[call.behaviour](call))

    def run(self, address: tuple[str, int]) -> None:
        with socket.create_server(address, backlog=1024) as listener:
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    Server().run((os.environ["BIND_HOST"], int(os.environ["SAGEMAKER_BIND_TO_PORT"])))
