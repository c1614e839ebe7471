"""S3 event in, drop in the ledger out: once, whatever is delivered twice, late or out of order."""

import json
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import boto3
from botocore.config import Config

from transform_lambdas import metrics
from transform_lambdas.drops import Drop
from transform_lambdas.ledger import Ledger
from transform_lambdas.wake_queue import WakeQueue

_AT_ONCE = 16  # calls to DynamoDB, each on a connection of its own
_METRICS = ("DropsReceived", "DropsFailed", "DropsSuperseded")

logger = logging.getLogger(__name__)


class Intake:
    """Writes drops to the ledger and wakes dispatch."""

    def __init__(self, ledger: Ledger, wake_queue: WakeQueue, *, marker: str = "") -> None:
        self._ledger = ledger
        self._wake_queue = wake_queue
        self._marker = marker

    def take(self, messages: Sequence[Mapping[str, Any]]) -> tuple[Counter[str], list[str]]:
        """Record the messages' drops; return metrics of them, and which messages must come again.

        A message that fails does not hold up the others: SQS delivers it again, and in the end
        moves it to the dead-letter queue.
        """
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            outcomes = list(pool.map(self._take_one, messages))
        failed = [
            message["messageId"]
            for message, outcome in zip(messages, outcomes, strict=True)
            if outcome is None
        ]
        if len(failed) < len(messages):
            self._wake_queue.wake()
        return sum(filter(None, outcomes), Counter[str]()), failed

    def _take_one(self, message: Mapping[str, Any]) -> Counter[str] | None:
        """Return what to count of a message, or `None` if it has to come again."""
        try:
            event = json.loads(message["body"])
            drop = Drop.from_event(event)
            if drop.is_folder_marker:
                logger.info("not a drop: %r is the marker of a folder", drop.key)
                return Counter()
            if self._marker and drop.key.rsplit("/", 1)[-1] == self._marker:
                self._ledger.mark(drop.dropped_at)
                return Counter()
            is_new = self._ledger.record(drop)
            # Also when it is not new: whoever wrote it may have come no further.
            counts = Counter(DropsSuperseded=self._ledger.supersede(drop))
            if is_new and drop.problem:
                logger.warning("%s: %s", drop.key, drop.problem)
            if is_new:
                counts += Counter(DropsReceived=1, DropsFailed=int(drop.problem is not None))
            return counts
        except Exception:  # one bad message must not hold up the rest; SQS keeps it
            logger.exception(
                "an S3 event must be recorded, and message %s was not; it is delivered again",
                message.get("messageId"),
            )
            return None


@cache
def _intake() -> Intake:
    table = boto3.resource("dynamodb", config=Config(max_pool_connections=_AT_ONCE)).Table(
        os.environ["LEDGER_TABLE"]
    )
    return Intake(
        Ledger(table),
        WakeQueue(boto3.client("sqs"), os.environ["WAKE_QUEUE_URL"]),
        marker=os.environ["MARKER"],
    )


def handle(event: Mapping[str, Any], context: object) -> dict[str, Any]:
    """Lambda entry point: a batch of SQS messages, each one EventBridge event."""
    counts, failed = _intake().take(event["Records"])
    metrics.emit(os.environ["PIPELINE_ID"], {name: counts[name] for name in _METRICS})
    return {"batchItemFailures": [{"itemIdentifier": identifier} for identifier in failed]}
