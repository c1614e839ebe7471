"""Whole jobs of random objects and settings against a slow and obvious model of the service.

The model reads reference §1.7, §5 and §6 (and §11 where they are silent): which requests are made,
what stands in each output, and which objects fail. A server of Python's own answers in a thread.
"""

import asyncio
import gzip
import hashlib
import itertools
import json
import re
import struct
import threading
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from transform_engine.agent import InstanceResult, run_instance
from transform_engine.data_log import MemoryLog
from transform_engine.spec import Container, InstanceSpec, JobSpec, Readings
from transform_engine.splitting import masked_crc32c
from transform_engine.storage import FolderStorage, Output, Storage, StoredObject

_fuzz = settings(
    derandomize=True,
    deadline=None,
    max_examples=200,
    # The server stays the same for all examples, and keeps what comes apart by run.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
_LIMIT_S = 20
_Reply = Callable[[bytes], bytes]


class _Server(ThreadingHTTPServer):
    """Answers a request of a run with what the run's function makes of its body."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.replies: dict[str, _Reply] = {}
        self.bodies: dict[str, list[bytes]] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The agent may leave in the middle of a request."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        self._answer(200 if self.path == "/ping" else 404, b"")

    def do_POST(self) -> None:
        if self.headers["Transfer-Encoding"] == "chunked":
            body = b"".join(self._chunks())
        else:
            body = self.rfile.read(int(self.headers["Content-Length"]))
        run = self.headers["Content-Type"].partition("; run=")[2]
        self.server.bodies[run].append(body)
        self._answer(200, self.server.replies[run](body))

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""


@pytest.fixture(scope="module")
def server() -> Iterator[_Server]:
    with _Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


# Where objects lie.


class _Kept(Output):
    def __init__(self, objects: dict[str, bytes], key: str) -> None:
        self._objects = objects
        self.key = key
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> None:
        self._pieces.append(bytes(data))

    def commit(self, rest: bytes = b"") -> None:
        self._objects[self.key] = b"".join((*self._pieces, rest))

    def discard(self) -> None:
        self._pieces = []


class _InMemory(Storage):
    """Objects whose bytes come in pieces of given sizes, as from far away."""

    def __init__(self, sizes: list[int]) -> None:
        self.objects: dict[str, bytes] = {}
        self._sizes = sizes

    def list(self, bucket: str, prefix: str) -> Iterator[StoredObject]:
        for key in sorted(key for key in self.objects if key.startswith(prefix)):
            yield StoredObject(bucket, key, len(self.objects[key]))

    def size(self, bucket: str, key: str) -> int:
        return len(self.objects[key])

    async def chunks(self, bucket: str, key: str) -> AsyncIterator[bytes]:
        data, at = self.objects[key], 0
        for size in itertools.cycle(self._sizes):
            if at >= len(data):
                return
            yield data[at : at + size]
            at += size

    def download(self, bucket: str, key: str, path: Path) -> None:
        path.write_bytes(self.objects[key])

    def file_path(self, bucket: str, key: str) -> None:
        return None

    def outputs(
        self, bucket: str, *, scratch: str | None = None, kms_key_id: str | None = None
    ) -> Callable[[str], _Kept]:
        return partial(_Kept, self.objects)

    def delete(self, bucket: str, *keys: str) -> None:
        for key in keys:
            self.objects.pop(key, None)

    def sweep(self, bucket: str, folder: str, work_dir: str) -> None:
        """Nothing of it outlives its process."""


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """What a job is told, as far as the model depends on it.

    :param limit: in bytes; None is MaxPayloadInMB 0.
    """

    split: str = "Line"
    single: bool = False
    assemble: str = "Line"
    packed: bool = False
    limit: int | None = 1000
    concurrent: int = 1
    readings: Readings = field(default_factory=Readings)
    content_type: str = "application/octet-stream"
    accept: str | None = None
    input_filter: str = "$"
    output_filter: str = "$"
    join: bool = False

    @property
    def reads_replies(self) -> bool:
        return self.join or self.output_filter != "$"

    def request(self, run: str) -> dict[str, Any]:
        location = {"S3DataType": "S3Prefix", "S3Uri": "s3://bkt/in/"}
        accept = {} if self.accept is None else {"Accept": f"{self.accept}; run={run}"}
        return {
            "TransformJobName": "job",
            "ModelName": "model",
            "BatchStrategy": "SingleRecord" if self.single else "MultiRecord",
            "MaxConcurrentTransforms": self.concurrent,
            "MaxPayloadInMB": 0 if self.limit is None else 1,
            "ModelClientConfig": {"InvocationsTimeoutInSeconds": 15, "InvocationsMaxRetries": 0},
            "TransformInput": {
                "DataSource": {"S3DataSource": location},
                "ContentType": f"{self.content_type}; run={run}",
                "SplitType": self.split,
                "CompressionType": "Gzip" if self.packed else "None",
            },
            "TransformOutput": {
                "S3OutputPath": "s3://bkt/out",
                "AssembleWith": self.assemble,
                **accept,
            },
            "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
            "DataProcessing": {
                "InputFilter": self.input_filter,
                "OutputFilter": self.output_filter,
                "JoinSource": "Input" if self.join else "None",
            },
        }


@dataclass
class _Outcome:
    """What must come of one object.

    :param requests: all that are made; of an object that fails, those that may be.
    :param output: None is that it fails.
    :param fault: whose fault that is.
    """

    requests: list[bytes] = field(default_factory=list)
    output: bytes | None = None
    fault: str = ""


_Came = tuple[InstanceResult, dict[str, bytes], list[bytes], str]
_RUNS = itertools.count()


def _came_of(
    server: _Server,
    what: _Settings,
    objects: dict[str, bytes],
    reply: _Reply,
    sizes: list[int] | None,
) -> _Came:
    """Run a job: its result, its outputs, its requests, its data-log.

    :param sizes: of the pieces that objects come in; None is that they are local files.
    """
    run = str(next(_RUNS))
    server.replies[run], server.bodies[run] = reply, []
    log = MemoryLog()
    with TemporaryDirectory() as folder:
        storage: Storage
        if sizes is None:
            (Path(folder) / "bkt").mkdir()
            storage = files = FolderStorage(Path(folder))
            for name, data in objects.items():
                files.path("bkt", f"in/{name}").write_bytes(data)
        else:
            storage = memory = _InMemory(sizes)
            memory.objects = {f"in/{name}": data for name, data in objects.items()}
        spec = InstanceSpec(
            job=JobSpec(
                job_name="job",
                request=what.request(run),
                containers=(Container(url=server.url),),
                work_dir=folder,
                ping_timeout_s=10,
                readings=replace(what.readings, bytes_in_mb=what.limit or 1),
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
        if sizes is None:
            keys = [found.key for found in files.list("bkt", "out/")]
            outputs = {key: files.path("bkt", key).read_bytes() for key in keys}
        else:
            outputs = {key: memory.objects[key] for key in memory.objects if key[:3] == "out"}
    names = {key.removeprefix("out/").removesuffix(".out"): data for key, data in outputs.items()}
    return result, names, server.bodies.pop(run), "\n".join(log.agent_lines)


def _assert_as_the_model_says(came: _Came, expected: dict[str, _Outcome]) -> None:
    result, outputs, bodies, said = came
    good = {name: each for name, each in expected.items() if each.output is not None}
    bad = {name: each for name, each in expected.items() if each.output is None}
    assert outputs == {name: each.output for name, each in good.items()}
    assert (result.ok, result.done, result.failed) == (not bad, len(good), len(bad))
    for name in expected:
        assert (f"bkt/in/{name}: " in said) == (name in bad), said
    if bad:
        faults = {fault for each in bad.values() for fault in each.fault.split()}
        assert (result.failure_reason or "").split(":")[0] in faults
    must = Counter(body for each in good.values() for body in each.requests)
    may = must + Counter(body for each in bad.values() for body in each.requests)
    made = Counter(bodies)
    assert must <= made <= may


# Framing and packing (reference §6), assembly (§5.3).


def _cut(split: str, stream: bytes) -> tuple[list[tuple[bytes, bytes]], bool]:
    """Each record with its frame and without, and whether the stream is whole."""
    records: list[tuple[bytes, bytes]] = []
    while stream:
        if split == "Line":
            data, found, rest = stream.partition(b"\n")
            records.append((data + found, data))
        elif split == "TFRecord":
            length = int.from_bytes(stream[:8], "little")
            data, rest = stream[12 : 12 + length], stream[16 + length :]
            if len(stream) < 16 + length or stream[: 16 + length] != _framed(split, data):
                return records, False
            records.append((_framed(split, data), data))
        else:
            length = int.from_bytes(stream[4:8], "little")
            data, rest = stream[8 : 8 + length], stream[8 + (length + 3) // 4 * 4 :]
            framed = stream[: 8 + (length + 3) // 4 * 4]
            whole = len(framed) == 8 + (length + 3) // 4 * 4
            if not whole or stream[:4] != b"\x0a\x23\xd7\xce" or length >= 1 << 29:
                return records, False
            records.append((framed, data))
        stream = rest
    return records, True


def _framed(split: str, data: bytes) -> bytes:
    if split == "TFRecord":
        length = struct.pack("<Q", len(data))
        sums = (struct.pack("<I", masked_crc32c(each)) for each in (length, data))
        return length + next(sums) + data + next(sums)
    if split == "RecordIO":
        return struct.pack("<II", 0xCED7230A, len(data)) + data + bytes(-len(data) % 4)
    return data + b"\n"


#: A request's body and the rows in it.
_Payload = tuple[bytes, list[bytes]]


def _packed(what: _Settings, sent: list[_Payload]) -> tuple[list[_Payload], bool]:
    """The requests, and whether each record fits."""
    payloads: list[_Payload] = []
    for made, rows in sent:
        if what.limit is not None and len(made) > what.limit:
            return payloads, False
        before, rows_before = payloads[-1] if payloads else (b"", [])
        fits = what.limit is None or len(before) + len(made) <= what.limit
        if payloads and fits and not what.single:
            payloads[-1] = before + made, rows_before + rows
        else:
            payloads.append((made, rows))
    return payloads, True


def _unpacked(data: bytes) -> tuple[bytes, bool]:
    """What a gzip holds as far as it goes, and whether it is whole."""
    unpacked = b""
    while data:
        member = zlib.decompressobj(31)
        unpacked += member.decompress(data)
        data = member.unused_data
        if not member.eof:
            return unpacked, False
    return unpacked, True


def _outcome_of_bytes(what: _Settings, data: bytes, reply: _Reply) -> _Outcome:
    """What comes of an object that nobody reads."""
    whole = well_packed = True
    if what.packed:
        data, well_packed = _unpacked(data)
    if not data and well_packed and what.readings.empty_object_fails:
        return _Outcome([], None, "ClientError")
    if what.split == "None":
        sent = [data] if data else []
    else:
        records, whole = _cut(what.split, data)
        if what.split == "Line":
            records = [*_lines_as_read(what, records)]
        sent = [each[1 if what.single else 0] for each in records]
    payloads, fits = _packed(what, [(each, []) for each in sent])
    bodies = [body for body, _ in payloads]
    if what.split == "Line" and not (what.single or what.readings.line_feed_after_last_record):
        bodies = [body.removesuffix(b"\n") for body in bodies]
    if not (whole and well_packed and fits):
        # What is sent whole is not sent in part, as if it were whole.
        at_once = what.split == "None" or (what.limit is None and not what.single)
        return _Outcome([] if at_once else bodies, None, "ClientError")
    return _Outcome(bodies, _assembled(what, map(reply, bodies)))


def _lines_as_read(
    what: _Settings, lines: list[tuple[bytes, bytes]]
) -> Iterator[tuple[bytes, bytes]]:
    for framed, line in lines:
        end = framed.removeprefix(line)
        if line in (b"", b"\r") and not what.readings.blank_line_is_record:
            continue
        kept = line if what.readings.carriage_return_in_record else line.removesuffix(b"\r")
        yield kept + end, kept + end if what.readings.line_feed_in_single_record else kept


def _assembled(what: _Settings, replies: Iterable[bytes]) -> bytes:
    """The output of replies that nobody reads."""
    only_missing = what.readings.line_feed_only_where_missing
    output = b""
    for reply in replies:
        ended = what.assemble == "None" or (only_missing and reply.endswith(b"\n"))
        output += reply if ended else reply + b"\n"
    return output


_REPLIES: dict[str, _Reply] = {
    "echo": lambda body: body,
    "nothing": lambda body: b"",
    "line": lambda body: hashlib.sha256(body).hexdigest().encode() + b"\n",
    "long": lambda body: body * 3 + b"\r\n",
    "binary": lambda body: hashlib.sha256(body).digest(),
}
_PIECES = st.none() | st.lists(st.integers(0, 60), min_size=1, max_size=5).filter(any)


@st.composite
def _objects_of_bytes(draw: st.DrawFn, what: _Settings) -> dict[str, bytes]:
    objects = {}
    for number in range(draw(st.integers(0, 4))):
        records = draw(
            st.lists(
                st.binary(max_size=12) | st.sampled_from([b"\n\r\n", b"", b"\r", b"a\r"]),
                max_size=8,
            )
        )
        data = b"".join(_framed(what.split, record) for record in records)
        if what.split == "Line" and draw(st.booleans()):
            data = data[:-1]
        damage = draw(st.sampled_from(["none", "none", "none", "cut", "flip"]))
        if damage == "cut":
            data = data[: draw(st.integers(0, len(data)))]
        elif damage == "flip" and data:
            at = draw(st.integers(0, len(data) - 1))
            data = data[:at] + bytes((data[at] ^ 1 << draw(st.integers(0, 7)),)) + data[at + 1 :]
        if what.packed:
            at = draw(st.integers(0, len(data)))
            data = gzip.compress(data[:at], mtime=0) + gzip.compress(data[at:], mtime=0)
            if draw(st.integers(0, 4)) == 0:
                data = data[: draw(st.integers(1, len(data) - 1))]
        objects[f"{number}"] = data
    return objects


_RARELY = st.sampled_from([False, False, False, True])
_SETTINGS_OF_BYTES = st.builds(
    _Settings,
    split=st.sampled_from(["Line", "Line", "Line", "None", "RecordIO", "TFRecord"]),
    single=_RARELY,
    assemble=st.sampled_from(["None", "Line"]),
    packed=_RARELY,
    limit=st.integers(1, 120) | st.integers(1, 40) | st.none(),
    concurrent=st.sampled_from([1, 2, 4, 16]),
    readings=st.just(Readings())
    | st.builds(
        Readings,
        line_feed_in_single_record=_RARELY,
        line_feed_after_last_record=_RARELY.map(lambda rarely: not rarely),
        carriage_return_in_record=_RARELY.map(lambda rarely: not rarely),
        blank_line_is_record=_RARELY.map(lambda rarely: not rarely),
        empty_object_fails=_RARELY,
        line_feed_only_where_missing=_RARELY,
    ),
)


@_fuzz
@given(data=st.data(), what=_SETTINGS_OF_BYTES, answer=st.sampled_from([*_REPLIES]), sizes=_PIECES)
def test_bytes_that_nobody_reads_go_and_come_as_the_model_says(
    data: st.DataObject, what: _Settings, answer: str, sizes: list[int] | None, server: _Server
) -> None:
    objects = data.draw(_objects_of_bytes(what))
    reply = _REPLIES[answer]
    came = _came_of(server, what, objects, reply, sizes)
    expected = {name: _outcome_of_bytes(what, each, reply) for name, each in objects.items()}
    _assert_as_the_model_says(came, expected)


@settings(_fuzz, max_examples=25)
@given(
    what=_SETTINGS_OF_BYTES,
    records=st.lists(st.tuples(st.integers(0, 255), st.integers(0, 90_000)), max_size=9),
    limit=st.integers(60_000, 300_000),
    sizes=st.none() | st.lists(st.integers(1, 1 << 17), min_size=1, max_size=4),
)
def test_payloads_of_many_kilobytes_go_and_come_as_the_model_says(
    what: _Settings,
    records: list[tuple[int, int]],
    limit: int,
    sizes: list[int] | None,
    server: _Server,
) -> None:
    what = replace(what, limit=what.limit and limit)
    lines = b"".join(_framed(what.split, bytes((byte,)) * size) for byte, size in records)
    objects = {"a": gzip.compress(lines, 1) if what.packed else lines, "b": b""}
    came = _came_of(server, what, objects, _REPLIES["echo"], sizes)
    expected = {
        name: _outcome_of_bytes(what, each, _REPLIES["echo"]) for name, each in objects.items()
    }
    _assert_as_the_model_says(came, expected)


# Filters and joins (reference §1.7), line by line.


class _Unreadable(Exception):
    """A row is not of its format, or has not what a filter asks for."""


class _Number(str):
    """A number as it is spelled."""


def _read_json(row: bytes) -> Any:
    def refuse(_: str) -> None:
        raise ValueError

    try:
        return json.loads(
            row.decode(), parse_int=_Number, parse_float=_Number, parse_constant=refuse
        )
    except (ValueError, RecursionError):
        raise _Unreadable from None


def _write_json(value: Any) -> bytes:
    if isinstance(value, _Number):
        return value.encode()
    if isinstance(value, list):
        return b"[" + b",".join(map(_write_json, value)) + b"]"
    if isinstance(value, dict):
        members = (
            _write_json(name) + b":" + _write_json(value[name])
            for name in sorted(value, key=lambda name: name.encode("utf-8", "surrogatepass"))
        )
        return b"{" + b",".join(members) + b"}"
    try:
        return json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise _Unreadable from None


_COLUMN = rb'"(?:[^"]|"")*"|[^",]*'
_ROW = re.compile(b"(?:%s)(?:,(?:%s))*" % (_COLUMN, _COLUMN))


def _read_csv(row: bytes) -> list[bytes]:
    row = row.removesuffix(b"\r")
    if not _ROW.fullmatch(row):
        raise _Unreadable
    columns = [found[1] for found in re.finditer(b"(?:^|,)(%s)" % _COLUMN, row)]
    return [each[1:-1].replace(b'""', b'"') if each.startswith(b'"') else each for each in columns]


def _write_csv(columns: list[bytes]) -> bytes:
    return b",".join(
        b'"' + each.replace(b'"', b'""') + b'"' if {*each} & {*b'",\r\n'} else each
        for each in columns
    )


def _is_csv(media_type: str) -> bool:
    return media_type == "text/csv"


def _read(media_type: str, row: bytes) -> Any:
    return _read_csv(row) if _is_csv(media_type) else _read_json(row)


def _write(media_type: str, value: Any) -> bytes:
    return _write_csv(value) if _is_csv(media_type) else _write_json(value)


def _joined(media_type: str, value: Any, reply: Any) -> Any:
    if _is_csv(media_type):
        return value + reply
    if isinstance(value, dict):
        return {**value, "SageMakerOutput": reply}
    return {"SageMakerInput": value, "SageMakerOutput": reply}


_CSV_FILTERS: dict[str, Callable[[Any], Any]] = {
    "$": lambda row: row,
    "$[1:]": lambda row: row[1:],
    "$[:-1]": lambda row: row[:-1],
    "$[1]": lambda row: [row[1]],
    "$[-1,0]": lambda row: [row[-1], row[0]],
}
_JSON_FILTERS: dict[str, Callable[[Any], Any]] = {
    "$": lambda value: value,
    "$.a": lambda value: value["a"],
    "$['a','b']": lambda value: {name: value[name] for name in "ab" if name in {**value}},
    "$[0]": lambda value: value[0] if isinstance(value, list) else [][0],
    "$.a[1:]": lambda value: value["a"][1:] if isinstance(value["a"], list) else [][0],
    "$['b','SageMakerOutput']": lambda value: {
        name: value[name] for name in ("b", "SageMakerOutput") if name in {**value}
    },
    "$.SageMakerOutput": lambda value: value["SageMakerOutput"],
}


def _filtered(media_type: str, expression: str, value: Any) -> Any:
    try:
        return (_CSV_FILTERS if _is_csv(media_type) else _JSON_FILTERS)[expression](value)
    except (LookupError, TypeError, ValueError):
        raise _Unreadable from None


def _lines(body: bytes) -> list[bytes]:
    if not body:
        return []
    return [line.removesuffix(b"\r") for line in body.removesuffix(b"\n").split(b"\n")]


def _sent_rows(what: _Settings, data: bytes) -> Iterator[_Payload]:
    """What is sent of each record, and the rows in it; raises `_Unreadable` at a bad one."""
    as_it_is = what.input_filter == "$"

    def prepared(row: bytes) -> bytes:
        if as_it_is and not what.join:
            return row
        value = _read(what.content_type, row)
        if as_it_is:
            return row
        return _write(what.content_type, _filtered(what.content_type, what.input_filter, value))

    if what.split == "None" and data:
        rows = [data] if what.content_type == "application/json" else _lines(data)
        made = b"\n".join(map(prepared, rows)) + (b"\n" if data.endswith(b"\n") else b"")
        yield data if as_it_is else made, rows
    elif data:
        for framed, row in _cut(what.split, data)[0]:
            alone = prepared(row)
            together = framed if as_it_is else alone + b"\n"
            yield alone if what.single else together, [row]


def _output_rows(what: _Settings, rows: list[bytes], body: bytes) -> Iterator[bytes]:
    """Rows of the output; raises `_Unreadable`, which says whose fault it may be."""
    accept = what.accept or what.content_type
    alone = what.single if what.split != "None" else accept == "application/json"
    answers = _lines(body)
    if alone and not _is_csv(accept):
        answers = [body] if body.strip() else []
    if what.join and len(answers) != len(rows):
        raise _Unreadable("AlgorithmError")
    for number, answer in enumerate(answers):
        try:
            value = _read(accept, answer)
        except _Unreadable:
            raise _Unreadable("AlgorithmError") from None
        try:
            if what.join:
                value = _joined(accept, _read(accept, rows[number]), value)
            yield _write(accept, _filtered(accept, what.output_filter, value))
        except _Unreadable:
            # Whose fault it is nobody tells (reference §4).
            raise _Unreadable("ClientError AlgorithmError") from None


def _outcome_of_rows(what: _Settings, data: bytes, reply: _Reply) -> _Outcome:
    """What comes of an object with filters or a join."""
    sent: list[_Payload] = []
    faults = set()
    try:
        for each in _sent_rows(what, data):
            sent.append(each)
    except _Unreadable:
        faults.add("ClientError")
    payloads, fits = _packed(what, sent)
    if not fits:
        faults.add("ClientError")
    bodies = [body for body, _ in payloads]
    output: list[bytes] = []
    for body, rows in payloads if what.reads_replies else ():
        try:
            output += _output_rows(what, rows, reply(body))
        except _Unreadable as fault:
            faults |= {*str(fault).split()}
    if faults:
        return _Outcome(bodies, None, " ".join(faults))
    if not what.reads_replies:
        return _Outcome(bodies, _assembled(what, map(reply, bodies)))
    if what.assemble == "Line":
        return _Outcome(bodies, b"".join(row + b"\n" for row in output))
    return _Outcome(bodies, (b"\n" if what.split == "None" else b"").join(output))


def _answering(
    answer: Callable[[bytes], bytes], *, between: bytes = b"\n", end: bytes = b"\n"
) -> _Reply:
    """A model that answers each line."""

    def reply(body: bytes) -> bytes:
        return between.join(map(answer, body.removesuffix(b"\n").split(b"\n"))) + end

    return reply


def _count(line: bytes) -> bytes:
    return b"%d" % line.count(b",")


_CSV_REPLIES: dict[str, _Reply] = {
    "a column": _answering(_count),
    "a column, no last line feed": _answering(_count, end=b""),
    "columns": _answering(lambda line: b'1.0,"a,""b""",' + _count(line), between=b"\r\n"),
    "the line": lambda body: body,
    "too many lines": _answering(_count, end=b"\n\n"),
    "too few lines": lambda body: _answering(_count)(body).partition(b"\n")[2],
    "nothing": lambda body: b"",
    "a bare quote where there is one": _answering(lambda line: b'a"b' if b'"' in line else b"1"),
}
_JSON_REPLIES: dict[str, _Reply] = {
    "an object": _answering(lambda line: b'{ "b":1.50, "a":[%s, "\\u00e9"]}' % _count(line)),
    "an array": _answering(lambda line: b"[9007199254740993,1E5]", end=b""),
    "a scalar": _answering(_count, between=b"\r\n"),
    "lines in an object": _answering(lambda line: b'{"a":\n[1, 2]}'),
    "the line": lambda body: body,
    "too many lines": _answering(_count, end=b"\n7\n"),
    "too few lines": lambda body: _answering(_count)(body).partition(b"\n")[2],
    "nothing": lambda body: b"",
    "no number": _answering(lambda line: b"NaN" if b"a" in line else b"1"),
    "nested": _answering(lambda line: b"[" * 9000 + b"]" * 9000 if b"a" in line else b"1"),
}
_CSV_ROWS = [
    *(b"1,2,3", b"a,b", b"x", b"", b"1,2,3\r", b'"a,b",2', b'"a ""q"" b",1', b'1,""', b",,"),
    *(b"\xff\xfe,\xe9", b"NaN,1e5", b"a\rb,c", b'1,a"b', b'"a', b'"a"b,1'),
]
_JSON_ROWS = [
    *(b'{"a":[1,2.0,3]}', b'{"b":1,"a":2}', b'{"Z":0,"a":{"b":1}}', b"[1, 2]", b'"text"', b"1.50"),
    *(b' {"a" : 9007199254740993}\r', b'{"a":1,"a":[2]}', b'{"SageMakerOutput":1}', b"null"),
    *(b'{"a":"\\u00e9<&>\xe2\x80\xa8"}', b"[" * 150 + b"]" * 150, b'{"a":"\\ud800","b":1}'),
    *(b'{"\\u0061":1,"b":"\\ud800"}', b'{"b":"\x01","a":1}', b'{"b":01,"a":1}', b'{"b":1,"a":[}'),
    *(b'{"a":1,"b":"\xff"}', b'{"a":"\xff"}', b'{"a":1,"b":[01]}', b'{"a":1,"b":[\xed\xa0\x80]}'),
    *(b"", b"NaN", b'{"a":Infinity}', b'"\xff"', b"{'a':1}", b"[" * 5000, b'{"a":1} x', b"01"),
]


