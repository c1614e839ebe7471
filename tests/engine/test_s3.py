import asyncio
import contextlib
import http.server
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import pytest

import transform_engine
from transform_engine.agent import InstanceResult, run_instance
from transform_engine.data_log import NoLog
from transform_engine.job import TransformJob
from transform_engine.s3 import S3Storage
from transform_engine.spec import Container, InstanceSpec, JobSpec
from transform_engine.storage import Storage, StorageFailed, write_object

_KEYS = [
    "in/a.csv",
    "in//b.csv",
    "/leading",
    "in/a%2Fb+c d",
    "in/é/ü.csv",
    "in/../up",
    "in/./here",
    "in/q?x=1#h",
    "in/a\\b",
    "in/new\nline",
    "trailing/",
    "in/" + "long" * 200,
]


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(transform_engine.__file__).parents[1])}


class Wire:
    """A TCP connection to S3 that breaks as told.

    :param cut_after: how many bytes of S3's are let through before a connection is cut.
    :param cuts: how many connections are cut; the others stay whole.

    A connection is also cut when it carries what the wire `refuses`, and carries nothing for long
    after what it `holds`. Nothing passes while the wire `stalls`.
    """

    def __init__(self, endpoint: str, *, cut_after: int = 0, cuts: int = 0) -> None:
        host, _, port = endpoint.removeprefix("http://").partition(":")
        self._upstream = host, int(port)
        self._cut_after = cut_after
        self.cuts_left = cuts
        self.stalls = False
        self.refuses = self.holds = b"\0" * 100
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = {self._listener}
        self.connections = 0
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Cut all connections and refuse others."""
        for each in [*self._open]:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                server = socket.create_connection(self._upstream)
                self._open |= {client, server}
                limit = self._cut_after if self.cuts_left > 0 else None
                self.cuts_left -= 1
                threading.Thread(
                    target=self._copy, args=(client, server, None), daemon=True
                ).start()
                threading.Thread(
                    target=self._copy, args=(server, client, limit), daemon=True
                ).start()

    def _copy(self, source: socket.socket, target: socket.socket, limit: int | None) -> None:
        left = limit
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                while self.stalls:
                    time.sleep(0.01)
                if self.refuses in data:
                    break
                if self.holds in data:
                    time.sleep(10)
                if left is not None:
                    data = data[:left]
                    left -= len(data)
                target.sendall(data)
                if left == 0:
                    break
        for each in source, target:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def storage(aws: str, s3: Any) -> S3Storage:
    return S3Storage(endpoint=aws, region="us-east-1")


def _through(wire: Wire, **options: Any) -> S3Storage:
    return S3Storage(endpoint=wire.endpoint, region="us-east-1", **{"patience_s": 1.0, **options})


async def _read(storage: Storage, key: str) -> bytes:
    return b"".join([piece async for piece in storage.chunks("bkt", key)])


async def _write(storage: Storage, key: str, content: bytes) -> None:
    await write_object(storage, "bkt", key, content)


@pytest.mark.parametrize("key", _KEYS, ids=ascii)
def test_s3_takes_every_key_as_it_is(storage: S3Storage, s3: Any, tmp_path: Path, key: str) -> None:
    asyncio.run(_write(storage, key, key.encode()))
    assert s3.get_object(Bucket="bkt", Key=key)["Body"].read() == key.encode()
    assert asyncio.run(_read(storage, key)) == key.encode()
    assert [found.key for found in storage.list("bkt", key)] == [key]
    storage.download("bkt", key, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == key.encode()
    storage.delete("bkt", key)
    assert not [*storage.list("bkt", key)]


@pytest.mark.parametrize("key", ["large", "//large"])
def test_s3_takes_outputs_that_are_larger_than_memory_is_spent_on(
    storage: S3Storage, s3: Any, key: str
) -> None:
    content = b"0123456789abcdef" * (1 << 20)
    asyncio.run(_write(storage, key, content))
    assert s3.head_object(Bucket="bkt", Key=key)["ContentLength"] == len(content)
    assert asyncio.run(_read(storage, key)) == content


def test_s3_lists_a_prefix_as_a_string_and_not_as_a_folder(storage: S3Storage, s3: Any) -> None:
    for key in ("test_output/a", "test_output_pose/b", "other"):
        s3.put_object(Bucket="bkt", Key=key, Body=b"")
    found = [each.key for each in storage.list("bkt", "test_output")]
    assert found == ["test_output/a", "test_output_pose/b"]


_ODD_AND_PLAIN = pytest.mark.parametrize("key", ["plain", "//odd"])


@_ODD_AND_PLAIN
def test_a_connection_that_is_cut_costs_a_part_and_not_the_object(
    aws: str, s3: Any, key: str
) -> None:
    content = bytes(range(256)) * (40 << 10)
    s3.put_object(Bucket="bkt", Key=key, Body=content)
    with Wire(aws, cut_after=1 << 20, cuts=3) as wire:
        assert asyncio.run(_read(_through(wire, patience_s=10.0), key)) == content
        assert wire.cuts_left <= 0


@_ODD_AND_PLAIN
def test_fails_when_the_network_never_carries_the_whole_object(aws: str, s3: Any, key: str) -> None:
    s3.put_object(Bucket="bkt", Key=key, Body=b"x" * 1_000_000)
    said = f"s3://bkt/{key} must be readable, got "
    with Wire(aws, cut_after=5_000, cuts=1000) as wire, pytest.raises(StorageFailed, match=said):
        asyncio.run(_read(_through(wire), key))


@_ODD_AND_PLAIN
def test_fails_when_the_network_goes_in_the_middle_of_an_object(
    aws: str, s3: Any, key: str
) -> None:
    s3.put_object(Bucket="bkt", Key=key, Body=b"x" * (9 << 20))

    async def read(wire: Wire) -> int:
        got = 0
        async for piece in _through(wire).chunks("bkt", key):
            got += len(piece)
            if got > 5 << 20:
                wire.close()
        return got

    with Wire(aws) as wire, pytest.raises(StorageFailed, match="check the network") as failed:
        asyncio.run(read(wire))
    assert f"s3://bkt/{key} must be readable, got no answer from {wire.endpoint}" in str(
        failed.value
    )


def test_once_s3_does_not_answer_the_other_objects_need_not_wait(aws: str, s3: Any) -> None:
    with Wire(aws) as wire:
        storage = _through(wire)
        asyncio.run(_write(storage, "a", b"1"))
    began = time.monotonic()
    for _ in range(100):
        for key in "plain", "//odd":
            with pytest.raises(StorageFailed, match=f"s3://bkt/{key} must be writable, got no "):
                asyncio.run(_write(storage, key, b"1"))
            with pytest.raises(StorageFailed, match=f"s3://bkt/{key} must be readable, got no "):
                asyncio.run(_read(storage, key))
    assert time.monotonic() - began < 10
    with pytest.raises(StorageFailed, match="s3://bkt/in/ must be listable, got no answer"):
        [*storage.list("bkt", "in/")]


@_ODD_AND_PLAIN
def test_fails_when_an_object_is_replaced_while_it_is_read(
    storage: S3Storage, s3: Any, key: str
) -> None:
    s3.put_object(Bucket="bkt", Key=key, Body=b"1" * (9 << 20))

    async def read() -> None:
        async for _ in storage.chunks("bkt", key):
            s3.put_object(Bucket="bkt", Key=key, Body=b"2" * (9 << 20))

    with pytest.raises(StorageFailed, match=r"got PreconditionFailed .*; run the job again"):
        asyncio.run(read())


@pytest.mark.parametrize(
    ("bucket", "key", "content", "said"),
    [
        ("bkt", "no/such", None, "must be readable, got NoSuchKey .*; check its name"),
        ("bkt", "//no", None, "must be readable, got NoSuchKey .*; check its name"),
        ("nobkt", "a", None, "must be readable, got NoSuchBucket .*; create the bucket"),
        ("nobkt", "//a", None, "must be readable, got NoSuchBucket .*; create the bucket"),
        ("nobkt", "a", b"1", "must be writable, got NoSuchBucket .*; create the bucket"),
        ("nobkt", "//a", b"1", "must be writable, got NoSuchBucket .*; create the bucket"),
        ("nobkt", "a", b"1" * 9_000_000, "must be writable, got NoSuchBucket .*; create the"),
    ],
)
def test_fails_when_bucket_or_object_is_missing(
    storage: S3Storage, bucket: str, key: str, content: bytes | None, said: str
) -> None:
    async def act() -> None:
        if content is None:
            async for _ in storage.chunks(bucket, key):
                pass
        else:
            await write_object(storage, bucket, key, content)

    with pytest.raises(StorageFailed, match=f"^s3://{bucket}/{key} {said}") as failed:
        asyncio.run(act())
    assert len(str(failed.value)) < 250
    assert len(failed.value.lines) == 1


@contextlib.contextmanager
def _answering(status: int, headers: dict[str, str], body: bytes) -> Iterator[str]:
    """Run a server that answers everything alike; its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    for method in "GET", "PUT", "POST":
        setattr(Handler, f"do_{method}", Handler.answer)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "code", "remedy"),
    [
        (403, "AccessDenied", "allow it to the credentials in use"),
        (403, "SignatureDoesNotMatch", "renew the credentials"),
        (400, "ExpiredToken", "renew the credentials"),
        (301, "PermanentRedirect", "give the bucket's own region"),
        (400, "KMS.NotFoundException", "check the bucket and its endpoint"),
    ],
)
def test_fails_when_s3_refuses_and_says_why(aws: str, status: int, code: str, remedy: str) -> None:
    error = f"<Error><Code>{code}</Code><Message>No,\nnot you</Message></Error>".encode()
    headers = {"Content-Length": str(len(error)), "Content-Type": "application/xml"}
    with _answering(status, headers, error) as endpoint:
        storage = S3Storage(endpoint=endpoint, region="us-east-1", patience_s=1)
        for key in "plain", "//odd":
            # obstore says nothing of a redirect but that it is one.
            why = code if (status, key) == (301, "plain") else f"{code} (No, not you)"
            said = re.escape(f", got {why}; {remedy}")
            with pytest.raises(StorageFailed, match=f"^s3://bkt/{key} must be readable{said}$"):
                asyncio.run(_read(storage, key))
            with pytest.raises(StorageFailed, match=f"^s3://bkt/{key} must be writable{said}$"):
                asyncio.run(_write(storage, key, b"1"))
        with pytest.raises(StorageFailed, match=re.escape(f"listable, got {code} (No, not you);")):
            [*storage.list("bkt", "in/")]


