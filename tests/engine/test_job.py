import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest

import transform_engine
from transform_engine.job import JobResult, TransformJob
from transform_engine.spec import Container, InstanceSpec, JobSpec
from transform_engine.storage import FolderStorage, write_object

_Request = Callable[..., dict[str, Any]]
_Containers = Callable[..., Container]
_Job = Callable[..., JobSpec]


def _write(bucket: FolderStorage, key: str, content: bytes) -> None:
    asyncio.run(write_object(bucket, "bkt", key, content))


def _processes_below(folder: str) -> list[int]:
    """Processes whose command line names something of a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue  # It has just ended.
            if folder in command:
                found.append(int(entry.name))
    return found


def _wait_for(events: list[Mapping[str, Any]], name: str) -> None:
    deadline = time.monotonic() + 20
    while not any(event["event"] == name for event in events):
        assert time.monotonic() < deadline, f"event {name} must come"
        time.sleep(0.02)


def _kill_instances(folder: str) -> None:
    for pid in _processes_below(folder):
        if b"transform_engine.instance" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)


def test_a_job_deals_its_objects_out_and_completes(
    request_for: _Request,
    container: _Containers,
    job_for: _Job,
    bucket: FolderStorage,
    tmp_path: Path,
) -> None:
    for name in range(5):
        _write(bucket, f"in/{name}", b"1\n")
    events: list[Mapping[str, Any]] = []
    request = request_for(TransformResources={"InstanceCount": 9})
    spec = job_for(request, [container("echo_rstrip")], max_instances=2)
    job = TransformJob(spec, on_event=events.append)
    job.start()
    assert job.wait(30) == JobResult(status="Completed", done=5)
    assert sorted(e["key"] for e in events if e["event"] == "object") == [
        f"in/{name}" for name in range(5)
    ]
    shares = [
        sum(e["event"] == "object" and e["instance_id"] == each for e in events)
        for each in {e["instance_id"] for e in events}
    ]
    assert sorted(shares) == [2, 3]
    assert [each.key for each in bucket.list("bkt", "out/")] == [f"out/{n}.out" for n in range(5)]
    assert _processes_below(str(tmp_path)) == []
    assert [*Path(spec.work_dir).iterdir()] == []


def _files_request(request_for: _Request, tmp_path: Path, **changes: Any) -> dict[str, Any]:
    """Make a request that reads the folder `in put` and writes the folder `out put`."""
    source = {"S3DataType": "S3Prefix", "S3Uri": f"{(tmp_path / 'in put').as_uri()}/"}
    return request_for(
        TransformInput={"DataSource": {"S3DataSource": source}},
        TransformOutput={"S3OutputPath": (tmp_path / "out put").as_uri()},
        **changes,
    )


def _lay(tmp_path: Path, **files: str) -> None:
    (tmp_path / "in put").mkdir()
    for name, content in files.items():
        (tmp_path / "in put" / name).write_text(content)


def _outputs(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "out put").rglob("*"))


def test_no_object_is_lost_when_others_arrive_while_the_job_starts(
    request_for: _Request, container: _Containers, job_for: _Job, tmp_path: Path
) -> None:
    names = [f"a{number}" for number in range(20)]
    _lay(tmp_path, **dict.fromkeys(names, "1\n"))
    events: list[Mapping[str, Any]] = []
    request = _files_request(request_for, tmp_path, TransformResources={"InstanceCount": 2})
    spec = job_for(request, [container("echo_rstrip")], max_instances=2, ping_timeout_s=30)
    job = TransformJob(spec, on_event=events.append)
    job.start()
    for late in range(1000):
        if sum(event["event"] == "started" for event in events) == 2:
            break
        (tmp_path / "in put" / f"{late:03}").write_text("2\n")  # Sorts before the others.
        time.sleep(0.005)
    result = job.wait(30)
    assert result.status == "Completed", result
    transformed = [
        event["key"].rpartition("/")[2] for event in events if event["event"] == "object"
    ]
    assert len(transformed) == len({*transformed})
    assert {*names} <= {*transformed}
    assert [*Path(spec.work_dir).iterdir()] == []


def test_an_object_that_cannot_be_read_fails_alone(
    request_for: _Request, container: _Containers, job_for: _Job, tmp_path: Path
) -> None:
    _lay(tmp_path, a="1\n", c="2\n")
    (tmp_path / "in put" / "b").symlink_to("nothing")
    job = TransformJob(job_for(_files_request(request_for, tmp_path), [container("echo_rstrip")]))
    job.start()
    result = job.wait(30)
    assert (result.status, result.done, result.failed) == ("Failed", 2, 1)
    assert result.failure_reason == "ClientError: See job logs for more information"
    path = f"{tmp_path}/in put/b"
    assert result.failures == (
        (path[1:], f"{path} must be readable, got no such file or directory; check what is there"),
    )
    assert _outputs(tmp_path) == ["a.out", "c.out"]


def test_an_object_whose_name_no_file_can_have_fails_alone(
    request_for: _Request,
    container: _Containers,
    job_for: _Job,
    bucket: FolderStorage,
    tmp_path: Path,
) -> None:
    for name in "../up", "a//b", "fine":
        _write(bucket, f"in/{name}", b"1\n")
    request = request_for(TransformOutput={"S3OutputPath": (tmp_path / "out put").as_uri()})
    job = TransformJob(job_for(request, [container("echo_rstrip")]))
    job.start()
    result = job.wait(30)
    assert (result.status, result.done, result.failed) == ("Failed", 1, 2)
    assert [key for key, _ in result.failures] == ["in/../up", "in/a//b"]
    assert all("must have only names between" in reason for _, reason in result.failures)
    assert _outputs(tmp_path) == ["fine.out"]


def test_an_object_that_changes_while_it_is_read_fails(
    request_for: _Request, container: _Containers, job_for: _Job, tmp_path: Path
) -> None:
    _lay(tmp_path, a="1\n" * 200)

    def change(event: Mapping[str, Any]) -> None:
        if event["event"] == "started":
            time.sleep(0.2)  # It is open now, and has two seconds of work.
            (tmp_path / "in put" / "a").write_text("2\n" * 200)

    model = container(script=[{"body": "ok", "delay_ms": 10}])
    request = _files_request(request_for, tmp_path, BatchStrategy="SingleRecord")
    job = TransformJob(job_for(request, [model]), on_event=change)
    job.start()
    result = job.wait(30)
    assert (result.status, result.failed) == ("Failed", 1)
    ((_, reason),) = result.failures
    assert "must not change while it is read" in reason
    assert _outputs(tmp_path) == []


def test_a_full_disk_fails_the_objects_that_do_not_fit(
    request_for: _Request,
    container: _Containers,
    job_for: _Job,
    tmp_path: Path,
    small_disk: Path,
) -> None:
    _lay(tmp_path, a="1\n", b="2" * 2_000_000, c="3\n")
    request = _files_request(request_for, tmp_path)
    request["TransformOutput"]["S3OutputPath"] = small_disk.as_uri()
    job = TransformJob(job_for(request, [container("echo_rstrip")]))
    job.start()
    result = job.wait(30)
    assert (result.status, result.done, result.failed) == ("Failed", 2, 1)
    ((key, reason),) = result.failures
    assert key.endswith("/in put/b")
    assert "no space left on device; free some space" in reason
    assert sorted(path.name for path in small_disk.iterdir()) == ["a.out", "c.out"]


_HALF = [{"match_body": "1", "body": "1" * 400_000}, {"hang": True}]


@pytest.mark.parametrize("end", ["killed", "stopped"])
def test_however_a_job_ends_it_leaves_no_half_made_file(
    request_for: _Request,
    container: _Containers,
    job_for: _Job,
    tmp_path: Path,
    end: str,
) -> None:
    _lay(tmp_path, a="1\n", b="1\n2\n")
    events: list[Mapping[str, Any]] = []
    request = _files_request(request_for, tmp_path, BatchStrategy="SingleRecord")
    spec = job_for(request, [container(script=_HALF)])
    job = TransformJob(spec, on_event=events.append)
    job.start()
    _wait_for(events, "object")
    deadline = time.monotonic() + 10
    while not [*(tmp_path / "out put").glob(".transform-*")]:
        assert time.monotonic() < deadline, "half of b must be written"
        time.sleep(0.02)
    if end == "stopped":
        job.stop()
        assert job.wait(30).status == "Stopped"
        assert _outputs(tmp_path) == []
    else:
        _kill_instances(str(tmp_path))
        assert job.wait(30).status == "Failed"
        assert _outputs(tmp_path) == ["a.out"]
    assert [*Path(spec.work_dir).iterdir()] == []


def _writers(folder: str) -> list[int]:
    """The processes that make small files for the instances of a folder's jobs."""
    return [
        pid
        for pid in _processes_below("file_writer.py")
        if folder in Path(f"/proc/{_parent(pid)}/cmdline").read_text()
    ]


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.parametrize("end", ["killed", "stopped", "completed"])
def test_however_a_job_of_many_small_objects_ends_each_has_its_output_or_none(
    request_for: _Request, container: _Containers, job_for: _Job, tmp_path: Path, end: str
) -> None:
    count = 1500
    _lay(tmp_path, **{f"{number:04}": f"{number}" for number in range(count)})
    events: list[Mapping[str, Any]] = []
    request = _files_request(request_for, tmp_path, MaxConcurrentTransforms=16)
    request["TransformInput"]["SplitType"] = "None"
    request["TransformOutput"]["AssembleWith"] = "None"
    spec = job_for(request, [container("echo")])
    job = TransformJob(spec, on_event=events.append)
    job.start()
    deadline = time.monotonic() + 20
    while not (writers := _writers(str(tmp_path))):
        assert time.monotonic() < deadline, "there must be a process that makes the files"
        time.sleep(0.01)
    if end == "stopped":
        job.stop()
    elif end == "killed":
        _kill_instances(str(tmp_path))
    result = job.wait(30)
    outputs = {path.name: path.read_text() for path in (tmp_path / "out put").iterdir()}
    told = {Path(e["output"]).name for e in events if e["event"] == "object" and e["ok"]}
    every = {f"{number:04}.out": f"{number}" for number in range(count)}
    match end:
        case "stopped":
            assert (result.status, outputs) == ("Stopped", {})
        case "killed":
            assert result.status == "Failed"
            assert told <= outputs.keys()
            assert outputs.items() <= every.items()
        case _:
            assert (result.status, result.done) == ("Completed", count)
            assert outputs == every
            assert told == every.keys()
    assert not {*writers} & {*_processes_below("file_writer.py")}
    assert [*Path(spec.work_dir).iterdir()] == []