@st.composite
def _row_jobs(draw: st.DrawFn) -> tuple[_Settings, dict[str, bytes], str]:
    csv = draw(st.booleans())
    csv_out = csv if draw(st.integers(0, 3)) else not csv
    lines = "text/csv", draw(st.sampled_from(["application/jsonlines", "application/json"]))
    content_type, accept = lines[not csv], lines[not csv_out]
    join = csv == csv_out and draw(st.booleans())
    split = draw(st.sampled_from(["Line", "Line", "Line", "None", "RecordIO", "TFRecord"]))
    framed = split in ("RecordIO", "TFRecord")
    what = _Settings(
        split=split,
        single=framed or draw(st.booleans()),
        assemble="Line" if split == "Line" else draw(st.sampled_from(["None", "Line"])),
        limit=draw(st.sampled_from([None, 10_000, 10_000, 10_000, 20])),
        concurrent=draw(st.sampled_from([1, 4])),
        content_type=content_type,
        accept=accept,
        input_filter=draw(st.sampled_from([*(_CSV_FILTERS if csv else _JSON_FILTERS)])),
        output_filter=draw(st.sampled_from([*(_CSV_FILTERS if csv_out else _JSON_FILTERS)])),
        join=join,
    )
    objects = {}
    pool = _CSV_ROWS if csv else _JSON_ROWS
    for number in range(draw(st.integers(1, 4))):
        # The later ones of the pool are the worse ones; most objects have none of them.
        well = len(pool) - ((4 if csv else 16) if draw(st.integers(0, 3)) else 0)
        rows = draw(st.lists(st.sampled_from(pool[:well]), max_size=5))
        if split == "None" and content_type == "application/json":
            data = b"\n".join(rows[:1])
        elif framed:
            data = b"".join(_framed(split, row) for row in rows)
        else:
            data = b"\n".join(rows) + (b"\n" if draw(st.booleans()) else b"")
        objects[f"{number}"] = data
    return what, objects, draw(st.sampled_from([*(_CSV_REPLIES if csv_out else _JSON_REPLIES)]))


