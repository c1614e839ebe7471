"""A pipeline in moto, whose ledger is written by the Lambdas' own code: the CLI must read that.

And for `run`: folders of objects, model images whose server behaves as told, and an emulated S3.
"""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws
from moto.sagemaker.models import sagemaker_backends

from batch_transform_cli import entry
from batch_transform_cli.cloud import Cloud
from batch_transform_cli.pipelines.client import PipelineClient
from local_cloud import LocalCloud
from transform_engine import conformance_model
from transform_lambdas.drops import Drop
from transform_lambdas.ledger import Ledger

MACHINE = "arn:aws:states:us-east-1:123456789012:stateMachine:churn"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def no_width_of_whoever_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines fold as for a user whose output goes to a program."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(autouse=True)
def no_cloud_of_the_checkout(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A `batch-transform up` in the checkout is nothing to these tests."""
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    with mock_aws():
        yield


@pytest.fixture
def publish(aws: None) -> Any:
    """Return what publishes a pipeline as the construct does."""

    def published(pipeline_id: str, **facts: str) -> None:
        facts = {
            "input-bucket": "in",
            "input-prefix": "input/",
            "output-bucket": "out",
            "intake-queue-url": "https://sqs.us-east-1.amazonaws.com/123456789012/intake",
            "ledger-table": "ledger",
            "max-concurrent-runs": "2",
            "state-machine-arn": MACHINE,
            "wake-queue-url": "https://sqs.us-east-1.amazonaws.com/123456789012/wake",
            **facts,
        }
        ssm = boto3.client("ssm")
        for name, value in facts.items():
            ssm.put_parameter(
                Name=f"/batch-transform/{pipeline_id}/{name}", Value=value, Type="String"
            )

    return published


@pytest.fixture
def make_ledger(publish: Any) -> Callable[..., Ledger]:
    """Makes a pipeline's ledger, and publishes the pipeline."""

    def make(pipeline_id: str, table: str = "ledger") -> Ledger:
        publish(pipeline_id, **{"ledger-table": table})
        names = ("pk", "sk", "queue", "due")
        made = boto3.resource("dynamodb").create_table(
            TableName=table,
            KeySchema=_keys("pk", "sk"),
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in names],
            GlobalSecondaryIndexes=[
                {
                    "IndexName": "queue",
                    "KeySchema": _keys("queue", "due"),
                    "Projection": {"ProjectionType": "ALL"},
                }
            ],
            BillingMode="PAY_PER_REQUEST",
        )
        return Ledger(made, now=lambda: NOON)

    return make


@pytest.fixture
def ledger(make_ledger: Callable[..., Ledger]) -> Ledger:
    boto3.client("s3").create_bucket(Bucket="out")
    return make_ledger("churn-1")


@pytest.fixture
def intake_queue_url(aws: None) -> str:
    return _queue("intake")


@pytest.fixture
def wake_queue_url(aws: None) -> str:
    return _queue("wake")


@pytest.fixture
def client(ledger: Ledger) -> PipelineClient:
    return PipelineClient.find(Cloud())


@pytest.fixture
def settled_run(ledger: Ledger) -> str:
    """A run of two drops, one of them done and one failed; a third drop waits."""
    good, bad, late = (make_drop(f"input/{name}.csv") for name in ("good", "bad", "late"))
    for drop in (good, bad, late):
        ledger.record(drop)
    ledger.open_run("churn-1-r1", slot=0, drops=2, look_again_s=60)
    ledger.claim("churn-1-r1", [good, bad])
    ledger.end_claiming("churn-1-r1", drops=2, size_bytes=240)
    ledger.mark_running("churn-1-r1")
    ledger.finish_drop("churn-1-r1", good, output="predictions/input/good.csv.out")
    ledger.fail_drop("churn-1-r1", bad, reason="input/bad.csv: ClientError: 400: row 7 is bad")
    run = ledger.run("churn-1-r1")
    assert run is not None
    counts = {"done": 1, "waiting": 0, "failed": 1}
    ledger.settle_run(run, {"outcome": "PartiallyCompleted", "counts": counts})
    ledger.close_run("churn-1-r1")
    return "churn-1-r1"


