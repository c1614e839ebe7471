"""Which alarms and graphs a pipeline has."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from batch_transform.quantities import Duration

if TYPE_CHECKING:
    from aws_cdk import aws_sns as sns

_PATIENCE_S = 6 * 3600


@dataclass(frozen=True, kw_only=True, slots=True)
class Monitoring:
    """What watches a pipeline.

    :param alarms: four: drops failed, a drop waits too long, runs fail, dead letters.
    :param dashboard: a row of graphs in the one dashboard of the stack.
    :param topic: receives the alarms, and may be imported. One with a KMS key of yours needs a key
        policy that lets `cloudwatch.amazonaws.com` use it. Default: the alarms only show.
    :param longest_wait: a drop that waits longer alarms. Default: six hours more than the batch
        policy's `max_wait`, for a drop also waits while all runs are in flight.
    """

    alarms: bool = True
    dashboard: bool = True
    topic: "sns.ITopic | None" = None
    longest_wait: Duration | None = None

    def __post_init__(self) -> None:
        if self.alarms:
            return
        for name, value in (("topic", self.topic), ("longest_wait", self.longest_wait)):
            if value is not None:
                raise ValueError(
                    f"{name} must come with alarms, got alarms=False; leave one of them out"
                )

    def longest_wait_s(self, max_wait: Duration) -> int:
        """Return how many seconds a drop may wait when batches wait for up to `max_wait`.

        :raises ValueError: drops wait so long by the batch policy already.
        """
        if self.longest_wait is None:
            return int(max_wait.to_seconds()) + _PATIENCE_S
        if self.longest_wait.to_seconds() <= max_wait.to_seconds():
            raise ValueError(
                "longest_wait must be longer than the batch policy's max_wait of "
                f"{max_wait.to_human_string()}, got {self.longest_wait.to_human_string()}; raise "
                "it by what a run takes, or every batch would alarm"
            )
        return int(self.longest_wait.to_seconds())