@settings(_fuzz, max_examples=150)
@given(job=_row_jobs(), sizes=_PIECES)
def test_rows_are_filtered_and_joined_as_the_model_says(
    job: tuple[_Settings, dict[str, bytes], str], sizes: list[int] | None, server: _Server
) -> None:
    what, objects, answer = job
    reply = (_CSV_REPLIES if _is_csv(what.accept or "") else _JSON_REPLIES)[answer]
    reads = what.reads_replies or what.input_filter != "$"
    outcome = _outcome_of_rows if reads else _outcome_of_bytes
    came = _came_of(server, what, objects, reply, sizes)
    _assert_as_the_model_says(
        came, {name: outcome(what, each, reply) for name, each in objects.items()}
    )


@pytest.mark.parametrize("near", [2, 1 << 12, (1 << 12) + (1 << 15), (1 << 15) * 9 + (1 << 12)])
@pytest.mark.parametrize("off", [-2, -1, 0, 1, 2])
def test_lines_of_a_file_are_cut_wherever_the_last_one_that_fits_ends(
    near: int, off: int, server: _Server
) -> None:
    """A file's end of line is looked for backwards, further and further."""
    behind = near + off
    what = _Settings(assemble="None", limit=600_000)
    fitting = b"a" * (600_000 - behind - 1) + b"\n"
    data = fitting + b"b" * (behind + 3) + b"\nc"
    came = _came_of(server, what, {"a": data}, _REPLIES["echo"], None)
    assert came[2] == [fitting, data[len(fitting) :]]
    _assert_as_the_model_says(came, {"a": _outcome_of_bytes(what, data, _REPLIES["echo"])})


