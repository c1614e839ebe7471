"""The event by which a pipeline announces each of its runs."""

from aws_cdk import aws_events as events
from constructs import Construct

from batch_transform.state_machine import EVENT_SOURCE


def run_rule(
    scope: Construct,
    construct_id: str,
    *,
    pipeline_id: str,
    outcome: str,
    target: events.IRuleTarget | None,
    description: str | None,
) -> events.Rule:
    """Define a rule for the runs of a pipeline that end as `outcome`."""
    return events.Rule(
        scope,
        construct_id,
        description=description,
        event_pattern=events.EventPattern(
            source=[EVENT_SOURCE],
            detail_type=[f"Batch Transform Run {outcome}"],
            detail={"pipeline": [pipeline_id]},
        ),
        targets=None if target is None else [target],
    )
