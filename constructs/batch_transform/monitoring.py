"""What tells a person that a pipeline needs one: alarms, and a row of the stack's dashboard."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from aws_cdk import Duration, Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct

from batch_transform.metrics import NAMESPACE, BatchTransformMetrics, sum_of

if TYPE_CHECKING:
    from aws_cdk import aws_sns as sns

_DASHBOARD = "BatchTransformDashboard"
_PERIOD_S = 300
_PERIOD = Duration.seconds(_PERIOD_S)
_LONG_PERIOD = Duration.hours(1)
_RUNS_FAILED = 3
_ROW_WIDTH = 24  # columns of a CloudWatch dashboard
_DEPTH = "ApproximateNumberOfMessagesVisible"


class Alarms(Construct):
    """Few, each of which asks for an action that its description names."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        pipeline_id: str,
        metrics: BatchTransformMetrics,
        longest_wait_s: int,
        topic: "sns.ITopic | None",
    ) -> None:
        super().__init__(scope, construct_id)
        self._pipeline_id = pipeline_id
        self._topic = topic
        self.drops_failed = self._alarm(
            "DropsFailed",
            metrics.drops_failed(period=_PERIOD),
            threshold=1,
            description=(
                "Drops were given up. `batch-transform status` names each and why: mend that, then "
                "`batch-transform redrive`."
            ),
        )
        self.drops_wait = self._alarm(
            "DropsWait",
            metrics.oldest_waiting_seconds(period=_PERIOD),
            threshold=longest_wait_s,
            # Dispatch writes it every minute: when it is missing, dispatch is, and that is told.
            missing=cloudwatch.TreatMissingData.MISSING,
            description=(
                f"A drop waits for over {longest_wait_s} s; or, with insufficient data, dispatch "
                "does not run. Look which runs hold the slots, at the account's quota of transform "
                "jobs, and into the log of dispatch."
            ),
        )
        self.runs_failed = self._alarm(
            "RunsFailed",
            sum_of(
                {
                    "failed": metrics.runs_failed(period=_LONG_PERIOD),
                    "died": metrics.executions_failed(period=_LONG_PERIOD),
                },
                label="Runs failed",
                period=_LONG_PERIOD,
            ),
            threshold=_RUNS_FAILED,
            description=(
                f"{_RUNS_FAILED} runs or more within an hour made no prediction, or their "
                "execution died. `batch-transform status` says why; their drops are tried again "
                "until max_attempts."
            ),
        )
        self.dead_letters = self._alarm(
            "DeadLetters",
            metrics.dead_letters(period=_PERIOD),
            threshold=1,
            description=(
                "Uploads are not in the ledger, or dispatch could not be woken. Read the logs of "
                "intake and dispatch, mend the cause, then `batch-transform redrive`."
            ),
        )
        if topic is not None:
            self.drops_wait.add_insufficient_data_action(_tell(topic))

    def _alarm(
        self,
        construct_id: str,
        metric: cloudwatch.IMetric,
        *,
        threshold: int,
        description: str,
        missing: cloudwatch.TreatMissingData = cloudwatch.TreatMissingData.NOT_BREACHING,
    ) -> cloudwatch.Alarm:
        alarm = cloudwatch.Alarm(
            self,
            construct_id,
            alarm_description=f"Batch transform pipeline {self._pipeline_id}: {description}",
            comparison_operator=(cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD),
            evaluation_periods=1,
            metric=metric,
            threshold=threshold,
            treat_missing_data=missing,
        )
        if self._topic is not None:
            alarm.add_alarm_action(_tell(self._topic))
        return alarm


def _tell(topic: "sns.ITopic") -> cloudwatch.IAlarmAction:
    from aws_cdk import aws_cloudwatch_actions as actions  # many pipelines have no topic

    return actions.SnsAction(topic)


def draw(
    scope: Construct,
    *,
    pipeline_id: str,
    state_machine_arn: str,
    dead_letter_names: Sequence[str],
    indexed: bool,
) -> None:
    """Add a row for a pipeline to the dashboard of the stack, which the first one defines.

    One dashboard a stack, since CloudWatch bills for each; level 1, since level 2 has an object and
    a call for every line of a graph.
    """
    stack = Stack.of(scope)
    dashboard = cast(cloudwatch.CfnDashboard | None, stack.node.try_find_child(_DASHBOARD))
    if dashboard is None:
        dashboard = cloudwatch.CfnDashboard(stack, _DASHBOARD, dashboard_body='{"widgets":[]}')
    body = json.loads(dashboard.dashboard_body)
    body["widgets"] += _row(
        pipeline_id,
        region=stack.region,
        state_machine_arn=state_machine_arn,
        dead_letter_names=dead_letter_names,
        indexed=indexed,
    )
    dashboard.dashboard_body = json.dumps(body, separators=(",", ":"))


def _row(
    pipeline_id: str,
    *,
    region: str,
    state_machine_arn: str,
    dead_letter_names: Sequence[str],
    indexed: bool,
) -> list[dict[str, Any]]:
    def own(name: str, **options: Any) -> list[Any]:
        line = [NAMESPACE, name, "Pipeline", pipeline_id]
        return [*line, options] if options else line

    records = ["RecordsIndexed", "RecordsUnindexed"] if indexed else []
    execution_time = ["AWS/States", "ExecutionTime", "StateMachineArn", state_machine_arn]
    graphs = {
        "drops": [
            *map(own, ["DropsReceived", "DropsDone", "DropsReturned", "DropsFailed"]),
            *(own(name, yAxis="right") for name in records),
        ],
        "waiting": [
            own("DropsWaiting", stat="Maximum"),
            own("OldestWaitingSeconds", stat="Maximum", yAxis="right"),
            own("SlotsFree", stat="Minimum"),
        ],
        "runs": [
            *map(own, ["RunsStarted", "RunsCompleted", "RunsPartiallyCompleted", "RunsFailed"]),
            [*execution_time, {"stat": "Average", "yAxis": "right"}],
        ],
        "dead letters": [
            ["AWS/SQS", _DEPTH, "QueueName", name, {"stat": "Maximum"}]
            for name in dead_letter_names
        ],
    }
    return [
        {
            "type": "metric",
            "width": _ROW_WIDTH // len(graphs),
            "height": 6,
            "properties": {
                "title": f"{pipeline_id}: {name}",
                "region": region,
                "stat": "Sum",
                "period": _PERIOD_S,
                "metrics": lines,
            },
        }
        for name, lines in graphs.items()
    ]