def test_a_stop_that_cannot_remove_what_was_written_says_so(
    request_for: _Request, container: _Containers, job_for: _Job, tmp_path: Path
) -> None:
    _lay(tmp_path, a="1\n", b="2\n")
    events: list[Mapping[str, Any]] = []
    model = container(script=[{"match_body": "1", "body": "ok"}, {"hang": True}])
    request = _files_request(request_for, tmp_path)
    job = TransformJob(job_for(request, [model]), on_event=events.append)
    job.start()
    _wait_for(events, "object")
    output = tmp_path / "out put" / "a.out"
    output.unlink()
    output.mkdir()
    job.stop()
    result = job.wait(30)
    assert result.status == "Stopped"
    assert f"must be removable, got: {output} must be writable, got is a" in (result.detail or "")


def test_a_job_that_is_stopped_before_it_starts_stops(
    request_for: _Request, container: _Containers, job_for: _Job, tmp_path: Path
) -> None:
    _lay(tmp_path, a="1\n")
    spec = job_for(_files_request(request_for, tmp_path), [container(script=[{"hang": True}])])
    job = TransformJob(spec)
    job.stop()
    job.start()
    assert job.wait(10).status == "Stopped"
    assert [*Path(spec.work_dir).iterdir()] == []


def test_a_job_that_cannot_start_its_processes_leaves_nothing(
    request_for: _Request, job_for: _Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no python"))
    spec = job_for(_files_request(request_for, tmp_path), [Container(command=("true",))])
    with pytest.raises(FileNotFoundError, match="no python"):
        TransformJob(spec).start()
    assert [*Path(spec.work_dir).iterdir()] == []


def test_what_a_library_prints_is_no_event(
    request_for: _Request,
    container: _Containers,
    job_for: _Job,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _lay(tmp_path, a="1\n")
    (tmp_path / "noise").mkdir()
    noise = "for each in '1', 'null', '[]', 'no JSON', '{}': print(each, flush=True)"
    (tmp_path / "noise" / "sitecustomize.py").write_text(noise)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "noise"))
    events: list[Mapping[str, Any]] = []
    spec = job_for(_files_request(request_for, tmp_path), [container("echo_rstrip")])
    job = TransformJob(spec, on_event=events.append)
    job.start()
    assert job.wait(30) == JobResult(status="Completed", done=1)
    assert [event["event"] for event in events] == ["started", "object", "ended"]


