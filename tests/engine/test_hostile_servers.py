"""Model servers that break HTTP's rules or the connection, under whole jobs.

Each case is one misbehaviour (a function of hostile_server.py) under many jobs at once: requests of
100 bytes, 100 KB and 5 MB, which may take different ways through the engine; both strategies; 1, 4
and 16 requests at a time; bodies in chunks; and pipelines. The server counts the calls and says
what it read.
"""

import asyncio
import os
import subprocess
import sys
import time
import urllib.request
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path

import pytest
import uvloop

from transform_engine.agent import InstanceResult, run_instance
from transform_engine.data_log import MemoryLog
from transform_engine.ports import free_port
from transform_engine.spec import Container, InstanceSpec, JobSpec, Readings
from transform_engine.storage import FolderStorage

_SERVER = Path(__file__).with_name("hostile_server.py")
_LIMIT_S = 15
_SIZES = {"small": 100, "medium": 100_000, "large": 5_000_000}
_RECORDS_A_REQUEST = {"SingleRecord": 1, "MultiRecord": 3}
_REQUESTS_AN_OBJECT = {"small": 10, "medium": 3, "large": 1}


def _line(name: str, number: int, size: int) -> bytes:
    start = b"@%s-%04d:" % (name.encode(), number)
    # Bytes of every value but LF, other ones in every record, so that nothing can be exchanged.
    filling = bytes((number + at) % 245 + 11 for at in range(251)) * (size // 251 + 1)
    return (start + filling)[: size - 1] + b"\n"


def _object(name: str, strategy: str, size: str, requests: int) -> list[bytes]:
    """An object's lines; as many fill a request as the strategy lets in."""
    together = _RECORDS_A_REQUEST[strategy]
    length = _SIZES[size] // together + (1 if strategy == "SingleRecord" else 0)
    return [_line(name, number, length) for number in range(requests * together)]


_OBJECTS = {
    (strategy, size): {name: _object(name, strategy, size, requests) for name in ("a", "b")}
    for strategy in _RECORDS_A_REQUEST
    for size, requests in _REQUESTS_AN_OBJECT.items()
}
for strategy in _RECORDS_A_REQUEST:
    _OBJECTS[strategy, "large"]["b"] = _object("b", strategy, "medium", 1)
#: For one chunked request an object.
_OBJECTS["MultiRecord", "any"] = {size: _object(size, "MultiRecord", size, 1) for size in _SIZES}


@dataclass(frozen=True)
class _Job:
    strategy: str
    size: str
    concurrent: int
    chunked: bool = False
    #: The last one misbehaves.
    containers: int = 1

    def __str__(self) -> str:
        how = " in chunks" if self.chunked else ""
        through = f" through {self.containers} containers" if self.containers > 1 else ""
        return f"{self.strategy}, {self.size}, {self.concurrent} at a time{how}{through}"

    @property
    def objects(self) -> dict[str, list[bytes]]:
        """Each object's lines."""
        return _OBJECTS[self.strategy, self.size]

    @property
    def prefix(self) -> str:
        return f"in/{self.strategy}-{self.size}/"

    def request(self, case: "_Case", run: str) -> dict[str, object]:
        before = "hands_on/" if self.containers > 1 else ""
        source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://bkt/{self.prefix}"}}
        return {
            "TransformJobName": "job",
            "ModelName": "model",
            "BatchStrategy": self.strategy,
            "MaxConcurrentTransforms": self.concurrent,
            "MaxPayloadInMB": 0 if self.chunked else 1,
            "ModelClientConfig": {
                "InvocationsTimeoutInSeconds": case.timeout_s,
                "InvocationsMaxRetries": case.retries,
            },
            "TransformInput": {
                "DataSource": source,
                "ContentType": f"{before}{case.behaviour}; run={run}",
                "SplitType": "Line",
            },
            "TransformOutput": {"S3OutputPath": f"s3://bkt/out-{run}", "AssembleWith": "None"},
            "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
        }


@cache
def _bodies(job: _Job, name: str) -> list[bytes]:
    """What must be sent of an object."""
    lines = job.objects[name]
    if job.strategy == "SingleRecord":
        return [line[:-1] for line in lines]
    if job.chunked:
        return [b"".join(lines)]
    return [b"".join(lines[at : at + 3]) for at in range(0, len(lines), 3)]


@cache
def _sent(job: _Job, name: str) -> dict[str, str]:
    """The requests of an object, by key, as the server notes their bodies."""
    return {
        (key := _key(body).decode()): f"body {key} {len(body)} {zlib.crc32(body)}"
        for body in _bodies(job, name)
    }


_JOBS = [
    *(
        _Job(strategy, size, concurrent)
        for strategy in _RECORDS_A_REQUEST
        for size in ("small", "medium")
        for concurrent in (1, 4, 16)
    ),
    _Job("SingleRecord", "large", 16),
    _Job("MultiRecord", "large", 1),
    _Job("SingleRecord", "small", 16, chunked=True),
    _Job("MultiRecord", "any", 4, chunked=True),
    _Job("SingleRecord", "small", 4, containers=2),
    _Job("MultiRecord", "medium", 4, containers=2),
]
#: For replies that come late, which all run at once.
_FEW_JOBS = [
    _Job("SingleRecord", "small", 4),
    _Job("MultiRecord", "small", 1),
    _Job("SingleRecord", "medium", 16),
    _Job("MultiRecord", "medium", 4),
    _Job("SingleRecord", "small", 4, containers=2),
    _Job("MultiRecord", "any", 4, chunked=True),
]


@dataclass(frozen=True)
class _Case:
    """What a misbehaviour comes to.

    :param reason: what the data-log says of each object; None is that all is well.
    :param calls: how often each request is made; of an object that fails its first one.
    :param reply: what the output has of a request's body.
    :param retries: InvocationsMaxRetries.
    :param read: whether the server reads every body that it gets.
    :param only_first: only the first request of each object is treated so, the others are well.
    """

    behaviour: str
    reason: str | None = None
    calls: int = 1
    reply: Callable[[bytes], bytes] = lambda body: body
    retries: int = 0
    timeout_s: int = 30
    sizes: tuple[str, ...] = ("small", "medium", "large", "any")
    read: bool = True
    only_first: bool = False

    def __str__(self) -> str:
        return self.behaviour


def _key(body: bytes) -> bytes:
    return body.partition(b":")[0]


def _nothing(body: bytes) -> bytes:
    return b""


_SMALL = ("small",)
_SERVED = [
    _Case("echo"),
    _Case("says_close"),
    _Case("closes_after_reply"),
    _Case("closes_its_half_after_reply"),
    _Case("resets_after_reply"),
    _Case("closes_when_idle"),
    _Case("closes_on_the_next_request"),
    _Case("resets_on_the_next_request"),
    _Case("http_1_0"),
    _Case("http_1_0_keeps_alive"),
    _Case("http_1_0_until_close"),
    _Case("body_until_close"),
    _Case("chunked"),
    _Case("chunks_of_one_byte_and_trailers"),
    _Case("drips"),
    _Case("reads_slowly"),
    _Case("informs_first"),
    _Case("no_reason"),
    _Case("no_blank_after_status"),
    _Case("long_reason"),
    _Case("long_header"),
    _Case("many_headers"),
    _Case("odd_header_case"),
    _Case("folded_header"),
    _Case("line_feeds_only"),
    _Case("claims_gzip"),
    _Case("offers_an_upgrade"),
    _Case("huge", reply=lambda body: body * 4),
    _Case("created"),
    _Case("no_content", reply=_nothing),
    _Case("no_content_and_a_length", reply=_nothing),
    _Case("empty", reply=_nothing),
    _Case("empty_and_chunked", reply=_nothing),
    _Case("empty_until_close", reply=_nothing),
    _Case("answers_early_then_reads", reply=_key, read=False),
    _Case("answers_early_and_closes", reply=_key, read=False),
    _Case("answers_early_and_reads_no_more", reply=_key, read=False),
    # What follows a long reply may come only when the next request is on its way.
    _Case("two_replies", sizes=_SMALL),
    _Case("garbage_after_reply", sizes=_SMALL),
    _Case("garbage_after_reply_that_closes"),
    _Case("garbage_after_chunks", sizes=_SMALL),
    _Case("length_too_short", reply=lambda body: body[:-3], sizes=_SMALL),
]
_STATUS = "Bad HTTP status received from algorithm: "
_REFUSED = [
    _Case("bad_request", "ClientError: 400", retries=3),
    _Case("too_large", "ClientError: 413", retries=3),
    _Case("too_many_requests", "ClientError: 429", retries=3),
    _Case("refuses_early_and_closes", "ClientError: 413", retries=3, read=False),
    _Case("refuses_early_and_reads_no_more", "ClientError: 413", retries=3, read=False),
    _Case("refuses_early_and_does_not_say_close", "ClientError: 413", retries=3, read=False),
    _Case("redirects", _STATUS + "307", retries=3),
    _Case("not_modified", _STATUS + "304", retries=3),
    # RFC 9110 §15: a status that is none is to be treated as 5xx.
    _Case("status_600", _STATUS + "600", 2, retries=1),
    _Case("error_with_a_trace", _STATUS + "500", 4, retries=3),
    _Case("error_that_closes", _STATUS + "503", 2, retries=1),
]
_NO_ANSWER = "Unable to get response from algorithm"
_LOST = [
    _Case("closes", _NO_ANSWER, 4, retries=3),
    _Case("resets", _NO_ANSWER, 1, retries=0),
    _Case("resets_unread", _NO_ANSWER, 2, retries=1, read=False),
    _Case("closes_in_status_line", _NO_ANSWER, 2, retries=1),
    _Case("closes_in_head", _NO_ANSWER, 2, retries=1),
    _Case("closes_after_100", _NO_ANSWER, 2, retries=1),
    _Case("closes_before_body", _NO_ANSWER, 2, retries=1),
    _Case("closes_in_body", _NO_ANSWER, 2, retries=1),
    _Case("resets_in_body", _NO_ANSWER, 2, retries=1),
    _Case("resets_until_close", _NO_ANSWER, 2, retries=1),
    _Case("closes_in_chunks", _NO_ANSWER, 2, retries=1),
    _Case("garbage", _NO_ANSWER, 2, retries=1),
    _Case("length_is_no_number", _NO_ANSWER, 2, retries=1),
    _Case("length_below_zero", _NO_ANSWER, 2, retries=1),
    _Case("length_beyond_64_bits", _NO_ANSWER, 2, retries=1),
    _Case("two_lengths", _NO_ANSWER, 2, retries=1),
    _Case("chunk_size_is_no_number", _NO_ANSWER, 2, retries=1),
    _Case("chunk_longer_than_it_says", _NO_ANSWER, 2, retries=1),
    _Case("switches_protocols", _NO_ANSWER, 2, retries=1),
]
_HEALED = [
    _Case("closes_once", calls=2, retries=1),
    _Case("resets_once", calls=2, retries=1),
    _Case("resets_unread_once", calls=2, retries=1, read=False),
    _Case("closes_in_head_once", calls=2, retries=1),
    _Case("closes_in_body_once", calls=2, retries=1),
    _Case("closes_in_chunks_once", calls=2, retries=1),
    _Case("errs_once", calls=2, retries=1),
    _Case("closes_after_error_once", calls=2, retries=1),
]


def _late(behaviour: str, *, read: bool = True) -> _Case:
    return _Case(behaviour, _NO_ANSWER, 2, retries=1, timeout_s=1, read=read)


def _late_once(behaviour: str, *, read: bool = True) -> _Case:
    # The requests that are well have longer, since the machine may be busy.
    return _Case(behaviour, calls=2, retries=1, timeout_s=2, only_first=True, read=read)


_LATE = [
    _late("stalls"),
    _late("stalls_unread", read=False),
    _late("stalls_in_status_line"),
    _late("stalls_in_head"),
    _late("stalls_in_body"),
    _late("stalls_in_chunks"),
    _late("keeps_a_body_without_length_open"),
    _late("drips_without_end"),
    _late("informs_without_end"),
    _late_once("stalls_once"),
    _late_once("stalls_unread_once", read=False),
    _late_once("stalls_in_head_once"),
    _late_once("stalls_in_body_once"),
]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    port = free_port()
    environment = {"BIND_HOST": "127.0.0.1", "SAGEMAKER_BIND_TO_PORT": str(port)}
    process = subprocess.Popen([sys.executable, "-IS", str(_SERVER)], env=environment)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> FolderStorage:
    root = tmp_path_factory.mktemp("s3")
    (root / "bkt").mkdir()
    storage = FolderStorage(root)
    for job in {job.prefix: job for job in _JOBS}.values():
        for name, lines in job.objects.items():
            storage.path("bkt", job.prefix + name).write_bytes(b"".join(lines))
    return storage


_NUMBERS = count()


class _Run:
    """One job of a case, and what came of it."""

    def __init__(
        self, case: _Case, job: _Job, storage: FolderStorage, container: Container
    ) -> None:
        self.job = job
        self.log = MemoryLog()
        self.number = str(next(_NUMBERS))
        self._storage = storage
        self._container = container
        self._spec = InstanceSpec(
            job=JobSpec(
                job_name="job",
                request=job.request(case, self.number),
                containers=(container,) * job.containers,
                work_dir=str(storage.root),
                s3_folder=str(storage.root),
                ping_timeout_s=30,
                server_stop_timeout_s=1,
                readings=Readings(bytes_in_mb=_SIZES.get(job.size, 2**20)),
            ),
            instance_id="i-1",
            instance_index=0,
            instance_count=1,
            started_at=0,
        )

    async def run(self) -> None:
        began = time.monotonic()
        self.result: InstanceResult = await run_instance(
            self._spec, storage=self._storage, log=self.log, stop=asyncio.Event()
        )
        self.took_s = time.monotonic() - began

    def take_outputs(self) -> dict[str, bytes]:
        """Read and remove the outputs, which are large."""
        outputs = {}
        for found in self._storage.list("bkt", f"out-{self.number}/"):
            path = self._storage.path("bkt", found.key)
            outputs[found.key.rpartition("/")[2].removesuffix(".out")] = path.read_bytes()
            path.unlink()
        return outputs

    def notes(self) -> list[str]:
        """What the server noted."""
        notes = f"{self._container.url}/notes/{self.number}"
        with urllib.request.urlopen(notes, timeout=10) as reply:
            return str(reply.read(), "ascii").splitlines()


def _run(
    cases: Sequence[_Case], jobs: Sequence[_Job], storage: FolderStorage, container: Container
) -> list[tuple[_Case, _Run]]:
    runs = [
        (case, _Run(case, job, storage, container))
        for case in cases
        for job in jobs
        if job.size in case.sizes
    ]

    async def all_at_once() -> None:
        async with asyncio.timeout(_LIMIT_S):
            await asyncio.gather(*(run.run() for _, run in runs))

    uvloop.run(all_at_once())
    return runs


def _problem(case: _Case, run: _Run) -> str | None:
    """What is wrong with a run, in one line; bodies are too long to be shown."""
    outputs, notes = run.take_outputs(), run.notes()
    calls = Counter(line.split()[1] for line in notes if line.startswith("call "))
    read = {line for line in notes if line.startswith("body ")}
    objects = {name: _sent(run.job, name) for name in run.job.objects}
    if not read <= {line for sent in objects.values() for line in sent.values()}:
        return "the server read what nobody sent"
    if case.reason is None:
        return _problem_of_whole(case, run, outputs, calls, objects) or (
            "not every body was read"
            if case.read and len(read) < sum(map(len, objects.values()))
            else None
        )
    if run.result.ok or run.result.failed != len(objects) or outputs:
        return f"every object must fail, got {_told(run)} and outputs {[*outputs]}"
    said = "\n".join(run.log.agent_lines)
    for name, sent in objects.items():
        if f"bkt/{run.job.prefix}{name}: {case.reason}" not in said:
            return f"the reason must be {case.reason!r}, got {said}"
        if calls[next(iter(sent))] != case.calls or max(calls[key] for key in sent) > case.calls:
            return f"the first request of {name} must be made {case.calls} times, got {calls}"
    if run.took_s < case.calls * case.timeout_s and case.timeout_s == 1:
        return f"every attempt has {case.timeout_s} s, got {run.took_s} s for {case.calls}"
    return None


def _told(run: _Run) -> str:
    return f"{run.result.failed} failed: {' '.join((run.result.detail or '').splitlines()[:1])}"


def _problem_of_whole(
    case: _Case,
    run: _Run,
    outputs: dict[str, bytes],
    calls: Counter[str],
    objects: dict[str, dict[str, str]],
) -> str | None:
    if not run.result.ok or outputs.keys() != objects.keys():
        return f"every object must be done, got {_told(run)} and outputs {[*outputs]}"
    for name, sent in objects.items():
        if outputs[name] != b"".join(map(case.reply, _bodies(run.job, name))):
            return f"{name} must have each reply once and in its place"
        for number, key in enumerate(sent):
            times = 1 if case.only_first and number else case.calls
            if calls[key] != times:
                return f"request {key} must be made {times} times, got {calls[key]}"
    if len(calls) > sum(map(len, objects.values())):
        return f"no other requests must be made, got {calls}"
    return None


def _problems(runs: list[tuple[_Case, _Run]]) -> list[str]:
    told = ((case, run, _problem(case, run)) for case, run in runs)
    return [f"{case}: {run.job}: {problem}" for case, run, problem in told if problem]


def _assert_no(problems: list[str]) -> None:
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("case", _SERVED, ids=str)
def test_every_request_is_made_once_and_every_reply_is_in_its_place(
    case: _Case, storage: FolderStorage, url: str
) -> None:
    _assert_no(_problems(_run([case], _JOBS, storage, Container(url=url))))


@pytest.mark.parametrize("case", _HEALED, ids=str)
def test_a_request_that_fails_once_is_made_twice(
    case: _Case, storage: FolderStorage, url: str
) -> None:
    _assert_no(_problems(_run([case], _JOBS, storage, Container(url=url))))


@pytest.mark.parametrize("case", [*_REFUSED, *_LOST], ids=str)
def test_an_object_whose_requests_fail_has_a_reason_and_no_output(
    case: _Case, storage: FolderStorage, url: str
) -> None:
    _assert_no(_problems(_run([case], _JOBS, storage, Container(url=url))))


def test_a_reply_that_does_not_end_in_time_is_given_up_and_asked_for_again(
    storage: FolderStorage, url: str, subtests: pytest.Subtests
) -> None:
    runs = _run(_LATE, _FEW_JOBS, storage, Container(url=url))
    for case in _LATE:
        with subtests.test(str(case)):
            _assert_no(_problems([pair for pair in runs if pair[0] == case]))


@pytest.mark.parametrize("job", [_JOBS[2], _JOBS[-1]], ids=str)
def test_when_the_server_dies_every_object_fails(job: _Job, storage: FolderStorage) -> None:
    case = _Case("dies", retries=3)
    server = Container(command=(sys.executable, "-IS", str(_SERVER)), cwd=os.getcwd())
    ((_, run),) = _run([case], [job], storage, server)
    assert (run.result.ok, run.result.failed, run.take_outputs()) == (False, 2, {})
    said = "\n".join(run.log.agent_lines)
    assert said.count(_NO_ANSWER) == 2