@pytest.fixture
def run_in_flight(ledger: Ledger) -> str:
    """A run of two drops whose job runs, and has written one of two outputs."""
    drops = [make_drop(f"input/{name}.csv") for name in "ab"]
    for drop in drops:
        ledger.record(drop)
    run_id = "churn-1-r7"
    ledger.open_run(run_id, slot=0, drops=2, look_again_s=60)
    ledger.claim(run_id, drops)
    ledger.end_claiming(run_id, drops=2, size_bytes=240)
    ledger.mark_running(run_id)
    boto3.client("s3").put_object(
        Bucket="out", Key=f"runs/{run_id}/step-1-of-1/input/a.csv.out", Body=b"1"
    )
    job = f"{run_id}-s1-0"
    source = {"S3DataType": "S3Prefix", "S3Uri": "s3://in/"}
    boto3.client("sagemaker").create_transform_job(
        TransformJobName=job,
        ModelName="churn",
        TransformInput={"DataSource": {"S3DataSource": source}},
        TransformOutput={"S3OutputPath": "s3://out/"},
        TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 2},
    )
    # moto's jobs are completed from the beginning.
    sagemaker = sagemaker_backends["123456789012"]["us-east-1"]
    sagemaker.transform_jobs[job].transform_job_status = "InProgress"
    states = boto3.client("stepfunctions")
    states.create_state_machine(
        name="churn",
        definition='{"StartAt": "Wait", "States": {"Wait": {"Type": "Succeed"}}}',
        roleArn="arn:aws:iam::123456789012:role/churn",
    )
    states.start_execution(stateMachineArn=MACHINE, name=run_id)
    return run_id


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The JSON document that it printed."""
        return json.loads(self.out)


@pytest.fixture
def batch_transform(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ended]:
    """Runs the command as its entry point does."""

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr("sys.argv", ["batch-transform", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            entry.app()
        code = ended.value.code
        assert isinstance(code, int)
        said = capsys.readouterr()
        return Ended(code, said.out, said.err)

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of objects."""

    def make(name: str = "in", **contents: str | bytes) -> Path:
        home = tmp_path / name
        home.mkdir(exist_ok=True)
        for key, content in contents.items():
            data = content if isinstance(content, bytes) else content.encode()
            (home / key.replace("_", ".")).write_bytes(data)
        return home

    return make


@pytest.fixture
def image(tmp_path: Path) -> Callable[..., Path]:
    """Makes an image folder whose server behaves as told (see conformance_model)."""

    def make(behaviour: str | None = "csv_sum", name: str = "image", **config: Any) -> Path:
        home = tmp_path / name
        home.mkdir()
        whole: dict[str, Any] = {"container": 1, "script": [], "class_reply": "{}", **config}
        (home / "config.json").write_text(json.dumps({"behaviour": behaviour, **whole}))
        program = conformance_model.__file__
        serve = home / "serve"
        serve.write_text(
            f"#!/bin/sh\nexec {sys.executable} -IS {program} config.json calls.jsonl\n"
        )
        serve.chmod(0o755)
        return home

    return make


@pytest.fixture(scope="session")
def emulator() -> Iterator[LocalCloud]:
    with LocalCloud() as cloud:
        yield cloud


def _queue(name: str) -> str:
    """Make a queue that has dead letters."""
    sqs = boto3.client("sqs")
    sqs.create_queue(QueueName=f"{name}-dead")
    dead = f"arn:aws:sqs:us-east-1:123456789012:{name}-dead"
    policy = json.dumps({"deadLetterTargetArn": dead, "maxReceiveCount": 5})
    return str(sqs.create_queue(QueueName=name, Attributes={"RedrivePolicy": policy})["QueueUrl"])


def _keys(partition: str, sort: str) -> list[dict[str, str]]:
    return [
        {"AttributeName": partition, "KeyType": "HASH"},
        {"AttributeName": sort, "KeyType": "RANGE"},
    ]


def make_drop(key: str) -> Drop:
    return Drop(
        key=key,
        order="1",
        size=120,
        etag="e",
        version_id="v1",
        dropped_at="2026-03-01T11:59:57.000Z",
    )
