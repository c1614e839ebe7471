"""What the functions write for CloudWatch, and what the construct's facade reads."""

import ast
import inspect
import re
from pathlib import Path

from aws_cdk import App, Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_sqs as sqs

from batch_transform.metrics import NAMESPACE, BatchTransformMetrics

_NAME = re.compile(r"(Drops|Runs|Records|Slots|Oldest)[A-Z]\w+")
OUTCOMES = ("Completed", "PartiallyCompleted", "Failed")


def names_in(source: str) -> set[str]:
    """The metrics that a module names: in text, as keywords of a count, or by a run's outcome."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr) and ast.unparse(node)[2:].startswith("Runs{"):
            found |= {f"Runs{outcome}" for outcome in OUTCOMES}
        text = node.value if isinstance(node, ast.Constant) else getattr(node, "arg", None)
        if isinstance(text, str) and _NAME.fullmatch(text):
            found.add(text)
    return found


def written(lambdas: Path) -> set[str]:
    return set().union(*(names_in(path.read_text()) for path in lambdas.glob("*.py")))


def test_names_are_found_however_they_are_written() -> None:
    source = "emit({'DropsDone': 1, f'Runs{outcome}': 1}); Counter(DropsFailed=1); 'dropsdone'"

    assert names_in(source) == {"DropsDone", "DropsFailed", *(f"Runs{each}" for each in OUTCOMES)}


def test_the_facade_reads_what_is_written_and_nothing_else(lambdas: Path) -> None:
    stack = Stack(App(), "Scoring")
    queue = sqs.Queue.from_queue_arn(stack, "Q", "arn:aws:sqs:eu-west-1:111122223333:q")
    facade = BatchTransformMetrics("churn", state_machine_arn="arn:m", dead_letters=[queue])
    metrics = [
        getattr(facade, name)()
        for name, _ in inspect.getmembers(BatchTransformMetrics, inspect.isfunction)
        if not name.startswith("_")
    ]

    read = {
        metric.metric_name
        for metric in metrics
        if isinstance(metric, cloudwatch.Metric) and metric.namespace == NAMESPACE
    }
    assert read == written(lambdas)


def test_both_sides_name_one_namespace(lambdas: Path) -> None:
    (namespace,) = [
        ast.literal_eval(node.value)
        for node in ast.parse((lambdas / "metrics.py").read_text()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "NAMESPACE"
    ]

    assert namespace == NAMESPACE
