"""What wakes dispatch: one queue that intake, settle, a schedule and ended runs write to."""

from aws_cdk import Duration, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_scheduler as scheduler
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct

from batch_transform.functions import TransformFunction, send_to
from batch_transform.queues import define_queue, define_rule

DISPATCH_TIMEOUT = Duration.minutes(5)
_BATCH_SIZE = 10
_CONCURRENCY = 2
_ENDED = ["SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED"]


class WakeUps(Construct):
    """The queue between everything that can make a batch due and dispatch.

    A queue, so that nothing the state machine calls has to know the state machine's ARN, which
    would be a cycle in CloudFormation.
    """

    def __init__(self, scope: Construct, construct_id: str, *, pipeline_id: str) -> None:
        super().__init__(scope, construct_id)
        self._pipeline_id = pipeline_id
        # Long enough for five vain receives, so that the dead letters tell of a broken dispatch.
        self.queue = define_queue(
            self,
            "Queue",
            visibility=Duration.seconds(6 * int(DISPATCH_TIMEOUT.to_seconds()) + 1),
            retention=Duration.hours(4),
        )
        self._every_minute()

    def wake(self, dispatch: TransformFunction) -> None:
        """Feed `dispatch` with the wake-ups."""
        dispatch.receive_from(
            self.queue, batch_size=_BATCH_SIZE, max_concurrency=_CONCURRENCY, report_failures=False
        )

    def wake_when_a_run_ends(self, state_machine: sfn.CfnStateMachine) -> None:
        """Turn every end of an execution into a wake-up, also of one that was aborted."""
        define_rule(
            self,
            "RunEnded",
            description=f"Runs of the batch transform pipeline {self._pipeline_id} that ended",
            event_pattern={
                "source": ["aws.states"],
                "detail-type": ["Step Functions Execution Status Change"],
                "detail": {"stateMachineArn": [state_machine.ref], "status": _ENDED},
            },
            queue=self.queue,
        )

    def _every_minute(self) -> None:
        role = iam.Role(
            self,
            "EveryMinuteRole",
            assumed_by=iam.ServicePrincipal(
                "scheduler.amazonaws.com",
                conditions={"StringEquals": {"aws:SourceAccount": Stack.of(self).account}},
            ),
        )
        role.add_to_policy(send_to(self.queue))
        schedule = scheduler.CfnSchedule(
            self,
            "EveryMinute",
            description=f"Wakes the batch transform pipeline {self._pipeline_id}",
            flexible_time_window=scheduler.CfnSchedule.FlexibleTimeWindowProperty(mode="OFF"),
            schedule_expression="rate(1 minute)",
            target=scheduler.CfnSchedule.TargetProperty(
                arn=self.queue.queue_arn,
                input="{}",
                role_arn=role.role_arn,
                # The next minute's is as good, so a late one is not worth a retry.
                retry_policy=scheduler.CfnSchedule.RetryPolicyProperty(
                    maximum_event_age_in_seconds=60, maximum_retry_attempts=1
                ),
            ),
        )
        schedule.node.add_dependency(role)