def test_a_failed_job_says_why_with_the_last_lines_of_the_server(
    request_for: _Request, job_for: _Job, bucket: FolderStorage, tmp_path: Path
) -> None:
    _write(bucket, "in/a", b"1\n")
    broken = Container(command=("sh", "-c", "echo no model >&2; exit 3"), cwd=str(tmp_path))
    job = TransformJob(job_for(request_for(), [broken]))
    job.start()
    result = job.wait(30)
    assert result.status == "Failed"
    assert (result.failure_reason or "").startswith("AlgorithmError: Model container failed to res")
    assert "got exit code 3; its last log lines:\nno model" in (result.detail or "")


def test_a_failed_job_names_the_objects_that_failed(
    request_for: _Request, container: _Containers, job_for: _Job, bucket: FolderStorage
) -> None:
    for name, content in {"a": b"1\n", "b": b"x\n", "c": b"y\n"}.items():
        _write(bucket, f"in/{name}", content)
    job = TransformJob(job_for(request_for(), [container("csv_sum")]))
    job.start()
    result = job.wait(30)
    assert (result.status, result.done, result.failed) == ("Failed", 1, 2)
    assert [key for key, _ in result.failures] == ["in/b", "in/c"]
    assert all("ClientError: 400" in reason for _, reason in result.failures)


