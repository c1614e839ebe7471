import inspect
import re
from typing import Any

import pytest

from batch_transform.metrics import BatchTransformMetrics

# What the functions write, by the contract between constructs and Lambdas.
WRITTEN = {
    "DropsReceived",
    "DropsSuperseded",
    "RunsStarted",
    "DropsClaimed",
    "OldestWaitingSeconds",
    "DropsDone",
    "DropsFailed",
    "DropsReturned",
    "RunsCompleted",
    "RunsPartiallyCompleted",
    "RunsFailed",
    "RecordsIndexed",
    "RecordsUnindexed",
}


def methods() -> list[str]:
    members = inspect.getmembers(BatchTransformMetrics, inspect.isfunction)
    return [name for name, _ in members if not name.startswith("_")]


def test_every_metric_that_is_written_can_be_drawn() -> None:
    metrics = BatchTransformMetrics("churn")

    assert {getattr(metrics, name)().metric_name for name in methods()} == WRITTEN


@pytest.mark.parametrize("name", methods())
def test_a_metric_is_named_as_its_method_and_belongs_to_one_pipeline(name: str) -> None:
    metric: Any = getattr(BatchTransformMetrics("churn"), name)()

    assert re.sub(r"(?<!^)(?=[A-Z])", "_", metric.metric_name).lower() == name
    assert metric.namespace == "BatchTransform"
    assert metric.dimensions == {"Pipeline": "churn"}
