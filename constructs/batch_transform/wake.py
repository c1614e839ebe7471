"""What wakes dispatch: one queue that intake, settle, a schedule and ended runs write to."""

import json

from aws_cdk import Duration
from aws_cdk import aws_kms as kms
from constructs import Construct

from batch_transform.functions import TransformFunction
from batch_transform.queues import define_queue, define_rule, define_schedule

DISPATCH_TIMEOUT_S = 300
_BATCH_SIZE = 10
_CONCURRENCY = 2
_ENDED = ["SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED"]


class WakeUps(Construct):
    """The queue between everything that can make a batch due and dispatch.

    A queue, so that nothing the state machine calls has to know the state machine's ARN, which
    would be a cycle in CloudFormation.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        pipeline_id: str,
        encryption_key: kms.IKey | None,
    ) -> None:
        super().__init__(scope, construct_id)
        self._pipeline_id = pipeline_id
        # Long enough for five vain receives, so that the dead letters tell of a broken dispatch.
        self.queue = define_queue(
            self,
            "Queue",
            encryption_key=encryption_key,
            visibility=Duration.seconds(6 * DISPATCH_TIMEOUT_S + 1),
            retention=Duration.hours(4),
        )
        define_schedule(
            self,
            "EveryMinute",
            description=f"Wakes the batch transform pipeline {pipeline_id}",
            expression="rate(1 minute)",
            message=json.dumps({"report": True}),
            max_age_s=60,  # the next minute's is as good
            queue=self.queue,
        )

    def wake(self, dispatch: TransformFunction) -> None:
        """Feed `dispatch` with the wake-ups."""
        dispatch.receive_from(
            self.queue, batch_size=_BATCH_SIZE, max_concurrency=_CONCURRENCY, report_failures=False
        )

    def wake_when_a_run_ends(self, state_machine_arn: str) -> None:
        """Turn every end of an execution into a wake-up, also of one that was aborted."""
        define_rule(
            self,
            "RunEnded",
            description=f"Runs of the batch transform pipeline {self._pipeline_id} that ended",
            event_pattern={
                "source": ["aws.states"],
                "detail-type": ["Step Functions Execution Status Change"],
                "detail": {"stateMachineArn": [state_machine_arn], "status": _ENDED},
            },
            queue=self.queue,
        )
