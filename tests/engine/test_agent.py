import asyncio
import base64
import gzip
import json
import re
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from transform_engine.agent import Event, InstanceResult, internal_error, run_instance
from transform_engine.data_log import MemoryLog
from transform_engine.spec import Container, InstanceSpec, JobSpec, Readings
from transform_engine.storage import FolderStorage, StoredObject, write_object

_Request = Callable[..., dict[str, Any]]
_Containers = Callable[..., Container]
_Job = Callable[..., JobSpec]
_Calls = Callable[[Container], list[dict[str, Any]]]


def _write(bucket: FolderStorage, key: str, content: bytes) -> None:
    asyncio.run(write_object(bucket, "bkt", key, content))


def _outputs(bucket: FolderStorage) -> dict[str, bytes]:
    return {
        found.key: bucket.path("bkt", found.key).read_bytes()
        for found in bucket.list("bkt", "out/")
    }


def _instance_of(job: JobSpec) -> InstanceSpec:
    return InstanceSpec(
        job=job, instance_id="i-1", instance_index=0, instance_count=1, started_at=1661820555
    )


def _run(
    job: JobSpec,
    bucket: FolderStorage,
    *,
    stop_after_s: float | None = None,
) -> tuple[InstanceResult, MemoryLog]:
    log = MemoryLog()
    spec = _instance_of(job)

    async def scenario() -> InstanceResult:
        stop = asyncio.Event()
        if stop_after_s is not None:
            asyncio.get_running_loop().call_later(stop_after_s, stop.set)
        return await run_instance(spec, storage=bucket, log=log, stop=stop)

    return asyncio.run(scenario()), log


def test_one_failed_object_does_not_fail_the_others(
    request_for: _Request, container: _Containers, job_for: _Job, bucket: FolderStorage
) -> None:
    for name in ("a", "b", "c"):
        _write(bucket, f"in/{name}.csv", b"x\n" if name == "b" else b"1\n")
    model = container(
        script=[
            {"match_body": "x", "status": 400, "body": "cannot\nread x"},
            {"status": 200, "body": "ok"},
        ]
    )
    result, log = _run(job_for(request_for(), [model]), bucket)
    assert _outputs(bucket) == {"out/a.csv.out": b"ok\n", "out/c.csv.out": b"ok\n"}
    assert (result.ok, result.done, result.failed) == (False, 2, 1)
    assert result.failure_reason == "ClientError: See job logs for more information"
    assert "bkt/in/b.csv: record 0: ClientError: 400 Message: cannot read x" in (
        result.detail or ""
    )
    prefix = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}:\[sagemaker logs\]: ")
    assert all(prefix.match(line) for line in log.agent_lines)
    assert [prefix.sub("", line) for line in log.agent_lines] == [
        "MaxConcurrentTransforms=1, MaxPayloadInMB=6, BatchStrategy=MULTI_RECORD",
        "bkt/in/b.csv: ClientError: 400",
        "bkt/in/b.csv: ",
        "bkt/in/b.csv: Message:",
        "bkt/in/b.csv: cannot",
        "bkt/in/b.csv: read x",
    ]


@pytest.mark.parametrize(
    ("rule", "retries", "attempts", "line"),
    [
        pytest.param(
            {"status": 503}, 2, 3, "Bad HTTP status received from algorithm: 503", id="5xx"
        ),
        pytest.param(
            {"status": 302}, 2, 1, "Bad HTTP status received from algorithm: 302", id="3xx"
        ),
        pytest.param({"status": 429}, 2, 1, "ClientError: 429", id="4xx"),
        pytest.param({"drop": True}, 1, 2, "Unable to get response from algorithm", id="lost"),
        pytest.param({"hang": True}, 1, 2, "Unable to get response from algorithm", id="late"),
    ],
)
def test_only_what_may_go_right_is_tried_again(
    rule: dict[str, Any],
    retries: int,
    attempts: int,
    line: str,
    request_for: _Request,
    container: _Containers,
    job_for: _Job,
    bucket: FolderStorage,
    invocations: _Calls,
) -> None:
    _write(bucket, "in/a.csv", b"1")
    model = container(script=[rule])
    client = {"InvocationsTimeoutInSeconds": 1, "InvocationsMaxRetries": retries}
    _, log = _run(job_for(request_for(ModelClientConfig=client), [model]), bucket)
    assert len(invocations(model)) == attempts
    assert any(said.endswith(f"bkt/in/a.csv: {line}") for said in log.agent_lines)
    assert _outputs(bucket) == {}


