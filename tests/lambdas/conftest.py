"""A pipeline in memory: moto for AWS, our real code, and a state machine in Python."""

import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import boto3
import pytest
from moto import mock_aws

from transform_lambdas.backfill import Backfill
from transform_lambdas.batches import BatchPolicy
from transform_lambdas.dispatch import Dispatcher, run_of
from transform_lambdas.drops import Drop
from transform_lambdas.index import Indexer
from transform_lambdas.inputs import Inputs
from transform_lambdas.intake import Intake, Receiver
from transform_lambdas.intake_queue import IntakeQueue
from transform_lambdas.ledger import Ledger
from transform_lambdas.outcomes import ErrorBudget
from transform_lambdas.predictions import CsvRecords, PredictionTable
from transform_lambdas.record_counts import Check, RecordCounts
from transform_lambdas.redrive import Redrive
from transform_lambdas.run_files import RunFiles, in_turn
from transform_lambdas.settle import Settlement
from transform_lambdas.transform_jobs import Job
from transform_lambdas.uploads import Uploads
from transform_lambdas.wake_queue import WakeQueue

INPUT, OUTPUT = "input-bucket", "output-bucket"


class Serial:
    """A client whose calls come one after the other: moto is not made for threads."""

    _lock = threading.RLock()

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._client, name)
        if name == "exceptions" or not callable(member):
            return member

        def call(*args: Any, **kwargs: Any) -> Any:
            with self._lock:
                return member(*args, **kwargs)

        return call


@dataclass
class FakeExecutions:
    """Step Functions as far as dispatch knows it."""

    started: dict[str, dict[str, Any]] = field(default_factory=dict)
    statuses: dict[str, str] = field(default_factory=dict)

    def start(self, name: str, arguments: dict[str, Any]) -> None:
        if name not in self.started:
            self.started[name] = arguments
            self.statuses[name] = "RUNNING"

    def status(self, name: str) -> str | None:
        return self.statuses.get(name)


@dataclass
class FakeJobs:
    """SageMaker and its data-log as far as settle knows them.

    :ivar said: what the data-logs say of an object, by its key or by the end of it.
    :ivar answers: what a job writes of an object's bytes. Default: the same bytes.
    """

    jobs: dict[str, list[Job]] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)
    answers: Callable[[bytes], bytes] = lambda body: body
    stopped: list[str] = field(default_factory=list)

    def of_run(self, run_id: str) -> list[Job]:
        return self.jobs.get(run_id, [])

    def stop(self, job: Job) -> None:
        self.stopped.append(job.name)

    def describe(self, jobs: Sequence[Job]) -> list[dict[str, Any]]:
        began = datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC)
        return [
            {
                "TransformJobName": job.name,
                "ModelName": "churn-v1",
                "CreationTime": began,
                "TransformStartTime": began + timedelta(seconds=200),
                "TransformEndTime": began + timedelta(seconds=260.5),
                "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 2},
                "BatchStrategy": "MultiRecord",
                "Environment": {"TOKEN": "not for readers of reports"},
            }
            for job in jobs
        ]

    def model(self, name: str) -> dict[str, Any] | str:
        return {
            "ModelName": name,
            "ModelArn": f"arn:aws:sagemaker:us-east-1:111122223333:model/{name}",
            "CreationTime": datetime(2026, 2, 1, tzinfo=UTC),
            "ExecutionRoleArn": "arn:aws:iam::111122223333:role/model",
            "PrimaryContainer": {"Image": "image:1", "ModelDataUrl": "s3://models/model.tar.gz"},
        }

    def complaints(self, jobs: Any, *, bucket: str, keys: Any) -> dict[str, str]:
        found = {key: self.complaint(key) for key in keys if jobs}
        return {key: text for key, text in found.items() if text is not None}

    def complaint(self, key: str) -> str | None:
        texts = (text for name, text in self.said.items() if f"/{key}".endswith(f"/{name}"))
        return next(texts, None)


