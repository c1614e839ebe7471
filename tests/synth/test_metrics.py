import inspect
import re
from typing import Any

import pytest
from aws_cdk import App, Stack
from aws_cdk import aws_sqs as sqs

from batch_transform.metrics import BatchTransformMetrics

BY_AWS = {"run_duration": "ExecutionTime", "executions_failed": "ExecutionsFailed"}


def methods() -> list[str]:
    members = inspect.getmembers(BatchTransformMetrics, inspect.isfunction)
    return [name for name, _ in members if not name.startswith("_")]


@pytest.fixture(scope="module")
def metrics() -> BatchTransformMetrics:
    stack = Stack(App(), "Scoring")
    queues = [
        sqs.Queue.from_queue_arn(stack, name, f"arn:aws:sqs:eu-west-1:111122223333:{name}")
        for name in ("uploads", "wake-ups")
    ]
    return BatchTransformMetrics("churn", state_machine_arn="arn:machine", dead_letters=queues)


OURS = [name for name in methods() if name not in {*BY_AWS, "dead_letters"}]


@pytest.mark.parametrize("name", OURS)
def test_a_metric_is_named_as_its_method_and_belongs_to_one_pipeline(
    name: str, metrics: BatchTransformMetrics
) -> None:
    metric: Any = getattr(metrics, name)()

    assert re.sub(r"(?<!^)(?=[A-Z])", "_", metric.metric_name).lower() == name
    assert metric.namespace == "BatchTransform"
    assert metric.dimensions == {"Pipeline": "churn"}


@pytest.mark.parametrize("name", BY_AWS)
def test_what_aws_counts_of_executions_is_not_counted_twice(
    name: str, metrics: BatchTransformMetrics
) -> None:
    metric: Any = getattr(metrics, name)()

    assert metric.metric_name == BY_AWS[name]
    assert metric.namespace == "AWS/States"
    assert metric.dimensions == {"StateMachineArn": "arn:machine"}


def test_dead_letters_are_those_of_both_queues_and_one_that_is_silent_counts_as_none(
    metrics: BatchTransformMetrics,
) -> None:
    depth = metrics.dead_letters()

    assert depth.expression == "FILL(q1, 0) + FILL(q2, 0)"
    assert [
        metric.dimensions["QueueName"]  # type: ignore[attr-defined]  # IMetric, but a Metric here
        for metric in depth.using_metrics.values()
    ] == ["uploads", "wake-ups"]
