"""Clients that others wrote, unmodified: they find at the local cloud what they find on AWS."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import WaiterError

from local_cloud import LocalCloud

from .conftest import ROLE, transform_request, wait_until

PROJECT = Path(__file__).parents[2]
SDK_CLIENT = Path(__file__).with_name("sdk_client.py")
QUICK = {"Delay": 0.2, "MaxAttempts": 200}
_INSTALL_LIMIT_S = 1000
# The first time pip fetches the client's packages.
makes_an_environment = pytest.mark.timeout(_INSTALL_LIMIT_S + 200)


def python_of(environment: str) -> str:
    """Return the Python of a client's own environment, which is made when it is not there."""
    made = subprocess.run(
        [PROJECT / "scripts" / "environment-for", environment],
        capture_output=True,
        text=True,
        timeout=_INSTALL_LIMIT_S,
    )
    if made.returncode != 0:
        pytest.fail(f"no environment for {environment}: {made.stderr}", pytrace=False)
    return made.stdout.strip()


@pytest.fixture
def client_environment(cloud: LocalCloud, tmp_path: Path) -> dict[str, str]:
    """The variables of a client's process, with nothing of the user's own set-up."""
    home = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    return {**home, **cloud.environment(), "AWS_PAGER": ""}


@pytest.fixture(scope="session")
def aws_cli() -> str:
    return python_of("aws-cli")


@pytest.fixture
def aws(aws_cli: str, client_environment: dict[str, str]) -> Callable[..., Any]:
    def run(*arguments: str, refused: bool = False) -> Any:
        """Run `aws` and return its answer, or what it says when it must be refused."""
        done = subprocess.run(
            [aws_cli, "-m", "awscli", *arguments],
            env=client_environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode != 0) is refused, done.stderr
        if refused:
            return done.stderr.strip()
        return json.loads(done.stdout) if done.stdout.startswith("{") else done.stdout

    return run


def create_job(cloud: LocalCloud, model: str, bucket: str, name: str, body: bytes) -> None:
    cloud.client("s3").put_object(Bucket=bucket, Key=f"{name}/in/a.csv", Body=body)
    cloud.client("sagemaker").create_transform_job(**transform_request(name, model, bucket))


def read(cloud: LocalCloud, bucket: str, key: str) -> bytes:
    body: bytes = cloud.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    return body


def test_the_waiter_of_boto3_sees_a_job_complete(
    cloud: LocalCloud, model: str, bucket: str
) -> None:
    create_job(cloud, model, bucket, "waits-to-complete", b"1,a\n2,b\n")
    waiter = cloud.client("sagemaker").get_waiter("transform_job_completed_or_stopped")
    waiter.wait(TransformJobName="waits-to-complete", WaiterConfig=QUICK)
    assert read(cloud, bucket, "waits-to-complete/out/a.csv.out") == b"1,A\n2,B\n"


def test_the_waiter_of_boto3_sees_a_job_stop(cloud: LocalCloud, model: str, bucket: str) -> None:
    sagemaker = cloud.client("sagemaker")
    create_job(cloud, model, bucket, "waits-to-stop", b"SLOW\n")
    sagemaker.stop_transform_job(TransformJobName="waits-to-stop")
    waiter = sagemaker.get_waiter("transform_job_completed_or_stopped")
    waiter.wait(TransformJobName="waits-to-stop", WaiterConfig=QUICK)
    job = sagemaker.describe_transform_job(TransformJobName="waits-to-stop")
    assert job["TransformJobStatus"] == "Stopped"


def test_the_waiter_of_boto3_gives_up_on_a_job_that_fails(
    cloud: LocalCloud, model: str, bucket: str
) -> None:
    create_job(cloud, model, bucket, "waits-to-fail", b"FAIL\n")
    waiter = cloud.client("sagemaker").get_waiter("transform_job_completed_or_stopped")
    with pytest.raises(WaiterError, match="terminal failure state") as failure:
        waiter.wait(TransformJobName="waits-to-fail", WaiterConfig=QUICK)
    assert failure.value.last_response["TransformJobStatus"] == "Failed"


@makes_an_environment
def test_the_aws_cli_makes_a_model_and_scores_a_file_with_it(
    cloud: LocalCloud, model: str, bucket: str, aws: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "data.csv").write_bytes(b"1,a\n2,b\n")
    (tmp_path / "job.json").write_text(json.dumps(transform_request("by-cli", "cli", bucket)))
    container = json.dumps({"Image": "capitals:1"})
    model_options = ("--model-name", "cli", "--execution-role-arn", ROLE)
    job_option = ("--transform-job-name", "by-cli")

    aws("sagemaker", "create-model", *model_options, "--primary-container", container)
    aws("s3", "cp", str(tmp_path / "data.csv"), f"s3://{bucket}/by-cli/in/data.csv")
    created = aws(
        *("sagemaker", "create-transform-job", "--cli-input-json", f"file://{tmp_path}/job.json")
    )
    described = cloud.client("sagemaker").describe_transform_job
    # The CLI's own wait looks once a minute, so it comes when it has nothing to wait for.
    wait_until(
        lambda: described(TransformJobName="by-cli")["TransformJobStatus"] != "InProgress",
        within_s=40,
    )
    aws("sagemaker", "wait", "transform-job-completed-or-stopped", *job_option)
    job = aws("sagemaker", "describe-transform-job", *job_option)
    aws("s3", "cp", f"s3://{bucket}/by-cli/out/data.csv.out", str(tmp_path / "scores.csv"))

    assert job["TransformJobArn"] == created["TransformJobArn"]
    assert job["TransformJobStatus"] == "Completed"
    assert (tmp_path / "scores.csv").read_bytes() == b"1,A\n2,B\n"
    listed = aws("sagemaker", "list-transform-jobs", "--name-contains", "by-cli")
    assert [found["TransformJobName"] for found in listed["TransformJobSummaries"]] == ["by-cli"]
    refusal = aws("sagemaker", "stop-transform-job", *job_option, refused=True)
    assert refusal.endswith(
        "An error occurred (ValidationException) when calling the StopTransformJob operation: The "
        "request was rejected because the transform job is in status Completed."
    )


@makes_an_environment
def test_the_sagemaker_sdk_scores_follows_the_logs_fails_and_stops(
    cloud: LocalCloud,
    model: str,
    bucket: str,
    client_environment: dict[str, str],
    tmp_path: Path,
) -> None:
    python, report = python_of("sagemaker-sdk"), tmp_path / "report.json"
    done = subprocess.run(
        [python, SDK_CLIENT, "capitals:1", ROLE, bucket, report],
        env=client_environment,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(report.read_text())

    assert seen["status"] == "Completed"
    assert seen["output"] == "1,A\n2,B\n"
    # What the model server says and what the service's agent says.
    assert '"POST /invocations HTTP/1.1" 200' in done.stdout
    assert "[sagemaker logs]: MaxConcurrentTransforms=2, MaxPayloadInMB=1" in done.stdout
    assert seen["attached"] == ["sdk-capitals", f"s3://{bucket}/sdk-completes/out", 1]
    status, message = seen["failure"]
    assert status == "Failed"
    assert "Reason: ClientError: See job logs for more information." in message
    assert seen["stopped"] == "Stopped"
    outputs = cloud.client("s3").list_objects_v2(Bucket=bucket, Prefix="sdk-stops/out")
    assert outputs["KeyCount"] == 0
    models = cloud.client("sagemaker").list_models(NameContains="sdk-capitals")["Models"]
    assert models == []