def test_a_5xx_can_be_read_as_final(
    request_for: _Request,
    container: _Containers,
    job_for: _Job,
    bucket: FolderStorage,
    invocations: _Calls,
) -> None:
    _write(bucket, "in/a.csv", b"1")
    model = container(script=[{"status": 500, "times": 1}, {"status": 200}])
    job = job_for(request_for(), [model], readings=Readings(retry_5xx=False))
    result, _ = _run(job, bucket)
    assert len(invocations(model)) == 1
    assert result.failure_reason == "AlgorithmError: See job logs for more information"


@pytest.mark.parametrize("concurrent", [1, 3])
def test_no_more_requests_are_open_than_allowed_over_all_objects(
    concurrent: int,
    request_for: _Request,
    container: _Containers,
    job_for: _Job,
    bucket: FolderStorage,
    invocations: _Calls,
) -> None:
    for name in range(5):
        _write(bucket, f"in/{name}.csv", b"1\n2\n3\n")
    model = container("echo", hold_s=0.02)
    request = request_for(MaxConcurrentTransforms=concurrent, BatchStrategy="SingleRecord")
    result, _ = _run(job_for(request, [model]), bucket)
    calls = invocations(model)
    assert result.ok
    assert len(calls) == 15
    assert max(call["open"] for call in calls) == concurrent
    assert {*_outputs(bucket).values()} == {b"1\n2\n3\n"}


def test_after_a_failure_the_rest_of_the_object_is_not_sent(
    request_for: _Request,
    container: _Containers,
    job_for: _Job,
    bucket: FolderStorage,
    invocations: _Calls,
) -> None:
    _write(bucket, "in/a.csv", b"x\n" + b"1\n" * 500)
    model = container(script=[{"match_body": "x", "status": 400}, {"status": 200}])
    _run(job_for(request_for(BatchStrategy="SingleRecord"), [model]), bucket)
    assert len(invocations(model)) == 1


def test_an_empty_object_has_an_empty_output_and_makes_no_request(
    request_for: _Request,
    container: _Containers,
    job_for: _Job,
    bucket: FolderStorage,
    invocations: _Calls,
) -> None:
    _write(bucket, "in/", b"")
    _write(bucket, "in/empty", b"")
    model = container("echo")
    result, _ = _run(job_for(request_for(), [model]), bucket)
    assert result.ok
    assert _outputs(bucket) == {"out/empty.out": b""}
    assert invocations(model) == []


def test_gzip_is_unpacked_and_the_output_keeps_the_whole_name(
    request_for: _Request, container: _Containers, job_for: _Job, bucket: FolderStorage
) -> None:
    _write(bucket, "in/a.csv.gz", gzip.compress(b"1\n") + gzip.compress(b"2\n"))
    _write(bucket, "in/bad.gz", b"1\n2\n")
    _write(bucket, "in/cut.gz", gzip.compress(b"1\n" * 1000)[:-9])
    _write(bucket, "in/none.gz", gzip.compress(b""))
    request = request_for(TransformInput={"CompressionType": "Gzip"})
    result, log = _run(job_for(request, [container("echo_rstrip")]), bucket)
    assert _outputs(bucket) == {"out/a.csv.gz.out": b"1\n2\n", "out/none.gz.out": b""}
    assert result.failed == 2
    assert sum("Failed to decompress input as Gzip" in line for line in log.agent_lines) == 2


@pytest.mark.parametrize("split", ["None", "Line"])
def test_without_a_payload_limit_an_object_is_streamed_in_one_chunked_request(
    split: str,
    request_for: _Request,
    container: _Containers,
    job_for: _Job,
    bucket: FolderStorage,
    invocations: _Calls,
) -> None:
    _write(bucket, "in/a.csv", b"1,2\n" * 2_000_000)
    model = container("byte_len")
    request = request_for(MaxPayloadInMB=0, TransformInput={"SplitType": split})
    result, _ = _run(job_for(request, [model]), bucket)
    assert result.ok
    assert _outputs(bucket) == {"out/a.csv.out": b"8000000\n"}
    (call,) = invocations(model)
    assert call["headers"]["transfer-encoding"] == "chunked"


def test_failed_objects_leave_nothing_in_memory(
    request_for: _Request, container: _Containers, job_for: _Job, bucket: FolderStorage
) -> None:
    for name in range(20):
        _write(bucket, f"in/{name}.csv", b"1\n" * 1_000_000)
    model = container(script=[{"status": 400, "body": "no"}])
    tracemalloc.start()
    try:
        result, _ = _run(job_for(request_for(), [model]), bucket)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert result.failed == 20
    assert peak < 20_000_000, "one payload is 2 MB"