@cache
def _clients() -> tuple[Any, Any, Any]:
    return boto3.client("s3"), boto3.resource("dynamodb"), boto3.client("sqs")


class World:
    """One pipeline and its AWS account."""

    def __init__(self, *, steps: Sequence[str] = ("score",), **policy: Any) -> None:
        self.steps = steps
        self.time = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
        self.s3, self.dynamodb, self.sqs = _clients()
        for bucket in (INPUT, OUTPUT):
            self.s3.create_bucket(Bucket=bucket)
            self.s3.put_bucket_versioning(
                Bucket=bucket, VersioningConfiguration={"Status": "Enabled"}
            )
        self.ledger_table = self._make_table("ledger", "pk", "sk", index=True)
        self.prediction_table = self._make_table("predictions", "record_id", "dropped_at")
        self.queue_url = self.sqs.create_queue(QueueName="wake")["QueueUrl"]
        self.executions = FakeExecutions()
        self.jobs = FakeJobs()
        self.policy = BatchPolicy(
            **{"max_wait_s": 60, "max_objects": 100, "max_bytes": 10**9, **policy}
        )
        self.uploads = Uploads(prefix="input/", marker="_SUCCESS")
        self.intake_queue_url = self.sqs.create_queue(QueueName="intake")["QueueUrl"]
        self.backfill_time: Callable[[], float] = lambda: 60
        self.slots = 2
        self.attempts = 3
        self.checks: list[Check | None] | None = None
        self.budget: float | None = None
        self._sequence = 0
        self.ledger = self._ledger()
        self.files = RunFiles(Serial(self.s3), OUTPUT)

    def _make_table(self, name: str, pk: str, sk: str, *, index: bool = False) -> Any:
        def schema(first: str, second: str) -> list[dict[str, str]]:
            return [
                {"AttributeName": first, "KeyType": "HASH"},
                {"AttributeName": second, "KeyType": "RANGE"},
            ]

        names = [pk, sk, *(("queue", "due") if index else ())]
        indexes: dict[str, Any] = {}
        if index:
            indexes["GlobalSecondaryIndexes"] = [
                {
                    "IndexName": "queue",
                    "KeySchema": schema("queue", "due"),
                    "Projection": {"ProjectionType": "ALL"},
                }
            ]
        return self.dynamodb.create_table(
            TableName=name,
            KeySchema=schema(pk, sk),
            AttributeDefinitions=[
                {"AttributeName": attribute, "AttributeType": "S"} for attribute in names
            ],
            BillingMode="PAY_PER_REQUEST",
            **indexes,
        )

    def _ledger(self) -> Ledger:
        ledger = Ledger(self.ledger_table, now=lambda: self.time)
        ledger._client = Serial(ledger._client)
        return ledger

    @property
    def wake_queue(self) -> WakeQueue:
        return WakeQueue(Serial(self.sqs), self.queue_url)

    @property
    def dispatcher(self) -> Dispatcher:
        return Dispatcher(
            pipeline_id="churn",
            ledger=self.ledger,
            files=self.files,
            input_bucket=INPUT,
            executions=self.executions,  # type: ignore[arg-type]  # all that dispatch asks of it
            wake_queue=self.wake_queue,
            policy=self.policy,
            slots=self.slots,
            now=lambda: self.time,
        )

    @property
    def settlement(self) -> Settlement:
        inputs = Inputs(Serial(self.s3), INPUT)
        steps = in_turn(self.steps)
        checks = [Check() for _ in steps] if self.checks is None else self.checks
        return Settlement(
            pipeline_id="churn",
            ledger=self.ledger,
            files=self.files,
            inputs=inputs,
            intake_queue=IntakeQueue(Serial(self.sqs), self.intake_queue_url),
            jobs=self.jobs,  # type: ignore[arg-type]  # all that settle asks of it
            wake_queue=self.wake_queue,
            output_prefix="predictions/",
            steps=steps,
            records=RecordCounts(files=self.files, inputs=inputs, steps=steps, checks=checks),
            max_attempts=self.attempts,
            budget=ErrorBudget(self.budget),
            indexed=True,
        )

    def pass_time(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)

    def event(self, key: str, body: bytes = b"1,2\n", sequencer: str | None = None) -> Any:
        """Upload an object and return the event that S3 sends of it."""
        self._sequence += 1
        put = self.s3.put_object(Bucket=INPUT, Key=key, Body=body)
        return {
            "time": self.time.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "detail": {
                "bucket": {"name": INPUT},
                "object": {
                    "key": key,
                    "size": len(body),
                    "etag": put["ETag"].strip('"'),
                    "version-id": put["VersionId"],
                    "sequencer": sequencer or f"{self._sequence:016X}",
                },
            },
        }

    def take(self, *events: Any) -> list[str]:
        """Deliver events to intake; return the messages that are to come again."""
        return self._take(*events)[1]

    def count(self, *events: Any) -> dict[str, int]:
        """Deliver events to intake; return what it counts."""
        return self._take(*events)[0]

    def _take(self, *events: Any) -> tuple[dict[str, int], list[str]]:
        messages = [
            {"messageId": str(number), "body": json.dumps(event)}
            for number, event in enumerate(events)
        ]
        return self.receiver.receive(messages, time_left_s=lambda: 60)

    @property
    def receiver(self) -> Receiver:
        intake = Intake(self.ledger, self.wake_queue, uploads=self.uploads)
        backfill = Backfill(
            recorder=intake,
            ledger=self.ledger,
            wake_queue=self.wake_queue,
            s3=self.s3,
            bucket=INPUT,
            intake_queue=IntakeQueue(self.sqs, self.intake_queue_url),
            uploads=self.uploads,
            now=lambda: self.time,
        )
        redrive = Redrive(
            ledger=self.ledger,
            wake_queue=self.wake_queue,
            s3=Serial(self.s3),
            bucket=INPUT,
            uploads=self.uploads,
        )
        return Receiver(intake, backfill, redrive)

    def backfill(self, **asked: Any) -> dict[str, int]:
        """Ask for a backfill and let it come to its end; return what it counts."""
        counts: Counter[str] = Counter()
        messages = [{"messageId": "0", "body": json.dumps({"backfill": asked})}]
        while messages:
            counted, failed = self.receiver.receive(messages, time_left_s=self.backfill_time)
            assert not failed
            counts += counted
            answer = self.sqs.receive_message(QueueUrl=self.intake_queue_url)
            messages = [
                {"messageId": message["MessageId"], "body": message["Body"]}
                for message in answer.get("Messages", [])
            ]
        return counts

    def drop(self, key: str, body: bytes = b"1,2\n", sequencer: str | None = None) -> Drop:
        """Upload an object and have it recorded."""
        event = self.event(key, body, sequencer)
        assert not self.take(event)
        return Drop.from_event(event)

    def dispatch(self) -> list[str]:
        dispatcher = self.dispatcher
        dispatcher.look_after_open_runs()
        return dispatcher.dispatch(time_left_s=lambda: 600)

    def execution_ended(self, name: str) -> None:
        run_id = run_of({"detail": {"name": name}})
        assert run_id
        self.dispatcher.look_at(run_id)

    def do_job(self, run_id: str, begin: dict[str, Any] | None = None) -> None:
        """Do as a transform job: an output for each object that nothing complains of.

        :param begin: what the step begins with. Default: what dispatch starts step 1 with.
        """
        begin = begin or self.executions.started[run_id]
        head, *names = self.read(f"runs/{run_id}/manifest-{begin['step']}.json")
        from_bucket, _, prefix = head["prefix"].removeprefix("s3://").partition("/")
        assert (from_bucket == INPUT) == (begin["step"] == 1)
        bodies = [
            self.s3.get_object(Bucket=from_bucket, Key=prefix + name)["Body"].read()
            for name in names
        ]
        assert (begin["objects"], begin["size_bytes"]) == (len(bodies), len(b"".join(bodies)))
        to_prefix = f"runs/{run_id}/step-{begin['step']}-of-{len(self.steps)}"
        for name, body in zip(names, bodies, strict=True):
            if self.jobs.complaint(prefix + name) is None:
                self.s3.put_object(
                    Bucket=OUTPUT, Key=f"{to_prefix}/{name}.out", Body=self.jobs.answers(body)
                )
        failed = any(self.jobs.complaint(prefix + name) for name in names)
        status = "Failed" if failed else "Completed"
        reason = "ClientError: See job logs for more information" if failed else ""
        job = Job(f"{run_id}-s{begin['step']}-0", status, reason)
        self.jobs.jobs[run_id] = [job, *self.jobs.jobs.get(run_id, [])]

    def execute(self, name: str) -> dict[str, Any]:
        """Do as the state machine: the steps unless it only finishes, settle, index."""
        told = self.executions.started[name]
        run_id = told["run_id"]
        while not told.get("finish"):
            self.do_job(run_id, told)
            told = self.settle({"run_id": run_id, "step": told["step"]})
            if told["status"] != "NextStep":
                break
        result = self.settle({"run_id": run_id}) if told.get("finish") else told
        for part in range(result.get("index_parts", 0)):
            self.indexer.index(run_id, part)
        self.executions.statuses[name] = "SUCCEEDED"
        return result

    def settle(self, told: dict[str, Any]) -> dict[str, Any]:
        """Do as the state machine when a step has ended, until settle asks for something else."""
        answer = self.settlement.settle(told)
        if answer["status"] != "CountRecords":
            return answer
        for part in range(answer["count_parts"]):
            self.settlement.count(told["run_id"], part)
        return self.settlement.settle(answer | {"counted": answer["count_parts"]})

    @property
    def indexer(self) -> Indexer:
        table = PredictionTable(self.prediction_table)
        table._client = Serial(table._client)
        return Indexer(
            files=self.files,
            table=table,
            record_format=CsvRecords(0),
            retention_days=None,
        )

    def items(self) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.ledger_table.scan()["Items"]
        return items

    def statuses(self) -> dict[str, str]:
        """Return key → status of its drops, versions in order."""
        drops = sorted(
            (item for item in self.items() if item["sk"].startswith("drop#")),
            key=lambda item: (item["object_key"], item["ordering"]),
        )
        found: dict[str, str] = {}
        for item in drops:
            key = item["object_key"]
            found[key] = (
                f"{found[key]}, {item['drop_status']}" if key in found else item["drop_status"]
            )
        return found

    def reason(self, drop: Drop) -> str:
        item = self.ledger_table.get_item(
            Key={"pk": f"key#{drop.key}", "sk": f"drop#{drop.order}"}
        )["Item"]
        return str(item["reason"])

    def permits_held(self) -> list[str]:
        """Return what some run holds: slots, the right to gather, heads of keys."""
        return [
            item["pk"]
            for item in self.items()
            if item["sk"] not in ("run", "queue") and "run_id" in item and "drop_status" not in item
        ]

    def wake_ups(self) -> int:
        """Return how many messages the wake queue holds, delayed ones too."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesDelayed"]
        answer = self.sqs.get_queue_attributes(QueueUrl=self.queue_url, AttributeNames=names)
        return sum(int(answer["Attributes"][name]) for name in names)

    def is_quiet(self) -> bool:
        """Whether every drop has ended and every run is closed."""
        return not any(
            "queue" in item or item.get("drop_status") == "claimed" for item in self.items()
        )

    def prediction(self, key: str) -> bytes:
        answer = self.s3.get_object(Bucket=OUTPUT, Key=f"predictions/{key}.out")
        body: bytes = answer["Body"].read()
        return body

    def read(self, key: str) -> Any:
        """Return the JSON that a run keeps under this key."""
        return json.load(self.s3.get_object(Bucket=OUTPUT, Key=key)["Body"])


@pytest.fixture(autouse=True)
def fresh_aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty AWS account for each test."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    with mock_aws():
        yield


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def make_world() -> Callable[..., World]:
    """Make a world with another policy, or more steps."""
    return World