def test_fails_when_an_answer_is_shorter_than_it_says(aws: str) -> None:
    headers = {
        "Content-Range": "bytes 0-9/10",
        "ETag": '"e"',
        "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT",
        "Content-Length": "5",
    }
    with _answering(206, headers, b"12345") as endpoint:
        storage = S3Storage(endpoint=endpoint, region="us-east-1", patience_s=1)
        for key in "plain", "//odd":
            with pytest.raises(StorageFailed, match="must be read whole, got 5 bytes at 0 of 10"):
                asyncio.run(_read(storage, key))


def test_fails_when_there_are_no_credentials(
    aws: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE":
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    # An endpoint that a job names is an emulator's, and takes any credentials.
    asyncio.run(_write(S3Storage(endpoint=aws, region="us-east-1"), "a", b"1"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws)
    storage = S3Storage(endpoint=None, region="us-east-1")
    said = "got Unable to locate credentials; sign in, or set AWS_PROFILE"
    with pytest.raises(StorageFailed, match=f"s3://bkt/in must be listable, {said}"):
        [*storage.list("bkt", "in")]
    for key in "plain", "//odd":
        with pytest.raises(StorageFailed, match=f"must be writable, {said}"):
            asyncio.run(_write(storage, key, b"1"))


def _uploads(s3: Any) -> list[str]:
    return [each["Key"] for each in s3.list_multipart_uploads(Bucket="bkt").get("Uploads", ())]


def test_an_upload_whose_part_fails_is_aborted(aws: str, s3: Any) -> None:
    with Wire(aws) as wire:
        wire.refuses = b"partNumber=2"
        with pytest.raises(StorageFailed, match="s3://bkt/large must be writable, got"):
            asyncio.run(_write(_through(wire), "large", b"x" * (20 << 20)))
    assert _uploads(s3) == []
    assert "Contents" not in s3.list_objects_v2(Bucket="bkt")


@pytest.mark.parametrize("size", [1000, 20 << 20])
@_ODD_AND_PLAIN
def test_an_upload_that_is_given_up_leaves_nothing(aws: str, s3: Any, key: str, size: int) -> None:
    with Wire(aws) as wire:
        storage = _through(wire)
        asyncio.run(_write(storage, "before", b""))
        wire.stalls = True

        async def give_up() -> None:
            writing = asyncio.create_task(_write(storage, key, b"x" * size))
            await asyncio.sleep(0.3)
            writing.cancel()
            asyncio.get_running_loop().call_later(0.3, setattr, wire, "stalls", False)
            with pytest.raises(asyncio.CancelledError):
                await writing

        asyncio.run(give_up())
        assert _uploads(s3) == []
        assert [each["Key"] for each in s3.list_objects_v2(Bucket="bkt")["Contents"]] == ["before"]


_UPLOADER = """
import asyncio, sys
from transform_engine.s3 import S3Storage
from transform_engine.storage import write_object
storage = S3Storage(endpoint=sys.argv[1], region="us-east-1", work_dir=sys.argv[2])
asyncio.run(write_object(storage, "bkt", "large", b"x" * (20 << 20)))
"""


def test_what_a_killed_process_was_uploading_is_aborted(
    aws: str, s3: Any, storage: S3Storage, tmp_path: Path
) -> None:
    asyncio.run(_write(storage, "another", b"x" * (9 << 20)))
    with Wire(aws) as wire:
        wire.holds = b"partNumber=2"
        process = subprocess.Popen(
            [sys.executable, "-c", _UPLOADER, wire.endpoint, str(tmp_path)], env=_environment()
        )
        deadline = time.monotonic() + 20
        while not _uploads(s3):
            assert time.monotonic() < deadline, "the upload must begin"
            time.sleep(0.02)
        time.sleep(0.1)
        process.kill()
        process.wait()
    assert _uploads(s3) == ["large"]
    storage.sweep("bkt", "", str(tmp_path))
    storage.sweep("bkt", "", str(tmp_path / "other"))
    assert _uploads(s3) == []


@_ODD_AND_PLAIN
@pytest.mark.parametrize("size", [10, 9 << 20])
def test_the_key_that_an_output_is_encrypted_with_reaches_s3(
    storage: S3Storage, s3: Any, key: str, size: int
) -> None:
    asyncio.run(write_object(storage, "bkt", key, b"x" * size, kms_key_id="alias/mine"))
    head = s3.head_object(Bucket="bkt", Key=key)
    assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", "alias/mine")


def test_objects_are_removed_in_bulk_whatever_their_keys(storage: S3Storage, s3: Any) -> None:
    keys = [*_KEYS, *(f"many/{number}" for number in range(20))]
    for key in keys:
        s3.put_object(Bucket="bkt", Key=key, Body=b"")
    storage.delete("bkt", *keys, "never/was")
    assert [*storage.list("bkt", "")] == []
    storage.delete("bkt")


_COPIER = """
import asyncio, sys
from pathlib import Path
from transform_engine.s3 import S3Storage
storage = S3Storage(endpoint=sys.argv[1], region="us-east-1")
async def copy(source, target):
    output = storage.outputs("bkt")(target)
    async for piece in storage.chunks("bkt", source):
        output.write(piece)
    await output.commit()
    output.discard()
    # Not ru_maxrss, which counts what the parent had.
    status = Path("/proc/self/status").read_text()
    print(int(status.partition("VmHWM:")[2].split()[0]) // 1024)
for name in sys.argv[2:]:
    asyncio.run(copy(name, name + ".out"))
"""


def test_memory_does_not_grow_with_an_object(aws: str, s3: Any) -> None:
    s3.put_object(Bucket="bkt", Key="some", Body=b"x" * (16 << 20))
    s3.put_object(Bucket="bkt", Key="much", Body=b"x" * (96 << 20))
    command = [sys.executable, "-c", _COPIER, aws, "some", "much"]
    some, much = map(int, subprocess.check_output(command, env=_environment()).split())
    assert s3.head_object(Bucket="bkt", Key="much.out")["ContentLength"] == 96 << 20
    assert much - some < 24


def _spec(request: dict[str, Any], model: Container, work_dir: Path, endpoint: str) -> JobSpec:
    return JobSpec(
        job_name="job",
        request=request,
        containers=(model,),
        work_dir=str(work_dir),
        s3_endpoint=endpoint,
        ping_timeout_s=10,
        server_stop_timeout_s=2,
    )


def test_a_job_whose_network_goes_fails_soon_and_keeps_what_is_done(
    aws: str,
    s3: Any,
    request_for: Callable[..., dict[str, Any]],
    container: Callable[..., Container],
    tmp_path: Path,
) -> None:
    for number in range(50):
        s3.put_object(Bucket="bkt", Key=f"in/{number:02}", Body=b"1\n")
    with Wire(aws) as wire:
        ended: list[Mapping[str, Any]] = []

        def see(event: Mapping[str, Any]) -> None:
            if event["event"] == "object":
                ended.append(event)
                if len(ended) == 3:
                    wire.close()

        job = _spec(request_for(), container("echo_rstrip"), tmp_path, wire.endpoint)
        instance = InstanceSpec(
            job=job, instance_id="i", instance_index=0, instance_count=1, started_at=0
        )
        storage = _through(wire)

        async def run() -> InstanceResult:
            stop = asyncio.Event()
            return await run_instance(
                instance, storage=storage, log=NoLog(), stop=stop, on_event=see
            )

        began = time.monotonic()
        result = asyncio.run(run())
    assert time.monotonic() - began < 15
    assert (result.ok, result.done, result.failed) == (False, 3, 47)
    assert "got no answer from http://127.0.0.1:" in (result.detail or "")
    assert "check the network and the endpoint" in (result.detail or "")
    found = s3.list_objects_v2(Bucket="bkt", Prefix="out/")["Contents"]
    assert [(each["Key"], each["Size"]) for each in found][:3] == [
        (f"out/{number:02}.out", 2) for number in range(3)
    ]
    assert {each["Size"] for each in found} == {2}


def test_a_stopped_job_leaves_nothing_in_s3(
    aws: str,
    s3: Any,
    request_for: Callable[..., dict[str, Any]],
    container: Callable[..., Container],
    tmp_path: Path,
) -> None:
    for key in "a", "/b c", "hang":
        s3.put_object(Bucket="bkt", Key=f"in/{key}", Body=key.encode())
    seen = threading.Event()
    ended: list[Mapping[str, Any]] = []

    def see(event: Mapping[str, Any]) -> None:
        if event["event"] == "object":
            ended.append(event)
            if len(ended) == 2:
                seen.set()

    script = [{"match_body": "hang", "hang": True}, {"body": "ok"}]
    job = TransformJob(_spec(request_for(), container(script=script), tmp_path, aws), on_event=see)
    job.start()
    assert seen.wait(30)
    assert len(s3.list_objects_v2(Bucket="bkt", Prefix="out/")["Contents"]) == 2
    job.stop()
    assert job.wait(30).status == "Stopped"
    assert "Contents" not in s3.list_objects_v2(Bucket="bkt", Prefix="out/")


def test_fails_when_the_input_is_in_no_bucket(
    aws: str,
    s3: Any,
    request_for: Callable[..., dict[str, Any]],
    container: Callable[..., Container],
    tmp_path: Path,
) -> None:
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://nobkt/in/"}}
    request = request_for(TransformInput={"DataSource": source})
    job = TransformJob(_spec(request, container("echo"), tmp_path, aws))
    job.start()
    result = job.wait(30)
    assert (result.status, result.failure_reason) == (
        "Failed",
        "ClientError: See job logs for more information",
    )
    assert "s3://nobkt/in/ must be listable, got NoSuchBucket" in (result.detail or "")


def test_a_job_that_is_stopped_in_an_upload_leaves_nothing_of_it(
    aws: str,
    s3: Any,
    request_for: Callable[..., dict[str, Any]],
    container: Callable[..., Container],
    tmp_path: Path,
) -> None:
    s3.put_object(Bucket="bkt", Key="in/large", Body=(b"x" * 99 + b"\n") * 200_000)
    with Wire(aws) as wire:
        wire.holds = b"partNumber=2"
        job = TransformJob(_spec(request_for(), container("echo"), tmp_path, wire.endpoint))
        job.start()
        deadline = time.monotonic() + 30
        while not _uploads(s3):
            assert time.monotonic() < deadline, "the upload must begin"
            time.sleep(0.02)
        job.stop()
        assert job.wait(30).status == "Stopped"
    assert _uploads(s3) == []
    assert "Contents" not in s3.list_objects_v2(Bucket="bkt", Prefix="out/")
    assert [*tmp_path.glob("instance-*")] == []