@pytest.mark.parametrize(
    ("media_type", "answer"),
    [("text/csv", name) for name in _CSV_REPLIES]
    + [("application/jsonlines", name) for name in _JSON_REPLIES],
)
@pytest.mark.parametrize("single", [False, True])
def test_every_kind_of_reply_is_joined_under_every_filter_as_the_model_says(
    media_type: str, answer: str, single: bool, server: _Server
) -> None:
    csv = _is_csv(media_type)
    reply = (_CSV_REPLIES if csv else _JSON_REPLIES)[answer]
    rows = [b"1,2,3", b'"a,b",2'] if csv else [b'{"b": 1,"a":[1,2.0]}', b'{"a":[],"b":"\\u00e9"}']
    objects = {
        "good": b"\n".join((*rows, *rows)),
        "one": rows[0],
        "bad": b"\n".join((*rows, b'"' if csv else b'{"b":01,"a":[0]}')),
    }
    for expression in _CSV_FILTERS if csv else _JSON_FILTERS:
        what = _Settings(
            single=single,
            content_type=media_type,
            accept=media_type,
            output_filter=expression,
            join=True,
        )
        came = _came_of(server, what, objects, reply, None)
        expected = {name: _outcome_of_rows(what, each, reply) for name, each in objects.items()}
        _assert_as_the_model_says(came, expected)