def test_a_large_object_goes_through_in_little_memory(
    request_for: _Request, container: _Containers, job_for: _Job, bucket: FolderStorage
) -> None:
    _write(bucket, "in/a.csv", b"1,2,3\n" * 10_000_000)
    tracemalloc.start()
    try:
        request = request_for(MaxPayloadInMB=1)
        result, _ = _run(job_for(request, [container("byte_len")]), bucket)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert result.ok
    assert sum(map(int, _outputs(bucket)["out/a.csv.out"].split())) == 60_000_000
    assert peak < 20_000_000


def test_a_long_error_of_the_model_is_cut(
    request_for: _Request, container: _Containers, job_for: _Job, bucket: FolderStorage
) -> None:
    _write(bucket, "in/a.csv", b"1\n")
    model = container(script=[{"status": 400, "body": "x" * 3_000_000}])
    result, log = _run(job_for(request_for(), [model]), bucket)
    assert max(map(len, log.agent_lines)) < 100_000
    assert len(result.detail or "") < 10_000


def test_headers_are_sent_verbatim_and_only_if_the_job_has_them(
    request_for: _Request,
    container: _Containers,
    job_for: _Job,
    bucket: FolderStorage,
    invocations: _Calls,
) -> None:
    _write(bucket, "in/a.csv", b"1")
    first, second = container("echo"), container("echo")
    request = request_for()
    _run(job_for(request, [first]), bucket)
    del request["TransformInput"]["ContentType"], request["TransformOutput"]["Accept"]
    _run(job_for(request, [second]), bucket)
    (with_both,), (with_none,) = invocations(first), invocations(second)
    assert with_both["headers"]["content-type"] == with_both["headers"]["accept"] == "text/csv"
    assert with_both["headers"]["user-agent"] == "Go-http-client/1.1"
    assert not {"content-type", "accept"} & {*with_none["headers"]}


def test_a_pipeline_hands_each_reply_and_its_type_to_the_next(
    request_for: _Request,
    container: _Containers,
    job_for: _Job,
    bucket: FolderStorage,
    invocations: _Calls,
) -> None:
    _write(bucket, "in/a.csv", b"1,2")
    first = container(script=[{"body": "[3]", "content_type": "application/json"}])
    second = container(script=[{"container": 1, "match_body": "[3]", "body": "6"}])
    result, _ = _run(job_for(request_for(), [first, second]), bucket)
    assert result.ok
    assert _outputs(bucket) == {"out/a.csv.out": b"6\n"}
    (call,) = invocations(second)
    assert call["headers"]["content-type"] == "application/json"
    assert "accept" not in invocations(first)[0]["headers"]


def test_a_stopped_instance_leaves_nothing_half_and_no_server(
    request_for: _Request, container: _Containers, job_for: _Job, bucket: FolderStorage
) -> None:
    _write(bucket, "in/a.csv", b"1\n2\n")
    model = container(script=[{"match_body": "1", "body": "ok"}, {"hang": True}])
    job = job_for(request_for(BatchStrategy="SingleRecord"), [model])
    began = time.monotonic()
    result, _ = _run(job, bucket, stop_after_s=1)
    assert result.stopped
    assert time.monotonic() - began < 5
    assert _outputs(bucket) == {}


def test_when_its_caller_gives_up_the_servers_of_an_instance_end(
    request_for: _Request, container: _Containers, job_for: _Job, bucket: FolderStorage
) -> None:
    _write(bucket, "in/a.csv", b"1\n")
    model = container(script=[{"hang": True}])
    spec = _instance_of(job_for(request_for(), [model]))

    async def scenario() -> None:
        run = run_instance(spec, storage=bucket, log=MemoryLog(), stop=asyncio.Event())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(run, 1)
        # Now, and not when the loop ends: the caller may go on for long.
        assert not [command for command in _commands() if model.cwd in command]

    asyncio.run(scenario())


def _commands() -> Iterator[str]:
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield entry.read_bytes().decode(errors="replace")
        except OSError:
            continue  # It has just ended.


@pytest.mark.parametrize("name", ["started", "object"])
def test_what_nobody_foresaw_is_one_line_of_the_data_log(
    name: str,
    request_for: _Request,
    container: _Containers,
    job_for: _Job,
    bucket: FolderStorage,
) -> None:
    _write(bucket, "in/a.csv", b"1\n")
    log = MemoryLog()

    def fail(event: Event) -> None:
        if event["event"] == name:
            raise RuntimeError("the pipe\nbroke")

    run = run_instance(
        _instance_of(job_for(request_for(), [container("echo")])),
        storage=bucket,
        log=log,
        stop=asyncio.Event(),
        on_event=fail,
    )
    with pytest.raises((RuntimeError, ExceptionGroup)) as raised:
        asyncio.run(_await(run))
    assert isinstance(raised.value, Exception)
    result = internal_error(raised.value)
    assert (result.failure_reason or "").startswith("InternalServerError")
    assert "RuntimeError('the pipe\\nbroke')" in (result.detail or "")
    lines = [line for line in log.agent_lines if line.endswith(f": {result.detail}")]
    assert len(lines) == 1


