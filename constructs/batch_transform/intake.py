"""From an upload to the ledger: EventBridge rule, schedule, queue, intake function."""

import json
from typing import TYPE_CHECKING

from aws_cdk import Duration
from aws_cdk import aws_kms as kms
from constructs import Construct

from batch_transform.buckets import TransformBuckets
from batch_transform.functions import TransformFunctions
from batch_transform.ledger import Ledger
from batch_transform.policy import BatchPolicy
from batch_transform.queues import (
    LONGEST_RETENTION,
    define_queue,
    define_rule,
    define_schedule,
    receive_from,
    send_to,
)
from batch_transform.statements import allow
from batch_transform.uploads import Uploads
from batch_transform.wake import WakeUps

if TYPE_CHECKING:
    from aws_cdk import aws_scheduler as scheduler

_TIMEOUT_S = 60
_BATCH_SIZE = 100
_WINDOW = Duration.seconds(1)
_CONCURRENCY = 10
_PATTERN_LENGTH = 2048  # of EventBridge, unless an account has asked for more


class Intake(Construct):
    """Writes every upload under the prefix to the ledger once, however often it is told.

    Its queue also takes backfills, `{"backfill": {"prefix": "input/2026/"}}`: what lies there
    becomes drops, but for what the ledger knows.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        pipeline_id: str,
        buckets: TransformBuckets,
        uploads: Uploads,
        schedule: "scheduler.ScheduleExpression | None",
        batch: BatchPolicy,
        ledger: Ledger,
        wake_ups: WakeUps,
        encryption_key: kms.IKey | None,
        functions: TransformFunctions,
    ) -> None:
        super().__init__(scope, construct_id)
        # A message must stay hidden for as long as Lambda may try it: six timeouts and the window.
        visibility_s = 6 * _TIMEOUT_S + int(_WINDOW.to_seconds())
        self.queue = define_queue(
            self,
            "Uploads",
            encryption_key=encryption_key,
            visibility=Duration.seconds(visibility_s),
            retention=LONGEST_RETENTION,
        )
        if uploads.events:
            self._take_uploads(pipeline_id, buckets, uploads, batch.marker)
        if schedule is not None:
            zone = schedule.time_zone
            define_schedule(
                self,
                "Backfill",
                description=f"Backfills for the batch transform pipeline {pipeline_id}",
                expression=schedule.expression_string,
                time_zone=None if zone is None else zone.timezone_name,
                message=json.dumps({"backfill": {}}),
                max_age_s=3600,
                queue=self.queue,
            )
        self.function = functions.define(
            self,
            "Function",
            module="intake",
            description="Writes uploads to the ledger",
            environment={
                "PIPELINE_ID": pipeline_id,
                "LEDGER_TABLE": ledger.table_name,
                "INPUT_BUCKET": buckets.input_name,
                "INPUT_PREFIX": uploads.prefix,
                "INPUT_SUFFIXES": json.dumps(uploads.suffixes),
                "INTAKE_QUEUE_URL": self.queue.url,
                "MARKER": batch.marker or "",
                "MAX_DROP_BYTES": _text(uploads.max_bytes),
                "MIN_DROP_BYTES": _text(uploads.min_bytes),
                "WAKE_QUEUE_URL": wake_ups.queue.url,
            },
            statements=[
                *receive_from(self.queue),
                *send_to(self.queue),
                *ledger.allow("PutItem", "Query", "UpdateItem"),
                allow(
                    actions=["s3:ListBucket"],
                    conditions={"StringLike": {"s3:prefix": f"{uploads.prefix}*"}},
                    resources=[buckets.input_arn],
                ),
                *send_to(wake_ups.queue),
            ],
            memory_mb=256,
            timeout_s=_TIMEOUT_S,
        )
        # A backfill goes on by messages of its own, and Lambda takes that for a loop by mistake.
        self.function.resource.add_property_override("RecursiveLoop", "Allow")
        self.function.receive_from(
            self.queue,
            batch_size=_BATCH_SIZE,
            max_concurrency=_CONCURRENCY,
            report_failures=True,
            window=_WINDOW,
        )

    def _take_uploads(
        self, pipeline_id: str, buckets: TransformBuckets, uploads: Uploads, marker: str | None
    ) -> None:
        pattern: dict[str, object] = {
            "source": ["aws.s3"],
            "detail-type": ["Object Created"],
            "detail": {
                "bucket": {"name": [buckets.input_name]},
                # Not the size: of what EventBridge leaves out, nobody would ever hear.
                "object": {"key": _key_patterns(uploads, marker)},
            },
        }
        length = len(json.dumps(pattern, separators=(",", ":")))
        if length > _PATTERN_LENGTH:
            raise ValueError(
                f"prefix and suffixes of uploads must fit into an EventBridge pattern of "
                f"{_PATTERN_LENGTH} characters, got {length}; give fewer suffixes, or a shorter "
                "prefix"
            )
        define_rule(
            self,
            "Uploaded",
            description=f"Uploads for the batch transform pipeline {pipeline_id}",
            event_pattern=pattern,
            queue=self.queue,
        )


def _key_patterns(uploads: Uploads, marker: str | None) -> list[object]:
    # Two patterns of one field mean either, so prefix and suffix together need a wildcard.
    prefix = _literal(uploads.prefix)
    if not uploads.suffixes:
        return [{"prefix": uploads.prefix}]
    drops: list[object] = [
        {"wildcard": f"{prefix}*{_literal(suffix)}"} for suffix in uploads.suffixes
    ]
    if marker is None:
        return drops
    # A marker has a name of its own, such as _SUCCESS, not the drops' suffix.
    return [*drops, f"{uploads.prefix}{marker}", {"wildcard": f"{prefix}*/{_literal(marker)}"}]


def _literal(text: str) -> str:
    return text.replace("\\", "\\\\").replace("*", "\\*")


def _text(number: int | None) -> str:
    return "" if number is None else str(number)
