"""S3 event in, drop in the ledger out: once, whatever is delivered twice, late or out of order.

And backfills and redrives, which come by the same queue.
"""

import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import boto3
from botocore.config import Config

from transform_lambdas import metrics
from transform_lambdas.backfill import Backfill
from transform_lambdas.drops import Drop
from transform_lambdas.intake_queue import IntakeQueue
from transform_lambdas.ledger import Ledger
from transform_lambdas.redrive import Redrive
from transform_lambdas.uploads import Uploads
from transform_lambdas.wake_queue import WakeQueue

_AT_ONCE = 16  # calls to DynamoDB, each on a connection of its own
_METRICS = ("DropsReceived", "DropsFailed", "DropsSuperseded")

logger = logging.getLogger(__name__)


class Intake:
    """Writes drops to the ledger and wakes dispatch."""

    def __init__(self, ledger: Ledger, wake_queue: WakeQueue, *, uploads: Uploads) -> None:
        self._ledger = ledger
        self._wake_queue = wake_queue
        self._uploads = uploads

    def take(self, events: Sequence[Mapping[str, Any]]) -> list[Counter[str] | None]:
        """Record the events' drops; return what to count of each, and `None` for a failure.

        An event that fails does not hold up the others.
        """
        if not events:
            return []
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            outcomes = list(pool.map(self._take_one, events))
        if any(outcome is not None for outcome in outcomes):
            self._wake_queue.wake()
        return outcomes

    def _take_one(self, event: Mapping[str, Any]) -> Counter[str] | None:
        try:
            drop = Drop.from_event(event)
            if drop.is_folder_marker:
                logger.info("not a drop: %r is the marker of a folder", drop.key)
                return Counter()
            if self._uploads.is_marker(drop.key):
                self._ledger.mark(drop.dropped_at)
                return Counter()
            known = [entry.drop for entry in self._ledger.newest_few(drop.key)]
            if any(other.was_listed and other.is_same_upload(drop) for other in known):
                return Counter()  # A backfill was faster than the event.
            if known and known[0].was_listed:
                drop = drop.below_if_older(known[0])
            return self.record(drop)
        except Exception:  # one bad event must not hold up the rest; SQS keeps it
            logger.exception("an S3 event must be recorded, and one was not; it comes again")
            return None

    def record(self, drop: Drop, *, since: str | None = None) -> Counter[str]:
        """Write a drop down, if it is new, and return what to count of it.

        :param since: when it begins to wait. Default: when it was uploaded.
        """
        problem = self._uploads.problem(drop)
        is_new = self._ledger.record(drop, problem=problem, since=since)
        # Also when it is not new: whoever wrote it may have come no further.
        counts = Counter(DropsSuperseded=self._ledger.supersede(drop))
        if is_new and problem:
            logger.warning("%s: %s", drop.key, problem)
        if is_new:
            counts += Counter(DropsReceived=1, DropsFailed=int(problem is not None))
        return counts


@dataclass(frozen=True, slots=True)
class Receiver:
    """Gives each message of intake's queue to whom it is for."""

    intake: Intake
    backfill: Backfill
    redrive: Redrive

    def receive(
        self, messages: Sequence[Mapping[str, Any]], *, time_left_s: Callable[[], float]
    ) -> tuple[Counter[str], list[str]]:
        """Return metrics of the messages, and which of them must come again.

        A message that fails is delivered again, and in the end is in the dead-letter queue.
        """
        counts: Counter[str] = Counter()
        failed: list[str] = []
        events: dict[str, Mapping[str, Any]] = {}
        requests: dict[str, Callable[[], Mapping[str, int] | None]] = {}
        for message in messages:
            identifier = message["messageId"]
            try:
                body = json.loads(message["body"])
            except ValueError:
                logger.exception("message %s must be JSON", identifier)
                failed.append(identifier)
                continue
            asked = body if isinstance(body, dict) else {}
            if "backfill" in asked:
                requests[identifier] = partial(
                    self.backfill.go_on, asked["backfill"], time_left_s=time_left_s
                )
            elif "redrive" in asked:
                requests[identifier] = partial(self.redrive.retry, asked["redrive"])
            else:
                events[identifier] = body
        outcomes = self.intake.take(list(events.values()))
        for identifier, outcome in zip(events, outcomes, strict=True):
            if outcome is None:
                failed.append(identifier)
            else:
                counts += outcome
        for identifier, request in requests.items():
            try:
                counts.update(request() or {})
            except Exception:  # a bad request must not hold up the rest; SQS keeps it
                logger.exception("a request must be done, and %s was not", request)
                failed.append(identifier)
        return counts, failed


@cache
def _receiver() -> Receiver:
    environment = os.environ
    config = Config(max_pool_connections=_AT_ONCE)
    ledger = Ledger(boto3.resource("dynamodb", config=config).Table(environment["LEDGER_TABLE"]))
    sqs = boto3.client("sqs")
    wake_queue = WakeQueue(sqs, environment["WAKE_QUEUE_URL"])
    uploads = Uploads(
        prefix=environment["INPUT_PREFIX"],
        suffixes=json.loads(environment["INPUT_SUFFIXES"]),
        marker=environment["MARKER"],
        min_bytes=_whole_number(environment["MIN_DROP_BYTES"]),
        max_bytes=_whole_number(environment["MAX_DROP_BYTES"]),
    )
    intake = Intake(ledger, wake_queue, uploads=uploads)
    s3, bucket = boto3.client("s3", config=config), environment["INPUT_BUCKET"]
    backfill = Backfill(
        recorder=intake,
        ledger=ledger,
        wake_queue=wake_queue,
        s3=s3,
        bucket=bucket,
        intake_queue=IntakeQueue(sqs, environment["INTAKE_QUEUE_URL"]),
        uploads=uploads,
    )
    redrive = Redrive(ledger=ledger, wake_queue=wake_queue, s3=s3, bucket=bucket, uploads=uploads)
    return Receiver(intake, backfill, redrive)


def _whole_number(text: str) -> int | None:
    return int(text) if text else None


def handle(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Lambda entry point: a batch of SQS messages, each an EventBridge event or a request."""
    counts, failed = _receiver().receive(
        event["Records"], time_left_s=lambda: context.get_remaining_time_in_millis() / 1000
    )
    metrics.emit(os.environ["PIPELINE_ID"], {name: counts[name] for name in _METRICS})
    return {"batchItemFailures": [{"itemIdentifier": identifier} for identifier in failed]}
