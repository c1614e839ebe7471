"""The function that makes batches of what waits and starts a run for each."""

from constructs import Construct

from batch_transform.buckets import TransformBuckets
from batch_transform.deletion import Deletion
from batch_transform.functions import TransformFunctions
from batch_transform.ledger import Ledger
from batch_transform.places import RUNS
from batch_transform.policy import BatchPolicy
from batch_transform.queues import receive_from, send_to
from batch_transform.run import Run
from batch_transform.statements import allow
from batch_transform.wake import DISPATCH_TIMEOUT_S, WakeUps


class Dispatch(Construct):
    """While a batch is due and a slot is free: claims drops, writes the manifest, starts a run."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        pipeline_id: str,
        buckets: TransformBuckets,
        ledger: Ledger,
        wake_ups: WakeUps,
        run: Run,
        deletion: Deletion,
        batch: BatchPolicy,
        max_concurrent_runs: int,
        functions: TransformFunctions,
    ) -> None:
        super().__init__(scope, construct_id)
        self.function = functions.define(
            self,
            "Function",
            module="dispatch",
            description="Makes batches and starts runs",
            environment={
                "PIPELINE_ID": pipeline_id,
                "LEDGER_TABLE": ledger.table_name,
                "INPUT_BUCKET": buckets.input_name,
                "OUTPUT_BUCKET": buckets.output_name,
                "STATE_MACHINE_ARN": run.state_machine_arn,
                "WAKE_QUEUE_URL": wake_ups.queue.url,
                "MAX_CONCURRENT_RUNS": str(max_concurrent_runs),
                **batch.to_environment(),
            },
            statements=[
                *receive_from(wake_ups.queue),
                *send_to(wake_ups.queue),
                *ledger.allow(
                    "DeleteItem",
                    "GetItem",
                    "PutItem",
                    "Query",
                    "UpdateItem",
                    queue=True,
                ),
                allow(
                    actions=["s3:GetObject", "s3:PutObject"],
                    resources=[buckets.output_objects(f"{RUNS}*")],
                ),
                *buckets.key_use("kms:Decrypt", "kms:GenerateDataKey", keys=buckets.output_keys),
                allow(actions=["states:StartExecution"], resources=[run.state_machine_arn]),
                allow(actions=["states:DescribeExecution"], resources=[run.executions_arn]),
            ],
            memory_mb=512,
            timeout_s=DISPATCH_TIMEOUT_S,
        )
        # When runs are stopped nobody may start one any more, not even a call that is under way.
        self.function.role_resource.add_resource_dependency(deletion.resource)
        # It wakes itself on purpose, for as long as uploads come. Else Lambda takes that for a loop
        # by mistake, and puts every 17th wake-up of a chain into the dead-letter queue.
        self.function.resource.add_property_override("RecursiveLoop", "Allow")
        wake_ups.wake(self.function)
        wake_ups.wake_when_a_run_ends(run.state_machine_arn)