async def _await(run: Any) -> Any:
    return await run


class _Unlistable(FolderStorage):
    def list(self, bucket: str, prefix: str) -> Iterator[StoredObject]:
        raise PermissionError("AccessDenied")


@pytest.mark.parametrize(
    ("storage", "changes", "reason", "line"),
    [
        pytest.param(
            _Unlistable,
            {},
            "ClientError",
            "the input must be readable, got PermissionError",
            id="in",
        ),
        pytest.param(
            FolderStorage,
            {"TransformOutput": {"S3OutputPath": "https://bkt/out"}},
            "ClientError",
            "S3OutputPath: an object's URI must start with s3://",
            id="out",
        ),
        pytest.param(
            FolderStorage,
            {"DataCaptureConfig": {"DestinationS3Uri": "s3://no bucket/x"}},
            "InternalServerError",
            "the data capture: a bucket's name must be letters",
            id="capture",
        ),
    ],
)
def test_an_instance_that_cannot_read_or_write_says_where(
    storage: type[FolderStorage],
    changes: dict[str, Any],
    reason: str,
    line: str,
    request_for: _Request,
    container: _Containers,
    job_for: _Job,
    bucket: FolderStorage,
) -> None:
    _write(bucket, "in/a.csv", b"1\n")
    job = job_for(request_for(**changes), [container("echo")])
    result, log = _run(job, storage(bucket.root))
    assert (result.failure_reason or "").startswith(reason)
    assert any(line in said for said in log.agent_lines)


def test_a_missing_object_of_a_manifest_fails_alone(
    request_for: _Request, container: _Containers, job_for: _Job, bucket: FolderStorage
) -> None:
    _write(bucket, "in/a.csv", b"1\n")
    _write(bucket, "m.json", json.dumps([{"prefix": "s3://bkt/in/"}, "a.csv", "gone.csv"]).encode())
    source = {"S3DataSource": {"S3DataType": "ManifestFile", "S3Uri": "s3://bkt/m.json"}}
    request = request_for(TransformInput={"DataSource": source})
    result, log = _run(job_for(request, [container("echo_rstrip")]), bucket)
    assert _outputs(bucket) == {"out/a.csv.out": b"1\n"}
    assert result.failed == 1
    assert any(
        "bkt/in/gone.csv: " in line and "must be readable, got no such file" in line
        for line in log.agent_lines
    )


def test_progress_is_told_while_an_object_lasts(
    request_for: _Request, container: _Containers, job_for: _Job, bucket: FolderStorage
) -> None:
    _write(bucket, "in/a.csv", b"1\n2\n3\n")
    model = container(script=[{"match_body": "3", "delay_ms": 1300}, {"status": 200}])
    told: list[Event] = []
    run = run_instance(
        _instance_of(job_for(request_for(BatchStrategy="SingleRecord"), [model])),
        storage=bucket,
        log=MemoryLog(),
        stop=asyncio.Event(),
        on_event=told.append,
    )
    assert asyncio.run(_await(run)).ok
    assert {"event": "progress", "bytes": 6, "records": 2} in told
    assert told[-1]["records"] == 3


def _json_request(request_for: _Request, **processing: str) -> dict[str, Any]:
    return request_for(
        TransformInput={"ContentType": "application/jsonlines"},
        TransformOutput={"Accept": "application/jsonlines"},
        DataProcessing=processing,
    )


def test_json_that_is_no_object_is_joined_beside_the_reply(
    request_for: _Request, container: _Containers, job_for: _Job, bucket: FolderStorage
) -> None:
    _write(bucket, "in/a", b'[1, 2]\n"text"\n')
    request = _json_request(request_for, JoinSource="Input")
    result, _ = _run(job_for(request, [container("json_label")]), bucket)
    assert result.ok
    assert _outputs(bucket)["out/a.out"] == (
        b'{"SageMakerInput":[1,2],"SageMakerOutput":{"label":1}}\n'
        b'{"SageMakerInput":"text","SageMakerOutput":{"label":1}}\n'
    )


