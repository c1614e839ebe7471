"""From an upload to the ledger: EventBridge rule, queue, intake function."""

from aws_cdk import Duration, Size
from constructs import Construct

from batch_transform.buckets import TransformBuckets
from batch_transform.functions import TransformFunctions, receive_from, send_to
from batch_transform.ledger import Ledger
from batch_transform.policy import BatchPolicy
from batch_transform.queues import define_queue, define_rule
from batch_transform.wake import WakeUps

_TIMEOUT = Duration.minutes(1)
_BATCH_SIZE = 100
_WINDOW = Duration.seconds(1)
_CONCURRENCY = 10


class Intake(Construct):
    """Writes every upload under the prefix to the ledger once, however often it is told."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        pipeline_id: str,
        buckets: TransformBuckets,
        input_suffix: str,
        batch: BatchPolicy,
        ledger: Ledger,
        wake_ups: WakeUps,
        functions: TransformFunctions,
    ) -> None:
        super().__init__(scope, construct_id)
        # A message must stay hidden for as long as Lambda may try it: six timeouts and the window.
        visibility_s = 6 * int(_TIMEOUT.to_seconds()) + int(_WINDOW.to_seconds())
        self.queue = define_queue(
            self,
            "Uploads",
            visibility=Duration.seconds(visibility_s),
            retention=Duration.days(14),
        )
        define_rule(
            self,
            "Uploaded",
            description=f"Uploads for the batch transform pipeline {pipeline_id}",
            event_pattern={
                "source": ["aws.s3"],
                "detail-type": ["Object Created"],
                "detail": {
                    "bucket": {"name": [buckets.input.bucket_name]},
                    "object": {
                        "key": _key_patterns(buckets.input_prefix, input_suffix, batch.marker)
                    },
                },
            },
            queue=self.queue,
        )
        self.function = functions.define(
            self,
            "Function",
            module="intake",
            description="Writes uploads to the ledger",
            environment={
                "PIPELINE_ID": pipeline_id,
                "LEDGER_TABLE": ledger.table.table_name,
                "MARKER": batch.marker or "",
                "WAKE_QUEUE_URL": wake_ups.queue.queue_url,
            },
            statements=[
                receive_from(self.queue),
                *ledger.allow("PutItem", "Query", "UpdateItem"),
                send_to(wake_ups.queue),
            ],
            memory=Size.mebibytes(256),
            timeout=_TIMEOUT,
        )
        self.function.receive_from(
            self.queue,
            batch_size=_BATCH_SIZE,
            max_concurrency=_CONCURRENCY,
            report_failures=True,
            window=_WINDOW,
        )


def _key_patterns(prefix: str, suffix: str, marker: str | None) -> list[object]:
    # Two patterns of one field mean either, so prefix and suffix together need a wildcard.
    if not suffix:
        return [{"prefix": prefix}]
    drops = {"wildcard": f"{_literal(prefix)}*{_literal(suffix)}"}
    if marker is None:
        return [drops]
    # A marker has a name of its own, such as _SUCCESS, not the drops' suffix.
    return [drops, f"{prefix}{marker}", {"wildcard": f"{_literal(prefix)}*/{_literal(marker)}"}]


def _literal(text: str) -> str:
    return text.replace("\\", "\\\\").replace("*", "\\*")
