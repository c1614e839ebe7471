"""Model images that a real container engine has: podman, and an image built from scratch."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from botocore.exceptions import ClientError

from local_cloud import LocalCloud
from local_cloud import processes as cloud_processes

from .conftest import ROLE, transform_request, wait_until

SERVER = Path(__file__).parents[1] / "engine" / "image" / "server.c"
# What it takes where neither cgroups nor limits can be changed, as in many sandboxes.
GLOBAL = ("--runtime", "runc", "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs")
RUN = ("run", "--network=host", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")


def _impossible(reason: str) -> NoReturn:
    """Skip what this machine cannot do; CI's must."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def _do(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)
    if done.returncode:
        _impossible(f"{' '.join(command)}: {done.stderr[-2000:]}")
    return done.stdout


def _end(cloud: LocalCloud, name: str) -> str:
    """Wait for a job's end, and return its status."""
    describe = cloud.client("sagemaker").describe_transform_job

    def ended() -> str | None:
        status: str = describe(TransformJobName=name)["TransformJobStatus"]
        return None if status == "InProgress" else status

    return str(wait_until(ended, within_s=60))


@pytest.fixture(scope="module")
def podman() -> Iterator[tuple[str, ...]]:
    """Podman with storage of its own, which has the image `from-scratch:1`."""
    for program in ("podman", "runc", "gcc"):
        if shutil.which(program) is None:
            _impossible(f"needs {program}; on Debian: apt install {program}")
    # Podman takes no runroot that is longer than 50 characters, as pytest's folders may be.
    with tempfile.TemporaryDirectory(prefix="podman-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        command = (
            "podman",
            *(f"--{kind}={home / kind}" for kind in ("root", "runroot", "tmpdir")),
            *GLOBAL,
        )
        _do("gcc", "-static", "-O1", "-o", "serve", str(SERVER), cwd=home)
        (home / "Dockerfile").write_text(
            "FROM scratch\nLABEL com.amazonaws.sagemaker.capabilities.accept-bind-to-port=true\n"
            'COPY serve /serve\nENTRYPOINT ["/serve"]\n'
        )
        _do(*command, "build", "--quiet", "--tag", "from-scratch:1", ".", cwd=home)
        yield command


@pytest.fixture(scope="module")
def container_cloud(podman: tuple[str, ...]) -> Iterator[LocalCloud]:
    with LocalCloud(container_engine=(*podman, *RUN)) as cloud:
        cloud.client("s3").create_bucket(Bucket="some-bucket")
        yield cloud


def test_an_image_of_the_container_engine_scores(
    container_cloud: LocalCloud, podman: tuple[str, ...], tmp_path: Path
) -> None:
    cloud = container_cloud
    before = cloud_processes.family(cloud.marker)
    s3, sagemaker = cloud.client("s3"), cloud.client("sagemaker")
    s3.put_object(Bucket="some-bucket", Key="contained/in/a.csv", Body=b"1\n2\n")
    sagemaker.create_model(
        ModelName="contained",
        PrimaryContainer={"Image": "from-scratch:1", "Environment": {"MARK": ",scored"}},
        ExecutionRoleArn=ROLE,
    )
    request = transform_request("contained", "contained", "some-bucket")
    request["TransformOutput"]["AssembleWith"] = "None"
    sagemaker.create_transform_job(**request)

    assert _end(cloud, "contained") == "Completed"
    scored = s3.get_object(Bucket="some-bucket", Key="contained/out/a.csv.out")["Body"].read()
    assert scored == b"1,scored\n2,scored\n"
    wait_until(lambda: not cloud_processes.family(cloud.marker) - before)
    assert _do(*podman, "ps", "--all", "--quiet", cwd=tmp_path) == ""


def test_refuses_an_image_that_neither_a_folder_nor_the_engine_has(
    container_cloud: LocalCloud,
) -> None:
    with pytest.raises(
        ClientError,
        match=r"Requested image no/such:1 not found: .*register the directory.*; or else "
        r"the container engine must work and have the image no/such:1, got podman: .*no/such:1",
    ):
        container_cloud.client("sagemaker").create_model(
            ModelName="x", PrimaryContainer={"Image": "no/such:1"}, ExecutionRoleArn=ROLE
        )


def test_the_container_engine_is_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The emulator is kept from it by a variable, which must reach neither question nor job."""
    calls, engine = tmp_path / "calls", tmp_path / "engine"
    engine.write_text(
        f'#!/bin/sh\necho "$DOCKER_HOST $1" >>{calls}\n'
        "[ \"$1\" = image ] && echo '[{}]' || exit 125\n"
    )
    engine.chmod(0o755)
    monkeypatch.setenv("DOCKER_HOST", "unix:///users/own.sock")
    with LocalCloud(container_engine=(str(engine),)) as cloud:
        s3, sagemaker = cloud.client("s3"), cloud.client("sagemaker")
        s3.create_bucket(Bucket="some-bucket")
        s3.put_object(Bucket="some-bucket", Key="asked/in/a.csv", Body=b"1\n")
        sagemaker.create_model(ModelName="asked", PrimaryContainer={"Image": "any:1"})
        assert calls.read_text() == "unix:///users/own.sock image\n"
        sagemaker.create_transform_job(**transform_request("asked", "asked", "some-bucket"))
        assert _end(cloud, "asked") == "Failed"
    asked = [line.split() for line in calls.read_text().splitlines()]
    assert {host for host, _ in asked} == {"unix:///users/own.sock"}
    assert "run" in {word for _, word in asked}
