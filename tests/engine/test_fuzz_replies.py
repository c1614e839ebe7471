"""Replies of random spelling, well and ill, in random pieces, to whole jobs.

A reply that RFC 9112 allows is read, however it is written and however its bytes come. After one
that it does not allow the job ends all the same, with the service's words and no output.
"""

import asyncio
import itertools
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import uvloop
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from transform_engine.agent import InstanceResult, run_instance
from transform_engine.data_log import MemoryLog
from transform_engine.spec import Container, InstanceSpec, JobSpec
from transform_engine.storage import FolderStorage

_fuzz = settings(
    derandomize=True,
    deadline=None,
    max_examples=100,
    # The server stays the same for all examples.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
_LIMIT_S = 20


@dataclass(frozen=True)
class _Answer:
    """What a server writes.

    :param raw: all of it.
    :param body: what the reply's body is; None if it is none.
    :param closes: whether the connection ends behind it.
    """

    raw: bytes
    body: bytes | None
    closes: bool


class _Server:
    """Answers the request `NUMBER` with the answer of that number, in pieces of the given sizes."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.answers: list[_Answer] = []
        self.sizes = [1]
        self.calls: list[int] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # It is closed.
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            with connection, connection.makefile("rb") as requests:
                while line := requests.readline():
                    length = 0
                    while (header := requests.readline().lower()).strip():
                        if header.startswith(b"content-length:"):
                            length = int(header.split(b":")[1])
                    if line.startswith(b"GET "):
                        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                        continue
                    number = int(requests.read(length))
                    self.calls.append(number)
                    self._write(connection, self.answers[number].raw)
                    if self.answers[number].closes:
                        return
        except OSError:
            pass  # The agent went away.

    def _write(self, connection: socket.socket, raw: bytes) -> None:
        at = 0
        for size in itertools.cycle(self.sizes):
            if at >= len(raw):
                return
            connection.sendall(raw[at : at + size])
            at += size


@pytest.fixture(scope="module")
def server() -> Iterator[_Server]:
    server = _Server()
    yield server
    server.close()


def _job_with(
    server: _Server, answers: list[_Answer], sizes: list[int], concurrent: int
) -> tuple[InstanceResult, bytes | None, str]:
    """One request for each answer: the result, the output, the data-log."""
    server.answers, server.sizes, server.calls = answers, sizes, []
    log = MemoryLog()
    with TemporaryDirectory() as folder:
        storage = FolderStorage(Path(folder))
        (Path(folder) / "bkt").mkdir()
        rows = b"".join(b"%d\n" % number for number in range(len(answers)))
        storage.path("bkt", "in/a").write_bytes(rows)
        location = {"S3DataType": "S3Prefix", "S3Uri": "s3://bkt/in/"}
        request = {
            "TransformJobName": "job",
            "ModelName": "model",
            "BatchStrategy": "SingleRecord",
            "MaxConcurrentTransforms": concurrent,
            "ModelClientConfig": {"InvocationsTimeoutInSeconds": 5, "InvocationsMaxRetries": 0},
            "TransformInput": {
                "DataSource": {"S3DataSource": location},
                "SplitType": "Line",
            },
            "TransformOutput": {"S3OutputPath": "s3://bkt/out", "AssembleWith": "None"},
            "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
        }
        spec = InstanceSpec(
            job=JobSpec(
                job_name="job",
                request=request,
                containers=(Container(url=server.url),),
                work_dir=folder,
                ping_timeout_s=10,
            ),
            instance_id="i-1",
            instance_index=0,
            instance_count=1,
            started_at=0,
        )

        async def all_of_it() -> InstanceResult:
            async with asyncio.timeout(_LIMIT_S):
                return await run_instance(spec, storage=storage, log=log, stop=asyncio.Event())

        result = uvloop.run(all_of_it())
        path = storage.path("bkt", "out/a.out")
        output = path.read_bytes() if path.exists() else None
    return result, output, "\n".join(log.agent_lines)


_BLANKS = st.sampled_from([b"", b" ", b"  ", b"\t"])
_VALUES = st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=9).map(
    lambda text: text.strip().encode("latin-1")
)
_OTHER_HEADERS = st.tuples(
    st.sampled_from(
        [b"X-A", b"date", b"SERVER", b"Content-Type", b"Set-Cookie", b"x_y.z!", b"Keep-Alive"]
    ),
    _VALUES,
)


_INFORMED = st.sampled_from([b"100 Continue", b"102 ", b"103 Early Hints"])


def _cased(name: bytes, upper: list[bool]) -> bytes:
    return b"".join(
        name[at : at + 1].upper() if big else name[at : at + 1].lower()
        for at, big in zip(range(len(name)), itertools.cycle(upper))
    )


@st.composite
def _well(draw: st.DrawFn) -> _Answer:
    """A reply as RFC 9112 allows it."""
    body = draw(st.binary(max_size=60) | st.sampled_from([b"\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"]))
    upper = draw(st.lists(st.booleans(), min_size=1, max_size=5))

    def header(name: bytes, value: bytes) -> bytes:
        behind = draw(st.sampled_from([b"", b" "]))
        return _cased(name, upper) + b":" + draw(_BLANKS) + value + behind + b"\r\n"

    status = draw(st.sampled_from([b"200", b"201", b"204", b"226", b"299"]))
    start = b"HTTP/1.1 " + status + draw(st.sampled_from([b" OK", b" ", b" No \xe9 reason at all"]))
    headers = [header(*each) for each in draw(st.lists(_OTHER_HEADERS, max_size=4))]
    closes = draw(st.booleans())
    if closes:
        headers.append(header(b"Connection", draw(st.sampled_from([b"close", b"Close", b"CLOSE"]))))
    framing = draw(st.sampled_from(["length", "length", "chunks", "end"]))
    sent = body
    if status == b"204":
        body = sent = b""
    elif framing == "length":
        headers.append(header(b"Content-Length", b"%d" % len(body)))
    elif framing == "chunks":
        headers.append(
            header(b"Transfer-Encoding", draw(st.sampled_from([b"chunked", b"Chunked"])))
        )
        sent = draw(_chunks(body))
    else:
        closes = True
    headers = draw(st.permutations(headers))
    informed = draw(
        st.lists(st.sampled_from([b"100 Continue", b"102 ", b"103 Early Hints"]), max_size=2)
    )
    before = b"".join(b"HTTP/1.1 " + each + b"\r\nLink: </a>\r\n\r\n" for each in informed)
    return _Answer(before + start + b"\r\n" + b"".join(headers) + b"\r\n" + sent, body, closes)


@st.composite
def _chunks(draw: st.DrawFn, body: bytes) -> bytes:
    sent, at = b"", 0
    while at < len(body):
        chunk = body[at : at + draw(st.integers(1, 25))]
        number = draw(st.sampled_from([b"%x", b"%X", b"000%x"])) % len(chunk)
        extension = draw(st.sampled_from([b"", b"", b";a", b";a=b", b';a="b c"']))
        sent += number + extension + b"\r\n" + chunk + b"\r\n"
        at += len(chunk)
    trailers = draw(st.sampled_from([b"", b"", b"X-Sum: 1\r\n", b"X-Sum: 1\r\nX-B:\r\n"]))
    return sent + draw(st.sampled_from([b"0", b"000", b"0;a=b"])) + b"\r\n" + trailers + b"\r\n"


_SIZES = st.lists(st.integers(1, 80), min_size=1, max_size=5)


@_fuzz
@given(
    answers=st.lists(_well(), min_size=1, max_size=12),
    times=st.integers(1, 3),
    sizes=_SIZES,
    concurrent=st.sampled_from([1, 3]),
)
def test_a_reply_is_read_however_it_is_written_and_however_it_comes(
    answers: list[_Answer], times: int, sizes: list[int], concurrent: int, server: _Server
) -> None:
    answers *= times  # Also like one that came before.
    result, output, said = _job_with(server, answers, sizes, concurrent)
    assert result.ok, said
    assert output == b"".join(each.body or b"" for each in answers)
    assert sorted(server.calls) == [*range(len(answers))]


@st.composite
def _ill(draw: st.DrawFn) -> _Answer:
    """A reply with a few bytes changed, or none at all; the connection ends behind it."""
    raw = bytearray(draw(_well()).raw)
    if draw(st.integers(0, 9)) == 0:
        return _Answer(draw(st.binary(max_size=200)), None, True)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(raw)))
        raw[at : at + draw(st.integers(0, 3))] = draw(
            st.binary(max_size=3)
            | st.sampled_from([b"\r\n", b"\n", b"\0", b" ", b":", b"99999999999999999999", b"-1"])
            | st.sampled_from([b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n"])
        )
    return _Answer(bytes(raw), None, True)


_WORDS = (
    "Unable to get response from algorithm",
    "ClientError: 4",
    "Bad HTTP status received from algorithm: ",
)


@settings(_fuzz, max_examples=200)
@given(answers=st.lists(_ill(), min_size=1, max_size=3), sizes=_SIZES)
@example(answers=[_Answer(b"", None, True)], sizes=[1])
@example(answers=[_Answer(b"\r\n" * 50, None, True)], sizes=[1])
@example(answers=[_Answer(b"HTTP/1.1 " + b"1" * 70_000, None, True)], sizes=[4096])
@example(answers=[_Answer(b"HTTP/1.1 100 Continue\r\n\r\n" * 900, None, True)], sizes=[700])
def test_after_any_bytes_at_all_a_job_ends_in_the_services_words(
    answers: list[_Answer], sizes: list[int], server: _Server
) -> None:
    result, output, said = _job_with(server, answers, sizes, 1)
    assert result.ok == (output is not None)
    if not result.ok:
        assert result.failed == 1
        assert any(f"bkt/in/a: {words}" in said for words in _WORDS), said
