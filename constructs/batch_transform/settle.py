"""The function that hands outputs from step to step, and turns the last into each drop's fate."""

from collections.abc import Sequence

from constructs import Construct

from batch_transform.buckets import TransformBuckets
from batch_transform.deployed import place_of
from batch_transform.functions import TransformFunctions
from batch_transform.ledger import Ledger
from batch_transform.places import REPORTS, RUNS
from batch_transform.queues import LettersQueue, send_to
from batch_transform.statements import allow
from batch_transform.wake import WakeUps

# The service's own log group: fixed, and shared by all jobs of the account (reference §9).
TRANSFORM_LOG_GROUP = "/aws/sagemaker/TransformJobs"


def transform_jobs_arn(scope: Construct, pipeline_id: str, *, of: str = "") -> str:
    """Return the ARN pattern of every transform job that a pipeline starts.

    :param of: what else is in the name, such as `-s2-`. Default: all.
    """
    name = f"{pipeline_id}-*{of}*" if of else f"{pipeline_id}-*"
    return place_of(scope).arn("sagemaker", f"transform-job/{name}")


class Settle(Construct):
    """Each drop of a run becomes done, waiting again, or failed with a reason.

    The function counts the records beforehand, too, for it may read all that there is to count.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        pipeline_id: str,
        buckets: TransformBuckets,
        ledger: Ledger,
        uploads: LettersQueue,
        wake_ups: WakeUps,
        steps: Sequence[str],
        model_arns: Sequence[str],
        record_checks: str,
        max_attempts: int,
        max_failed_fraction: float | None,
        indexed: bool,
        functions: TransformFunctions,
    ) -> None:
        super().__init__(scope, construct_id)
        # CloudWatch Logs takes the group for some actions and its streams for others.
        transform_logs_arns = [
            place_of(self).arn("logs", f"log-group:{TRANSFORM_LOG_GROUP}{streams}")
            for streams in ("", ":*")
        ]
        self.function = functions.define(
            self,
            "Function",
            module="settle",
            description="Hands a run's outputs on and settles its drops",
            environment={
                "PIPELINE_ID": pipeline_id,
                "LEDGER_TABLE": ledger.table_name,
                "INPUT_BUCKET": buckets.input_name,
                "OUTPUT_BUCKET": buckets.output_name,
                "OUTPUT_PREFIX": buckets.output_prefix,
                "INTAKE_QUEUE_URL": uploads.url,
                "WAKE_QUEUE_URL": wake_ups.queue.url,
                "STEPS": ",".join(steps),
                "RECORD_CHECKS": record_checks,
                "MAX_ATTEMPTS": str(max_attempts),
                "MAX_FAILED_FRACTION": (
                    "" if max_failed_fraction is None else str(max_failed_fraction)
                ),
                "INDEXED": "true" if indexed else "false",
                "TRANSFORM_LOG_GROUP": TRANSFORM_LOG_GROUP,
            },
            statements=[
                # The query: a drop that is given back may have been overtaken meanwhile.
                *ledger.allow(
                    "BatchGetItem",
                    "GetItem",
                    "Query",
                    "UpdateItem",
                ),
                allow(actions=["s3:GetObject"], resources=[buckets.output_objects(f"{RUNS}*")]),
                allow(
                    actions=["s3:ListBucket"],
                    conditions={"StringLike": {"s3:prefix": f"{RUNS}*"}},
                    resources=[buckets.output_arn],
                ),
                # How many records a drop has, and whether it is still what its key holds; without
                # the list a key that holds nothing is not told from one that may not be read.
                allow(actions=["s3:GetObject"], resources=[buckets.inputs_arn()]),
                allow(actions=["s3:ListBucket"], resources=[buckets.input_arn]),
                allow(
                    # Outputs above 5 GB are copied in parts, and a copy may be given up.
                    actions=["s3:AbortMultipartUpload", "s3:PutObject"],
                    resources=[
                        buckets.output_objects(f"{prefix}*")
                        for prefix in (buckets.output_prefix, REPORTS, RUNS)
                    ],
                ),
                *buckets.key_use("kms:Decrypt", "kms:GenerateDataKey", keys=buckets.output_keys),
                *buckets.key_use("kms:Decrypt", keys=buckets.input_keys),
                allow(actions=["sagemaker:ListTransformJobs"], resources=["*"]),
                allow(actions=["sagemaker:DescribeModel"], resources=list(model_arns)),
                allow(
                    actions=["sagemaker:DescribeTransformJob", "sagemaker:StopTransformJob"],
                    resources=[transform_jobs_arn(self, pipeline_id)],
                ),
                allow(
                    actions=["logs:DescribeLogStreams", "logs:FilterLogEvents"],
                    resources=transform_logs_arns,
                ),
                *send_to(uploads),
                *send_to(wake_ups.queue),
            ],
            memory_mb=1024,
            timeout_s=900,
        )
