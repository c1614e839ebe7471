import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import pairwise

import pytest
import uvloop

from transform_engine.http_client import HttpClient, NoReply, Reply, TimedOut

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def _with_server(talk: Talk, use: Callable[[HttpClient], Awaitable[None]]) -> int:
    """Serve connections with `talk`, run `use`, return how many connections there were."""
    connections = 0

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        try:
            await talk(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server:
        client = HttpClient(server.sockets[0].getsockname()[1])
        await asyncio.wait_for(use(client), 10)
        client.close()
    return connections


async def _request(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    if "Transfer-Encoding: chunked" in head:
        body = b""
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
        return head, body
    length = [line for line in head.split("\r\n") if line.startswith("Content-Length:")]
    return head, await reader.readexactly(int(length[0].split()[1]) if length else 0)


def _in_turn(*answers: Sequence[bytes], closes: bool = False) -> Talk:
    """Answer each request of a connection with the next answer, each piece sent by itself."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for pieces in answers:
            try:
                await _request(reader)
            except asyncio.IncompleteReadError:
                return
            for number, piece in enumerate(pieces):
                await asyncio.sleep(0.005 if number else 0)
                writer.write(piece)
                await writer.drain()
        if not closes:
            await reader.read()  # Until the client closes.

    return talk


def _answering(answer: bytes, *, times: int = 100, cuts: Sequence[int] = ()) -> Talk:
    """Answer requests; with `cuts` in pieces, of which each is received by itself."""
    places = [0, *(cut % len(answer) for cut in cuts), len(answer)]
    pieces = [answer[start:end] for start, end in pairwise(places)]
    return _in_turn(*[pieces] * times, closes=True)


async def _post(client: HttpClient, body: bytes = b"x", timeout_s: float = 5) -> Reply:
    return await client.call("POST", "/invocations", timeout_s=timeout_s, body=body)


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        pytest.param(b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok", 200, b"ok", id="no reason"),
        pytest.param(
            b"HTTP/1.1 500 " + b"trace " * 200 + b"\r\nContent-Length: 0\r\n\r\n",
            500,
            b"",
            id="an exception for a reason",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n1\r\n!\r\n0\r\n\r\n",
            200,
            b"ok!",
            id="chunked",
        ),
        pytest.param(b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", 200, b"ok", id="no blank"),
        pytest.param(
            "HTTP/1.1 400 caf\u00e9 \U0001f4a5\r\nContent-Length: 0\r\n\r\n".encode(),
            400,
            b"",
            id="a reason beyond ASCII",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n1\r\n2\r\n", 200, b"1\r\n2\r\n", id="CRLF"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ncontent-length:2\r\nX-Trace: " + b"x" * 30_000 + b"\r\n\r\nok",
            200,
            b"ok",
            id="a long header",
        ),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", id="no content"),
        pytest.param(
            b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", 302, b"", id="302"
        ),
        pytest.param(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            200,
            b"ok",
            id="continue first",
        ),
    ],
)
@pytest.mark.parametrize("cuts", [(), (5,), (-1,), (5, 20, -2, -1)], ids=lambda cuts: f"cuts{cuts}")
def test_what_servers_answer_is_read(
    answer: bytes, status: int, body: bytes, cuts: Sequence[int]
) -> None:
    async def use(client: HttpClient) -> None:
        for _ in range(2):
            reply = await _post(client)
            assert (reply.status, reply.body) == (status, body)

    # After a refusal nobody knows whether the body was read.
    connections = 1 if status < 400 else 2
    assert asyncio.run(_with_server(_answering(answer, cuts=cuts), use)) == connections


@pytest.mark.parametrize("length", [13, 200_000])
@pytest.mark.parametrize("cuts", [(), (10,), (-7, -3)], ids=lambda cuts: f"cuts{cuts}")
def test_a_body_without_a_length_ends_with_its_connection(length: int, cuts: Sequence[int]) -> None:
    body = b"%-*d" % (length, 1)

    async def use(client: HttpClient) -> None:
        for _ in range(2):
            assert (await _post(client)).body == body

    answering = _answering(b"HTTP/1.1 200 OK\r\n\r\n" + body, times=1, cuts=cuts)
    assert asyncio.run(_with_server(answering, use)) == 2


@pytest.mark.parametrize(
    "begun",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"HTTP/1.1 200 OK\r\nContent-",
    ],
)
@pytest.mark.parametrize("cuts", [(), (12,), (-2,)], ids=lambda cuts: f"cuts{cuts}")
def test_fails_when_the_connection_ends_before_the_reply_does(
    begun: bytes, cuts: Sequence[int]
) -> None:
    async def use(client: HttpClient) -> None:
        with pytest.raises(NoReply, match="the server closed the connection"):
            await _post(client)

    assert asyncio.run(_with_server(_answering(begun, times=1, cuts=cuts), use)) == 1


def test_large_replies_come_in_pieces_on_one_connection() -> None:
    async def use(client: HttpClient) -> None:
        for _ in range(3):
            assert (await _post(client)).body == b"x" * 1_000_000

    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000
    assert asyncio.run(_with_server(_answering(answer), use)) == 1


def test_a_request_on_a_connection_that_went_stale_is_sent_again_on_a_fresh_one() -> None:
    async def use(client: HttpClient) -> None:
        for _ in range(3):
            assert (await _post(client)).body == b"ok"
            await asyncio.sleep(0.02)

    once = _answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", times=1)
    assert asyncio.run(_with_server(once, use)) == 3


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_server_that_closes_after_every_reply_gets_a_connection_for_each(version: str) -> None:
    async def use(client: HttpClient) -> None:
        for _ in range(3):
            assert (await _post(client)).body == b"ok"

    answer = f"HTTP/{version} 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
    assert asyncio.run(_with_server(_answering(answer.encode()), use)) == 3


@pytest.mark.parametrize("how", ["closes", "resets"])
def test_a_kept_connection_that_ends_while_the_next_request_is_on_its_way_is_no_failure(
    how: str,
) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()
        await reader.read(1)  # The next request has begun.
        if how == "resets":
            writer.transport.abort()

    async def use(client: HttpClient) -> None:
        for _ in range(3):
            assert (await _post(client, b"x" * 100_000)).body == b"ok"

    assert asyncio.run(_with_server(talk, use)) == 3


def test_sixteen_requests_go_at_once_on_as_many_connections() -> None:
    together = asyncio.Barrier(16)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, body = await _request(reader)
        await together.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n%02d" % int(body))
        await writer.drain()

    async def use(client: HttpClient) -> None:
        replies = await asyncio.gather(*(_post(client, b"%d" % number) for number in range(16)))
        assert [int(reply.body) for reply in replies] == [*range(16)]

    assert asyncio.run(_with_server(talk, use)) == 16


def test_a_connection_that_the_server_closes_on_a_fresh_request_is_no_reply() -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _request(reader)

    async def use(client: HttpClient) -> None:
        with pytest.raises(NoReply):
            await _post(client)

    assert asyncio.run(_with_server(close, use)) == 1


def test_a_reply_cut_off_is_no_reply_and_not_sent_again() -> None:
    async def use(client: HttpClient) -> None:
        with pytest.raises(NoReply):
            await _post(client)

    cut = _answering(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", times=1)
    assert asyncio.run(_with_server(cut, use)) == 1


def test_a_reply_that_is_late_is_given_up_and_its_connection_with_it() -> None:
    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, body = await _request(reader)
        await asyncio.sleep(0.2 if body == b"slow" else 0)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n" + body)
        await writer.drain()

    async def use(client: HttpClient) -> None:
        with pytest.raises(TimedOut):
            await _post(client, b"slow", timeout_s=0.05)
        assert (await _post(client, b"fast")).body == b"fast"

    assert asyncio.run(_with_server(late, use)) == 2


def test_a_refusal_before_the_body_is_read_is_a_reply() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 \r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.2)

    async def use(client: HttpClient) -> None:
        assert (await _post(client, b"x" * 20_000_000)).status == 413

    asyncio.run(_with_server(refuse, use))


@pytest.mark.parametrize("streamed", [False, True])
def test_a_refusal_is_read_even_if_the_server_has_closed_at_once(streamed: bool) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 \r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(200):
            yield b"x" * 100_000

    async def use(client: HttpClient) -> None:
        body = pieces if streamed else b"x" * 20_000_000
        for _ in range(3):
            reply = await client.call("POST", "/invocations", timeout_s=5, body=body)
            assert reply.status == 413

    uvloop.run(_with_server(refuse, use))  # The loop of every instance.


def test_a_stream_is_sent_in_chunks_with_the_headers_it_was_given() -> None:
    seen: list[tuple[str, bytes]] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await _request(reader))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"abc" * 1000
            yield b""

    async def use(client: HttpClient) -> None:
        headers = {"Content-Type": "text/csv; header=absent"}
        await client.call("POST", "/invocations", timeout_s=5, headers=headers, body=pieces)

    asyncio.run(_with_server(talk, use))
    head, body = seen[0]
    assert body == b"abc" * 3000
    assert "Content-Type: text/csv; header=absent\r\n" in head
    assert "Content-Length" not in head


def test_a_refused_connection_is_no_reply() -> None:
    async def use(port: int) -> None:
        with pytest.raises(NoReply):
            await HttpClient(port).call("GET", "/ping", timeout_s=2)

    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # Taken, and nobody listens.
        asyncio.run(use(bound.getsockname()[1]))


def test_bytes_that_are_no_http_are_no_reply() -> None:
    async def use(client: HttpClient) -> None:
        with pytest.raises(NoReply, match="no HTTP"):
            await _post(client)

    asyncio.run(_with_server(_answering(b"SSH-2.0-OpenSSH\r\n"), use))


_HEAD = b"HTTP/1.1 200 OK\r\nX: 1\r\nContent-Length: 12\r\n\r\n"
_USUAL = _HEAD + b"a" * 12
_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
_CHUNK = _CHUNKED + b"c\r\n" + b"a" * 12 + b"\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("usual", "other", "status", "body"),
    [
        (_USUAL, _HEAD.replace(b"200 OK", b"503 No") + b"b" * 12, 503, b"b" * 12),
        (_USUAL, _HEAD.replace(b"X: 1", b"X: 2") + b"b" * 12, 200, b"b" * 12),
        (_USUAL, _HEAD.replace(b"12", b"10") + b"b" * 12, 200, b"b" * 10),
        (_CHUNK, _CHUNKED + b"5\r\nbbbbb\r\n2\r\nbb\r\n0\r\n\r\n", 200, b"bbbbbbb"),
        (_CHUNK, _CHUNKED + b"2\r\nbb\r\n0\r\nX: 01234\r\n\r\n", 200, b"bb"),
        (_CHUNK, _CHUNK.replace(b"c\r\n" + b"a" * 12, b"C\r\n" + b"b" * 12), 200, b"b" * 12),
    ],
    ids=["refused", "header", "bytes too many", "two chunks", "a trailer", "spelled otherwise"],
)
@pytest.mark.parametrize("cut", [None, 20, -5])
def test_a_reply_as_long_as_the_one_before_it_is_read_as_what_it_is(
    usual: bytes, other: bytes, status: int, body: bytes, cut: int | None
) -> None:
    assert len(usual) == len(other)

    async def use(client: HttpClient) -> None:
        for _ in range(3):
            assert (await _post(client)).body == b"a" * 12
        reply = await _post(client)
        assert (reply.status, reply.body) == (status, body)

    pieces = (other,) if cut is None else (other[:cut], other[cut:])
    usually = (usual,) if cut is None else (usual[:cut], usual[cut:])
    assert asyncio.run(_with_server(_in_turn(usually, usually, usually, pieces), use)) == 1


def test_a_piece_as_long_as_a_whole_reply_is_the_beginning_that_it_is() -> None:
    chunk = _CHUNKED + b"c\r\n" + b"a" * 12 + b"\r\n"
    usual, begun = chunk + b"0\r\n\r\n", chunk + b"5\r\nbb"
    assert len(usual) == len(begun)

    async def use(client: HttpClient) -> None:
        for _ in range(2):
            assert (await _post(client)).body == b"a" * 12
        assert (await _post(client)).body == b"a" * 12 + b"bbbbb"

    answers = (usual,), (usual,), (begun, b"bbb\r\n0\r\n\r\n")
    assert asyncio.run(_with_server(_in_turn(*answers), use)) == 1


@pytest.mark.parametrize(
    ("last", "closes"),
    [
        pytest.param((b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",), False, id="whole"),
        pytest.param(
            (b"HTTP/1.1 200 OK\r\nContent-", b"Length: 2\r\n\r\nok"), False, id="in pieces"
        ),
        pytest.param((b"HTTP/1.1 200 OK\r\n\r\nok",), True, id="without a length"),
    ],
)
@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_reply_that_is_shorter_than_what_comes_first_of_others_is_not_waited_for(
    run: Callable[..., int], last: Sequence[bytes], closes: bool
) -> None:
    usual = (_HEAD + b"12 bytes", b" are")

    async def use(client: HttpClient) -> None:
        for _ in range(5):
            assert (await _post(client)).body == b"12 bytes are"
        assert (await _post(client, timeout_s=2)).body == b"ok"

    assert run(_with_server(_in_turn(*[usual] * 5, last, closes=closes), use)) == 1


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_reply_whose_body_is_late_is_read_like_others(run: Callable[..., int]) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number in range(8):
            try:
                await _request(reader)
            except asyncio.IncompleteReadError:
                return
            writer.write(_HEAD)
            await writer.drain()
            await asyncio.sleep(0.2 if number == 5 else 0.005)
            writer.write(b"body%8d" % number)

    async def use(client: HttpClient) -> None:
        for number in range(8):
            assert (await _post(client, timeout_s=2)).body == b"body%8d" % number

    assert run(_with_server(talk, use)) == 1
