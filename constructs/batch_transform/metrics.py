"""What a pipeline counts: what its functions write, and what AWS counts by itself."""

from collections.abc import Mapping, Sequence

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_sqs as sqs

NAMESPACE = "BatchTransform"

_PERIOD = Duration.minutes(5)


class BatchTransformMetrics:
    """The metrics of one pipeline; see `BatchTransform.metrics`. Without a unit, they count."""

    def __init__(
        self, pipeline_id: str, *, state_machine_arn: str, dead_letters: Sequence[sqs.IQueue]
    ) -> None:
        self._pipeline = {"Pipeline": pipeline_id}
        self._state_machine = {"StateMachineArn": state_machine_arn}
        self._dead_letters = [{"QueueName": queue.queue_name} for queue in dead_letters]

    def drops_received(self, *, period: Duration = _PERIOD) -> cloudwatch.Metric:
        """Uploads that became drops."""
        return self._metric("DropsReceived", period)

    def drops_superseded(self, *, period: Duration = _PERIOD) -> cloudwatch.Metric:
        """Drops that a newer version of their key replaced before they were scored."""
        return self._metric("DropsSuperseded", period)

    def drops_waiting(self, *, period: Duration = _PERIOD) -> cloudwatch.Metric:
        """The most drops that waited at once, for a batch or a slot; above some 20,000 a minimum.

        It is seen once a minute, by dispatch, which reads no more for it than it has to.
        """
        return self._metric("DropsWaiting", period, statistic="Maximum")

    def oldest_waiting_seconds(self, *, period: Duration = _PERIOD) -> cloudwatch.Metric:
        """Age of the drop that waits longest, in seconds; 0 when none waits."""
        return self._metric("OldestWaitingSeconds", period, statistic="Maximum")

    def slots_free(self, *, period: Duration = _PERIOD) -> cloudwatch.Metric:
        """Runs that could begin beside those in flight, at the fullest moment."""
        return self._metric("SlotsFree", period, statistic="Minimum")

    def drops_claimed(self, *, period: Duration = _PERIOD) -> cloudwatch.Metric:
        """Drops that runs took."""
        return self._metric("DropsClaimed", period)

    def drops_done(self, *, period: Duration = _PERIOD) -> cloudwatch.Metric:
        """Drops whose predictions are there."""
        return self._metric("DropsDone", period)

    def drops_failed(self, *, period: Duration = _PERIOD) -> cloudwatch.Metric:
        """Drops that were given up, with a reason in the ledger."""
        return self._metric("DropsFailed", period)

    def drops_returned(self, *, period: Duration = _PERIOD) -> cloudwatch.Metric:
        """Drops that a run gave back, to be scored by another."""
        return self._metric("DropsReturned", period)

    def records_in(self, *, period: Duration = _PERIOD) -> cloudwatch.Metric:
        """Records of drops that are done, where the records are counted."""
        return self._metric("RecordsIn", period)

    def records_out(self, *, period: Duration = _PERIOD) -> cloudwatch.Metric:
        """Their predictions; more than records where the model answers some with several lines."""
        return self._metric("RecordsOut", period)

    def runs_started(self, *, period: Duration = _PERIOD) -> cloudwatch.Metric:
        """Runs that began."""
        return self._metric("RunsStarted", period)

    def runs_completed(self, *, period: Duration = _PERIOD) -> cloudwatch.Metric:
        """Runs whose every drop is done."""
        return self._metric("RunsCompleted", period)

    def runs_partially_completed(self, *, period: Duration = _PERIOD) -> cloudwatch.Metric:
        """Runs of which some drops are done."""
        return self._metric("RunsPartiallyCompleted", period)

    def runs_failed(self, *, period: Duration = _PERIOD) -> cloudwatch.Metric:
        """Runs of which no drop is done."""
        return self._metric("RunsFailed", period)

    def run_duration(self, *, period: Duration = _PERIOD) -> cloudwatch.Metric:
        """How long the executions that ended well took, on the average, in milliseconds."""
        return self._execution_metric("ExecutionTime", period, statistic="Average")

    def executions_failed(self, *, period: Duration = _PERIOD) -> cloudwatch.Metric:
        """Executions that died before their run was settled, indexed and announced.

        A later wake-up finishes such a run, so this is a fault of ours or of a permission.
        """
        return self._execution_metric("ExecutionsFailed", period)

    def records_indexed(self, *, period: Duration = _PERIOD) -> cloudwatch.Metric:
        """Predictions that can be looked up."""
        return self._metric("RecordsIndexed", period)

    def records_unindexed(self, *, period: Duration = _PERIOD) -> cloudwatch.Metric:
        """Output records without an id to look them up by."""
        return self._metric("RecordsUnindexed", period)

    def dead_letters(self, *, period: Duration = _PERIOD) -> cloudwatch.MathExpression:
        """Messages that were given up: uploads that are not in the ledger, and wake-ups."""
        queues = {
            f"q{number}": cloudwatch.Metric(
                dimensions_map=queue,
                metric_name="ApproximateNumberOfMessagesVisible",
                namespace="AWS/SQS",
                period=period,
                statistic="Maximum",
            )
            for number, queue in enumerate(self._dead_letters, start=1)
        }
        return sum_of(queues, label="Dead letters", period=period)

    def _metric(self, name: str, period: Duration, *, statistic: str = "Sum") -> cloudwatch.Metric:
        return cloudwatch.Metric(
            dimensions_map=self._pipeline,
            metric_name=name,
            namespace=NAMESPACE,
            period=period,
            statistic=statistic,
        )

    def _execution_metric(
        self, name: str, period: Duration, *, statistic: str = "Sum"
    ) -> cloudwatch.Metric:
        return cloudwatch.Metric(
            dimensions_map=self._state_machine,
            metric_name=name,
            namespace="AWS/States",
            period=period,
            statistic=statistic,
        )


def sum_of(
    metrics: Mapping[str, cloudwatch.IMetric], *, label: str, period: Duration
) -> cloudwatch.MathExpression:
    """Return the sum of metrics by their ids in it; one that is missing counts as 0.

    Each of them is written only when there is something to count, and without `FILL` the sum is
    missing when one of them is.
    """
    return cloudwatch.MathExpression(
        expression=" + ".join(f"FILL({name}, 0)" for name in metrics),
        label=label,
        period=period,
        using_metrics=dict(metrics),
    )