@pytest.mark.parametrize(("side", "join"), [("input", False), ("input", True), ("output", True)])
@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize(
    ("media_type", "expression"),
    [("text/csv", expression) for expression in _CSV_FILTERS]
    + [("application/jsonlines", expression) for expression in _JSON_FILTERS],
)
def test_every_kind_of_row_is_filtered_and_joined_as_the_model_says(
    media_type: str, expression: str, single: bool, side: str, join: bool, server: _Server
) -> None:
    rows = _CSV_ROWS if _is_csv(media_type) else _JSON_ROWS
    reply = (_CSV_REPLIES if _is_csv(media_type) else _JSON_REPLIES)["the line"]
    if side == "output":
        reply = _answering(lambda line: b"1.50")
    what = _Settings(
        single=single,
        concurrent=4,
        limit=100_000,
        content_type=media_type,
        accept=media_type,
        input_filter=expression if side == "input" else "$",
        output_filter=expression if side == "output" else "$",
        join=join,
    )
    objects = {f"{number:02}": row + b"\n" for number, row in enumerate(rows)}
    outcome = _outcome_of_rows if what.reads_replies or expression != "$" else _outcome_of_bytes
    came = _came_of(server, what, objects, reply, [7] if single else None)
    _assert_as_the_model_says(
        came, {name: outcome(what, each, reply) for name, each in objects.items()}
    )