def test_a_stopped_job_leaves_no_output_and_no_process(
    request_for: _Request,
    container: _Containers,
    job_for: _Job,
    bucket: FolderStorage,
    tmp_path: Path,
) -> None:
    _write(bucket, "in/a", b"1")
    _write(bucket, "in/b", b"2")
    events: list[Mapping[str, Any]] = []
    model = container(script=[{"match_body": "1", "body": "ok"}, {"hang": True}])
    job = TransformJob(job_for(request_for(), [model]), on_event=events.append)
    job.start()
    _wait_for(events, "object")
    assert [each.key for each in bucket.list("bkt", "out/")] == ["out/a.out"]
    with pytest.raises(TimeoutError, match="still runs"):
        job.wait(0.01)
    job.stop()
    assert job.wait(30).status == "Stopped"
    assert [*bucket.list("bkt", "out/")] == []
    assert _processes_below(str(tmp_path)) == []


def test_an_instance_that_is_lost_fails_the_job_and_takes_its_server_with_it(
    request_for: _Request,
    container: _Containers,
    job_for: _Job,
    bucket: FolderStorage,
    tmp_path: Path,
) -> None:
    for name in "abc":
        _write(bucket, f"in/{name}", name.encode())
    events: list[Mapping[str, Any]] = []
    model = container(script=[{"match_body": "a", "body": "ok"}, {"hang": True}])
    stubborn = ("sh", "-c", "trap '' TERM; exec \"$@\"", "sh", *model.command)
    spec = job_for(request_for(), [replace(model, command=stubborn)])
    job = TransformJob(spec, on_event=events.append)
    job.start()
    _wait_for(events, "object")
    _kill_instances(str(tmp_path))
    result = job.wait(30)
    assert (result.status, result.done, result.failed) == ("Failed", 1, 2)
    assert (result.failure_reason or "").startswith("InternalServerError")
    assert "instance 0 must end by itself, got signal 9 (Killed)" in (result.detail or "")
    assert [key for key, _ in result.failures] == ["in/b", "in/c"]
    assert all(reason.startswith("InternalServerError: ") for _, reason in result.failures)
    assert [each.key for each in bucket.list("bkt", "out/")] == ["out/a.out"]
    assert _processes_below(str(tmp_path)) == []
    assert [*Path(spec.work_dir).iterdir()] == []


