import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from transform_engine import conformance_model
from transform_engine.ports import free_port
from transform_engine.spec import Container, JobSpec
from transform_engine.storage import FolderStorage


@pytest.fixture(autouse=True, scope="module")
def _recursion_limit() -> Iterator[None]:
    """Python's own limit, as in an instance: aws_cdk raises it for the process that imports it."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)
    yield
    sys.setrecursionlimit(before)


@pytest.fixture
def request_for() -> Callable[..., dict[str, Any]]:
    """Makes a CreateTransformJob request of line records; members can be changed."""

    def make(**changes: Any) -> dict[str, Any]:
        source = {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://bkt/in/"}},
            "ContentType": "text/csv",
            "SplitType": "Line",
        }
        output = {"S3OutputPath": "s3://bkt/out", "Accept": "text/csv", "AssembleWith": "Line"}
        request: dict[str, Any] = {
            "TransformJobName": "job",
            "ModelName": "model",
            "TransformInput": source | changes.pop("TransformInput", {}),
            "TransformOutput": output | changes.pop("TransformOutput", {}),
            "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1}
            | changes.pop("TransformResources", {}),
        }
        return request | changes

    return make


@pytest.fixture
def container(tmp_path: Path) -> Callable[..., Container]:
    """Makes a container whose server behaves as told (see conformance_model)."""

    def make(behaviour: str | None = None, **config: Any) -> Container:
        home = tmp_path / f"image-{time.monotonic_ns()}"
        home.mkdir()
        whole: dict[str, Any] = {
            "container": 1,
            "behaviour": behaviour,
            "script": [],
            "class_reply": "{}",
        }
        (home / "config.json").write_text(json.dumps(whole | config))
        program = str(Path(conformance_model.__file__))
        arguments = (str(home / "config.json"), str(home / "calls.jsonl"))
        return Container(command=(sys.executable, "-IS", program, *arguments), cwd=str(home))

    return make


@pytest.fixture
def invocations() -> Callable[[Container], list[dict[str, Any]]]:
    """Reads the invocations that a container of the fixture above got."""

    def read(container: Container) -> list[dict[str, Any]]:
        lines = Path(container.cwd, "calls.jsonl").read_text().splitlines()
        calls = [json.loads(line) for line in lines]
        return [call for call in calls if call.get("call") == "POST /invocations"]

    return read


@pytest.fixture
def bucket(tmp_path: Path) -> FolderStorage:
    """Local storage; its bucket is `bkt`."""
    (tmp_path / "s3" / "bkt").mkdir(parents=True)
    return FolderStorage(tmp_path / "s3")


@pytest.fixture
def job_for(
    tmp_path: Path, bucket: FolderStorage
) -> Callable[[dict[str, Any], list[Container]], JobSpec]:
    def make(request: dict[str, Any], containers: list[Container], **more: Any) -> JobSpec:
        work = tmp_path / f"work-{time.monotonic_ns()}"
        work.mkdir()
        return JobSpec(
            job_name="job",
            request=request,
            containers=tuple(containers),
            work_dir=str(work),
            s3_folder=str(bucket.root),
            **{"ping_timeout_s": 5.0, "server_stop_timeout_s": 2.0, **more},
        )

    return make


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a disk that is small enough to fill")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.fixture(scope="session")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an emulator with S3 and CloudWatch Logs, in a process of its own."""
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    names = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    environment = {
        "PATH": os.environ["PATH"],
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
    }
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("ministack"))],
        env=environment,
        cwd=tmp_path_factory.mktemp("ministack"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 30
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert time.monotonic() < deadline, "ministack must listen within 30 s"
            time.sleep(0.05)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in names.items():
                patch.setenv(name, value)
            yield endpoint
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def s3(aws: str) -> Any:
    client = boto3.client("s3", endpoint_url=aws, region_name="us-east-1")
    existing = {each["Name"] for each in client.list_buckets()["Buckets"]}
    if "bkt" in existing:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket="bkt")
        for key in [entry["Key"] for page in pages for entry in page.get("Contents", ())]:
            client.delete_object(Bucket="bkt", Key=key)
    else:
        client.create_bucket(Bucket="bkt")
    return client
