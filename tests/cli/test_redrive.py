"""The command `redrive`: what it chooses, what it asks intake for, what it moves."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest

from batch_transform_cli.errors import CommandError
from batch_transform_cli.pipelines.dead_letters import DeadLetters
from batch_transform_cli.pipelines.records import Drop
from batch_transform_cli.pipelines.redrive import choose, requests
from transform_lambdas.backfill import Backfill
from transform_lambdas.intake import Intake, Receiver
from transform_lambdas.intake_queue import IntakeQueue
from transform_lambdas.ledger import Ledger
from transform_lambdas.redrive import Redrive
from transform_lambdas.uploads import Uploads
from transform_lambdas.wake_queue import WakeQueue

Run = Callable[..., Any]

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
FAILED = Drop(
    key="input/a.csv",
    status="failed",
    size=120,
    attempts=3,
    run_id="churn-1-r1",
    dropped_at="2026-03-01T09:00:00.000Z",
    reason="input/a.csv: ClientError: 400: row 7 is bad",
    order="1",
    waiting_since="",
    failed_at="2026-03-01T10:00:00.000Z",
)


def failed(key: str, **changes: Any) -> Drop:
    return replace(FAILED, key=key, **changes)


# What is chosen


def test_what_failed_is_chosen_in_the_order_in_which_it_failed() -> None:
    late = failed("input/late.csv", failed_at="2026-03-01T11:00:00.000Z")
    done = failed("input/done.csv", status="done", failed_at="")

    assert choose([late, done, FAILED]).drops == [FAILED, late]


def test_a_failed_version_that_was_overtaken_is_not() -> None:
    newer = replace(FAILED, order="2", status="done", failed_at="")

    assert choose([newer, FAILED]).drops == []


def test_since_and_key_leave_out_all_else() -> None:
    late = failed("input/late.csv", failed_at="2026-03-01T11:00:00.000Z")
    drops = [FAILED, late]

    assert choose(drops, since=NOON - timedelta(minutes=90)).drops == [late]
    assert choose(drops, keys=["input/a.csv", "input/a.csv"]).drops == [FAILED]
    both = choose(drops, since=NOON - timedelta(minutes=90), keys=["input/a.csv"])
    assert (both.drops, both.left) == ([], {"input/a.csv": "failed"})


def test_a_key_that_has_not_failed_is_told_and_one_that_is_unknown_is_refused() -> None:
    waiting = failed("input/b.csv", status="waiting", failed_at="")

    assert choose([FAILED, waiting], keys=["input/b.csv"]).left == {"input/b.csv": "waiting"}
    with pytest.raises(CommandError, match=r"of a drop, got 'input/c.csv'; see `batch-transform"):
        choose([FAILED], keys=["input/a.csv", "input/c.csv"])


def test_a_message_has_room_in_sqs_for_the_longest_keys() -> None:
    asked = list(requests([failed(f"{number:1024}") for number in range(45)]))

    assert [len(message["redrive"]) for message in asked] == [20, 20, 5]
    # SQS takes 256 KB a call, and dead letters go back in tens.
    assert len(json.dumps(asked[0])) < 256 * 1024 / 10


# What it does


@pytest.fixture
def intake(ledger: Ledger, intake_queue_url: str) -> Callable[[], int]:
    """Lets intake read its queue once; returns how many messages there were."""
    sqs, uploads = boto3.client("sqs"), Uploads(prefix="input/")
    wake_queue = WakeQueue(sqs, sqs.create_queue(QueueName="woken")["QueueUrl"])
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="inputs")
    for name in ("good", "bad", "late"):
        s3.put_object(Bucket="inputs", Key=f"input/{name}.csv", Body=b"1")
    recorder = Intake(ledger, wake_queue, uploads=uploads)
    receiver = Receiver(
        recorder,
        Backfill(
            recorder=recorder,
            ledger=ledger,
            wake_queue=wake_queue,
            s3=s3,
            bucket="inputs",
            intake_queue=IntakeQueue(sqs, intake_queue_url),
            uploads=uploads,
        ),
        Redrive(ledger=ledger, wake_queue=wake_queue, s3=s3, bucket="inputs", uploads=uploads),
    )

    def read() -> int:
        got = sqs.receive_message(QueueUrl=intake_queue_url, MaxNumberOfMessages=10)
        messages = [
            {"messageId": message["MessageId"], "body": message["Body"]}
            for message in got.get("Messages", [])
        ]
        assert receiver.receive(messages, time_left_s=lambda: 60)[1] == []
        return len(messages)

    return read


@pytest.fixture
def dead_upload(intake_queue_url: str, wake_queue_url: str) -> Callable[[], list[str]]:
    """Puts a message among the dead letters of uploads; returns those that are there."""
    sqs = boto3.client("sqs")
    url = DeadLetters.of(sqs, intake_queue_url, what="uploads").url
    sqs.send_message(QueueUrl=url, MessageBody='{"detail": "é"}')

    def look() -> list[str]:
        got = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=0)
        return [message["Body"] for message in got.get("Messages", [])]

    return look


def statuses(batch_transform: Run) -> dict[str, str]:
    drops = batch_transform("status", "--json").document["drops"]
    return {drop["key"]: drop["status"] for drop in drops}


def test_a_failed_drop_waits_again_and_a_second_redrive_finds_nothing(
    settled_run: str, intake: Callable[[], int], wake_queue_url: str, batch_transform: Run
) -> None:
    first = batch_transform("redrive")

    assert first.code == 0
    assert "row 7 is bad" in first.out
    assert "1 failed drop is asked to be tried again" in first.out
    assert intake() == 1
    assert statuses(batch_transform) == {
        "input/good.csv": "done",
        "input/bad.csv": "waiting",
        "input/late.csv": "waiting",
    }
    assert "no failed drop is to be tried again" in batch_transform("redrive").out
    assert intake() == 0


def test_twice_in_a_row_is_once(
    settled_run: str, intake: Callable[[], int], wake_queue_url: str, batch_transform: Run
) -> None:
    for _ in range(2):
        assert batch_transform("redrive", "--key", "input/bad.csv").code == 0

    assert intake() == 2
    assert statuses(batch_transform)["input/bad.csv"] == "waiting"


def test_a_dry_run_says_what_would_be_done_and_does_nothing(
    settled_run: str,
    intake: Callable[[], int],
    dead_upload: Callable[[], list[str]],
    batch_transform: Run,
) -> None:
    shown = batch_transform("redrive", "--dry-run")
    told = batch_transform("redrive", "--dry-run", "--json").document

    assert "1 failed drop would be tried again" in shown.out
    assert "1 dead letter of uploads would move back" in shown.out
    assert (told["pipeline"], told["dry_run"]) == ("churn-1", True)
    assert [drop["key"] for drop in told["drops"]] == ["input/bad.csv"]
    assert told["dead_letters"] == {"uploads": 1, "wake-ups": 0}
    assert intake() == 0
    assert len(dead_upload()) == 1
    assert statuses(batch_transform)["input/bad.csv"] == "failed"


def test_dead_letters_move_back_as_they_are(
    ledger: Ledger,
    intake_queue_url: str,
    dead_upload: Callable[[], list[str]],
    batch_transform: Run,
) -> None:
    assert batch_transform("redrive", "--json").document["dead_letters"] == {
        "uploads": 1,
        "wake-ups": 0,
    }

    assert dead_upload() == []
    moved = boto3.client("sqs").receive_message(QueueUrl=intake_queue_url)["Messages"]
    assert [message["Body"] for message in moved] == ['{"detail": "é"}']


def test_dead_letters_stay_when_drops_are_named(
    settled_run: str,
    intake: Callable[[], int],
    dead_upload: Callable[[], list[str]],
    batch_transform: Run,
) -> None:
    done = batch_transform("redrive", "--key", "input/good.csv", "--since", "1h")

    assert (done.code, len(dead_upload())) == (0, 1)
    assert "input/good.csv is left as it is: done" in done.out
    assert "dead letters stay; they move when neither --since nor --key is given" in done.out


class Interrupted(Exception):
    """The user has had enough."""


class Sqs:
    """SQS, until the user interrupts after so many calls that change something."""

    def __init__(self, calls: int) -> None:
        self._sqs = boto3.client("sqs")
        self._left = calls

    def __getattr__(self, name: str) -> Any:
        def call(**arguments: Any) -> Any:
            if name.endswith("_batch"):
                if not self._left:
                    raise Interrupted
                self._left -= 1
            return getattr(self._sqs, name)(**arguments)

        return call


@pytest.mark.parametrize("calls", range(5))
def test_who_is_interrupted_while_dead_letters_move_loses_none(
    calls: int, intake_queue_url: str
) -> None:
    sqs = boto3.client("sqs")
    dead = DeadLetters.of(sqs, intake_queue_url, what="uploads")
    sqs.set_queue_attributes(QueueUrl=dead.url, Attributes={"VisibilityTimeout": "0"})
    sent = {f"message {number}" for number in range(15)}
    for body in sent:
        sqs.send_message(QueueUrl=dead.url, MessageBody=body)

    try:
        dead.move_back(Sqs(calls))
        assert calls == 4
    except Interrupted:
        dead.move_back(sqs)

    there = []
    while got := sqs.receive_message(QueueUrl=intake_queue_url, MaxNumberOfMessages=10).get(
        "Messages"
    ):
        there += [message["Body"] for message in got]
    assert set(there) == sent
    assert len(there) <= len(sent) + 10


def test_fails_when_the_deployment_is_too_old_to_say_where_its_queues_are(
    publish: Any, ledger: Ledger, intake_queue_url: str, batch_transform: Run
) -> None:
    boto3.client("ssm").delete_parameter(Name="/batch-transform/churn-1/wake-queue-url")

    ended = batch_transform("redrive")

    assert ended.code == 1
    assert "must publish /batch-transform/churn-1/wake-queue-url, got a deploy" in ended.err