def test_a_server_that_is_killed_fails_the_objects_that_it_still_had(
    request_for: _Request,
    container: _Containers,
    job_for: _Job,
    bucket: FolderStorage,
    tmp_path: Path,
) -> None:
    _write(bucket, "in/a", b"1")
    _write(bucket, "in/b", b"2")
    events: list[Mapping[str, Any]] = []
    model = container(script=[{"match_body": "1", "body": "ok"}, {"hang": True}])
    spec = job_for(request_for(), [model])
    job = TransformJob(spec, on_event=events.append)
    job.start()
    _wait_for(events, "object")
    for pid in _processes_below(model.cwd):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if not any(word.endswith(b"keeper.py") for word in words):
            os.kill(pid, signal.SIGKILL)
    result = job.wait(30)
    assert (result.status, result.done, result.failed) == ("Failed", 1, 1)
    assert (result.failure_reason or "").startswith("AlgorithmError: ")
    assert "Unable to get response from algorithm" in (result.detail or "")
    assert "the model server must run until the job ends, got exit code 137" in (
        result.detail or ""
    )
    assert [each.key for each in bucket.list("bkt", "out/")] == ["out/a.out"]
    assert _processes_below(str(tmp_path)) == []
    assert [*Path(spec.work_dir).iterdir()] == []


_HOLDER = """
import sys, time
from transform_engine.job import *
from transform_engine.spec import InstanceSpec
from pathlib import Path
spec = InstanceSpec.read(Path(sys.argv[1])).job
TransformJob(spec, on_event=lambda event: print(event["event"], flush=True)).start()
time.sleep(60)
"""


def test_when_the_process_that_holds_a_job_is_killed_nothing_of_the_job_stays(
    request_for: _Request,
    container: _Containers,
    job_for: _Job,
    bucket: FolderStorage,
    tmp_path: Path,
) -> None:
    _write(bucket, "in/a", b"1")
    job = job_for(request_for(), [container(script=[{"hang": True}])])
    spec = InstanceSpec(job=job, instance_id="i", instance_index=0, instance_count=1, started_at=0)
    spec.write(tmp_path / "spec.json")
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(tmp_path / "spec.json")],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(transform_engine.__file__).parents[1])},
    )
    assert holder.stdout is not None
    with holder.stdout:
        assert holder.stdout.readline() == b"started\n"
        assert len(_processes_below(str(tmp_path))) >= 4
        holder.kill()
        holder.wait()
    deadline = time.monotonic() + 10
    while _processes_below(str(tmp_path)):
        assert time.monotonic() < deadline, "instance and server must be gone"
        time.sleep(0.05)
    assert [*Path(job.work_dir).iterdir()] == []


