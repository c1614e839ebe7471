"""The prediction index: a table of predictions by record id, and the function that loads it."""

import json

from aws_cdk import RemovalPolicy
from aws_cdk import aws_kms as kms
from constructs import Construct

from batch_transform.buckets import TransformBuckets
from batch_transform.functions import TransformFunctions
from batch_transform.ledger import define_table, table_key_use, table_use
from batch_transform.places import RUNS
from batch_transform.prediction_index import PredictionIndex
from batch_transform.quantities import DAY_S
from batch_transform.settings import TransformSettings
from batch_transform.statements import Statement, allow


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
        self.table_name, self._table_arn = self.table.table_name, self.table.table_arn
        retention_days = (
            "" if index.retention is None else str(int(index.retention.to_seconds()) // DAY_S)
        )
        self.function = functions.define(
            self,
            "Function",
            module="index",
            description="Loads predictions into the index",
            environment={
                # EMF metrics carry the pipeline as their dimension.
                "PIPELINE_ID": pipeline_id,
                "PREDICTIONS_TABLE": self.table_name,
                "OUTPUT_BUCKET": buckets.output_name,
                "RECORD_FORMAT": index.record_format(settings),
                "RECORD_ID": json.dumps(index.id_place),
                "RECORD_VALUE": json.dumps(index.value_place),
                "RETENTION_DAYS": retention_days,
            },
            statements=[
                allow(
                    actions=["s3:GetObject"],
                    resources=[buckets.output_objects(f"{RUNS}*")],
                ),
                *buckets.key_use("kms:Decrypt", keys=buckets.output_keys),
                *self.allow("BatchWriteItem", writes=True),
            ],
            memory_mb=1024,
            timeout_s=900,
        )

    def allow(self, *actions: str, writes: bool = False) -> list[Statement]:
        """Return the statements for DynamoDB `actions` on the predictions."""
        return [
            table_use(self._table_arn, *actions),
            *table_key_use(self._encryption_key, writes=writes),
        ]
