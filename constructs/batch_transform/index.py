"""The prediction index: a table of predictions by record id, and the function that loads it."""

from dataclasses import dataclass

from aws_cdk import Duration, RemovalPolicy, Size
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from constructs import Construct

from batch_transform.buckets import RUNS, TransformBuckets
from batch_transform.functions import TransformFunctions
from batch_transform.ledger import define_table, table_key_use, table_use
from batch_transform.settings import TransformSettings

_FORMATS = {"text/csv": "csv", "application/jsonlines": "jsonlines"}


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictionIndex:
    """Makes every prediction of a pipeline findable by its record's id.

    :param record_id: where the id stands in an output record: a CSV column number (0 is the
        first), or a JSON Lines member's name.
    :param retention: how long a prediction can be looked up. Default: for ever.
    """

    record_id: int | str
    retention: Duration | None = None

    def __post_init__(self) -> None:
        if isinstance(self.record_id, int) and self.record_id < 0:
            raise ValueError(
                f"record_id must be a column number from 0 on, got {self.record_id}; "
                "count the columns of the output from the left"
            )
        if isinstance(self.record_id, str) and (
            not self.record_id or self.record_id.startswith("$")
        ):
            raise ValueError(
                f"record_id must be a member's plain name, got {self.record_id!r}; "
                "write for example 'id', without '$.'"
            )
        if self.retention is not None and self.retention.to_days(integral=False) < 1:
            raise ValueError(
                f"retention must be at least 1 day, got {self.retention.to_human_string()}; "
                "leave it out to keep predictions for ever"
            )

    def record_format(self, settings: TransformSettings) -> str:
        """Return how the index reads an output: what the answers are, by their content type.

        :raises ValueError: they have no records, or the id is of the other format.
        """
        content_type = settings.accept or settings.content_type
        record_format = _FORMATS.get(content_type.partition(";")[0].strip())
        if record_format is None:
            raise ValueError(
                f"an indexed pipeline must answer with {' or '.join(_FORMATS)}, "
                f"got {content_type!r}; set accept, or leave index out"
            )
        wanted = int if record_format == "csv" else str
        if not isinstance(self.record_id, wanted):
            kind = "a column number" if wanted is int else "a member's name"
            raise ValueError(
                f"record_id must be {kind} for {content_type}, got {self.record_id!r}; "
                f"write for example {0 if wanted is int else 'id'!r}"
            )
        return record_format


class Index(Construct):
    """The predictions table and the function that loads one part of a run into it."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        pipeline_id: str,
        index: PredictionIndex,
        settings: TransformSettings,
        buckets: TransformBuckets,
        encryption_key: kms.IKey | None,
        removal_policy: RemovalPolicy,
        functions: TransformFunctions,
    ) -> None:
        super().__init__(scope, construct_id)
        self._encryption_key = encryption_key
        self.table = define_table(
            self,
            "Predictions",
            partition_key="record_id",
            sort_key="dropped_at",
            encryption_key=encryption_key,
            removal_policy=removal_policy,
            time_to_live_attribute="expires_at",
        )
        retention = index.retention
        self.function = functions.define(
            self,
            "Function",
            module="index",
            description="Loads predictions into the index",
            environment={
                # EMF metrics carry the pipeline as their dimension.
                "PIPELINE_ID": pipeline_id,
                "PREDICTIONS_TABLE": self.table.table_name,
                "OUTPUT_BUCKET": buckets.output.bucket_name,
                "RECORD_ID": str(index.record_id),
                "RECORD_FORMAT": index.record_format(settings),
                "RETENTION_DAYS": "" if retention is None else str(int(retention.to_days())),
            },
            statements=[
                iam.PolicyStatement(
                    actions=["s3:GetObject"],
                    resources=[buckets.output.arn_for_objects(f"{RUNS}*")],
                ),
                *buckets.key_use("kms:Decrypt", keys=buckets.output_keys),
                *self.allow("BatchWriteItem", "PutItem", writes=True),
            ],
            memory=Size.mebibytes(1024),
            timeout=Duration.minutes(15),
        )

    def allow(self, *actions: str, writes: bool = False) -> list[iam.PolicyStatement]:
        """Return the statements for DynamoDB `actions` on the predictions."""
        return [
            table_use(self.table, *actions),
            *table_key_use(self._encryption_key, writes=writes),
        ]