def test_a_join_has_one_reply_line_for_each_record_over_several_requests(
    request_for: _Request,
    container: _Containers,
    job_for: _Job,
    bucket: FolderStorage,
    invocations: _Calls,
) -> None:
    rows = [f"{number},{'x' * 400_000}" for number in range(5)]
    _write(bucket, "in/a.csv", "\n".join(rows).encode())
    model = container("csv_count")
    request = request_for(
        MaxPayloadInMB=1, DataProcessing={"JoinSource": "Input", "OutputFilter": "$[0,-1]"}
    )
    result, _ = _run(job_for(request, [model]), bucket)
    assert result.ok
    assert _outputs(bucket)["out/a.csv.out"] == b"0,2\n1,2\n2,2\n3,2\n4,2\n"
    assert [base64.b64decode(c["body"]).count(b",") for c in invocations(model)] == [2, 2, 1]


@pytest.mark.parametrize("limit", [6, 0])
def test_replies_alone_are_filtered_row_by_row(
    limit: int, request_for: _Request, container: _Containers, job_for: _Job, bucket: FolderStorage
) -> None:
    _write(bucket, "in/a.csv", b"1,2\n3,4\n")
    request = request_for(
        MaxPayloadInMB=limit,
        TransformOutput={"Accept": "application/jsonlines"},
        DataProcessing={"OutputFilter": "$.label"},
    )
    result, _ = _run(job_for(request, [container("json_label")]), bucket)
    assert result.ok
    assert _outputs(bucket) == {"out/a.csv.out": b"1\n1\n"}


def test_inference_ids_are_members_of_json_and_captures_name_the_objects(
    request_for: _Request, container: _Containers, job_for: _Job, bucket: FolderStorage
) -> None:
    _write(bucket, "in/a", b"{}\n{}\n")
    capture = {"DestinationS3Uri": "s3://bkt/cap/", "GenerateInferenceId": True}
    request = _json_request(request_for) | {"DataCaptureConfig": capture}
    result, _ = _run(job_for(request, [container("json_label")]), bucket)
    assert result.ok
    lines = [json.loads(line) for line in _outputs(bucket)["out/a.out"].splitlines()]
    assert [line["label"] for line in lines] == [1, 1]
    assert {line["SageMakerInferenceTime"] for line in lines} == {"2022-08-30T00:49:15Z"}
    assert len({line["SageMakerInferenceId"] for line in lines}) == 2
    captured = {found.key.rsplit("/", 1)[0]: found.key for found in bucket.list("bkt", "cap/")}
    assert {*captured} == {"cap/input/2022/08/30/00", "cap/output/2022/08/30/00"}
    read = {side: json.loads(bucket.path("bkt", key).read_text()) for side, key in captured.items()}
    assert read["cap/input/2022/08/30/00"] == [{"prefix": "s3://bkt/in/"}, "a"]
    assert read["cap/output/2022/08/30/00"] == [{"prefix": "s3://bkt/out/"}, "a.out"]


@pytest.mark.parametrize(
    ("processing", "content", "line"),
    [
        pytest.param(
            {"OutputFilter": "$[0:2,246:]"}, b"1,2", "Invalid JsonPath: $[0:2,246:]", id="ranges"
        ),
        pytest.param({"InputFilter": "$[7]"}, b"1,2", "index 7 is outside a row of 2", id="index"),
        pytest.param(
            {"InputFilter": "$[1:]"},
            b'1,"a',
            'Failed to parse input as CSV: unterminated "',
            id="csv",
        ),
        pytest.param(
            {"JoinSource": "Input"},
            b'1,"a',
            'Failed to parse input as CSV: unterminated "',
            id="join",
        ),
    ],
)
def test_an_object_that_cannot_be_filtered_or_joined_is_never_sent(
    processing: dict[str, str],
    content: bytes,
    line: str,
    request_for: _Request,
    container: _Containers,
    job_for: _Job,
    bucket: FolderStorage,
    invocations: _Calls,
) -> None:
    _write(bucket, "in/a.csv", content)
    model = container("echo")
    result, log = _run(job_for(request_for(DataProcessing=processing), [model]), bucket)
    assert result.failure_reason == "ClientError: See job logs for more information"
    assert invocations(model) == []
    assert any(line in said for said in log.agent_lines)


def test_a_filter_cannot_look_into_framed_records_that_go_together(
    request_for: _Request, container: _Containers, job_for: _Job, bucket: FolderStorage
) -> None:
    _write(bucket, "in/a", b"anything")
    request = request_for(
        TransformInput={"SplitType": "TFRecord"}, DataProcessing={"InputFilter": "$[1:]"}
    )
    result, log = _run(job_for(request, [container("echo")]), bucket)
    assert result.failed == 1
    assert any("BatchStrategy must be SingleRecord" in line for line in log.agent_lines)
