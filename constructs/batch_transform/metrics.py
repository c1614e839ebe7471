"""What a pipeline counts. The functions write these metrics; dashboards and alarms draw them."""

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cloudwatch

NAMESPACE = "BatchTransform"

_PERIOD = Duration.minutes(5)


class BatchTransformMetrics:
    """The metrics of one pipeline; see `BatchTransform.metrics`. All count, but the last."""

    def __init__(self, pipeline_id: str) -> None:
        self._pipeline_id = pipeline_id

    def drops_received(self, *, period: Duration = _PERIOD) -> cloudwatch.Metric:
        """Uploads that became drops."""
        return self._metric("DropsReceived", period)

    def drops_superseded(self, *, period: Duration = _PERIOD) -> cloudwatch.Metric:
        """Drops that a newer version of their key replaced before a run claimed them."""
        return self._metric("DropsSuperseded", period)

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

    def records_indexed(self, *, period: Duration = _PERIOD) -> cloudwatch.Metric:
        """Predictions that can be looked up."""
        return self._metric("RecordsIndexed", period)

    def records_unindexed(self, *, period: Duration = _PERIOD) -> cloudwatch.Metric:
        """Output records without an id to look them up by."""
        return self._metric("RecordsUnindexed", period)

    def oldest_waiting_seconds(self, *, period: Duration = _PERIOD) -> cloudwatch.Metric:
        """Age of the drop that waits longest."""
        return self._metric("OldestWaitingSeconds", period, statistic="Maximum")

    def _metric(self, name: str, period: Duration, *, statistic: str = "Sum") -> cloudwatch.Metric:
        return cloudwatch.Metric(
            dimensions_map={"Pipeline": self._pipeline_id},
            metric_name=name,
            namespace=NAMESPACE,
            period=period,
            statistic=statistic,
        )
