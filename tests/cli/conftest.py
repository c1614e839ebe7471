"""A pipeline in moto, whose ledger is written by the Lambdas' own code: the CLI must read that."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from moto import mock_aws

from batch_transform_cli.pipeline_client import Cloud, PipelineClient
from transform_lambdas.drops import Drop
from transform_lambdas.ledger import Ledger

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


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
            "ledger-table": "ledger",
            **facts,
        }
        ssm = boto3.client("ssm")
        for name, value in facts.items():
            ssm.put_parameter(
                Name=f"/batch-transform/{pipeline_id}/{name}", Value=value, Type="String"
            )

    return published


@pytest.fixture
def ledger(publish: Any) -> Ledger:
    publish("churn-1")
    boto3.client("s3").create_bucket(Bucket="out")
    names = ("pk", "sk", "queue", "due")
    table = boto3.resource("dynamodb").create_table(
        TableName="ledger",
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
    return Ledger(table, now=lambda: NOON)


@pytest.fixture
def client(ledger: Ledger) -> PipelineClient:
    return PipelineClient.find(Cloud())


@pytest.fixture
def settled_run(ledger: Ledger) -> str:
    """A run of two drops, one of them done and one failed; a third drop waits."""
    good, bad, late = (_drop(f"input/{name}.csv") for name in ("good", "bad", "late"))
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


def _keys(partition: str, sort: str) -> list[dict[str, str]]:
    return [
        {"AttributeName": partition, "KeyType": "HASH"},
        {"AttributeName": sort, "KeyType": "RANGE"},
    ]


def _drop(key: str) -> Drop:
    return Drop(
        key=key,
        order="1",
        size=120,
        etag="e",
        version_id="v1",
        dropped_at="2026-03-01T11:59:57.000Z",
    )