def test_a_job_on_s3_logs_to_cloudwatch_as_the_service_does(
    aws: str, s3: Any, request_for: _Request, container: _Containers, tmp_path: Path
) -> None:
    s3.put_object(Bucket="bkt", Key="in//a b+c.csv", Body=b"1,2\n")
    s3.put_object(Bucket="bkt", Key="in/bad.csv", Body=b"x\n")
    spec = JobSpec(
        job_name="logged",
        request=request_for(),
        containers=(container("csv_sum"),),
        work_dir=str(tmp_path),
        s3_endpoint=aws,
        log_endpoint=aws,
        ping_timeout_s=10,
    )
    job = TransformJob(spec)
    job.start()
    result = job.wait(60)
    assert (result.status, result.done, result.failed) == ("Failed", 1, 1)
    assert s3.get_object(Bucket="bkt", Key="out/a b+c.csv.out")["Body"].read() == b"3\n"
    messages = _data_log(aws, "logged")
    assert "BatchStrategy=MULTI_RECORD" in messages[0]
    assert messages[1].endswith(": bkt/in/bad.csv: ClientError: 400")


def _data_log(aws: str, job_name: str) -> list[str]:
    logs = boto3.client("logs", endpoint_url=aws, region_name="us-east-1")
    group = "/aws/sagemaker/TransformJobs"
    streams = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{job_name}/")
    names = [stream["logStreamName"] for stream in streams["logStreams"]]
    (data_log,) = [name for name in names if name.endswith("/data-log")]
    events = logs.get_log_events(logGroupName=group, logStreamName=data_log, startFromHead=True)
    return [event["message"] for event in events["events"]]


def test_an_instance_that_breaks_says_so_where_a_person_looks(
    aws: str, s3: Any, request_for: _Request, container: _Containers, tmp_path: Path
) -> None:
    request = request_for()
    del request["TransformOutput"]["S3OutputPath"]  # No call has passed that.
    spec = JobSpec(
        job_name="broken",
        request=request,
        containers=(container("csv_sum"),),
        work_dir=str(tmp_path),
        s3_endpoint=aws,
        log_endpoint=aws,
    )
    job = TransformJob(spec)
    job.start()
    result = job.wait(60)
    assert (result.status, (result.failure_reason or "")[:20]) == ("Failed", "InternalServerError:")
    assert "KeyError('S3OutputPath')" in (result.detail or "")
    (message,) = _data_log(aws, "broken")
    assert message.endswith(f"[sagemaker logs]: {result.detail}")


def test_a_job_keeps_its_logs_in_a_folder(
    request_for: _Request, job_for: _Job, bucket: FolderStorage, tmp_path: Path
) -> None:
    broken = Container(command=("sh", "-c", "echo no model >&2; exit 3"), cwd=str(tmp_path))
    logs = tmp_path / "logs"
    job = TransformJob(job_for(request_for(), [broken], log_dir=str(logs)))
    job.start()
    result = job.wait(30)
    (stream,) = (logs / "job").glob("i-*.log")
    assert stream.read_text() == "no model\n"
    data_log = (stream.with_suffix("") / "data-log.log").read_text().splitlines()
    said = [line.partition(":[sagemaker logs]: ")[2] for line in data_log]
    assert said == (result.detail or "").splitlines()


def test_fails_when_the_folder_for_the_logs_cannot_be_made(
    request_for: _Request, container: _Containers, job_for: _Job, tmp_path: Path
) -> None:
    (tmp_path / "logs").write_text("a file")
    spec = job_for(request_for(), [container("echo")], log_dir=str(tmp_path / "logs"))
    job = TransformJob(spec)
    job.start()
    result = job.wait(30)
    assert result.status == "Failed"
    assert "the log's folder must be writable, got" in (result.detail or "")
    assert "name another" in (result.detail or "")
