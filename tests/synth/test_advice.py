"""Warnings of a pipeline: each with its id, and silent when it is acknowledged."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from aws_cdk import Annotations, App, Stack

from batch_transform import (
    AssembleWith,
    BatchPolicy,
    BatchStrategy,
    BatchTransform,
    SplitType,
    TransformModel,
    TransformSettings,
)
from tests.documents import PROJECT

LINES = TransformSettings.json_lines()


def warnings(stack: Stack) -> str:
    assembly = App.of(stack).synth()  # type: ignore[union-attr]
    return "\n".join(
        str(message.entry.data) for message in assembly.get_stack_by_name(stack.stack_name).messages
    )


def pipeline(
    stack: Stack,
    *,
    settings: TransformSettings = LINES,
    instance_type: str = "ml.m5.large",
    instance_count: int = 1,
    max_objects: int = 1000,
) -> BatchTransform:
    return BatchTransform(
        stack,
        "Churn",
        model=TransformModel.from_model_name("churn"),
        instance_type=instance_type,
        instance_count=instance_count,
        settings=settings,
        batch=BatchPolicy(max_objects=max_objects),
    )


def test_a_usual_pipeline_is_not_warned_of(new_stack: Callable[[], Stack]) -> None:
    stack = new_stack()
    pipeline(stack)

    assert warnings(stack) == ""


def test_every_warning_comes_with_an_id_that_the_documents_have(
    new_stack: Callable[[], Stack],
) -> None:
    stack, whole, new = new_stack(), new_stack(), new_stack()
    pipeline(
        stack,
        settings=replace(
            LINES, assemble_with=AssembleWith.NONE, max_concurrent_transforms=20, accept=None
        ),
        instance_count=3,
        max_objects=2,
    )
    pipeline(
        whole,
        settings=replace(
            LINES, split_type=SplitType.NONE, batch_strategy=BatchStrategy.MULTI_RECORD
        ),
    )
    pipeline(new, instance_type="ml.m99.large")
    text = "\n".join(map(warnings, (stack, whole, new)))

    page = (PROJECT / "docs" / "troubleshooting.md").read_text()
    for name in (
        "lineWithoutAssembleWith",
        "concurrencyWithDefaultPayload",
        "moreInstancesThanObjects",
        "strategyWithoutSplit",
        "unknownInstanceType",
    ):
        assert f"[ack: @batch-transform:{name}]" in text
        assert f"`@batch-transform:{name}`" in page


def test_a_warning_that_is_acknowledged_is_gone(new_stack: Callable[[], Stack]) -> None:
    stack = new_stack()
    made = pipeline(stack, instance_count=3, max_objects=2)

    Annotations.of(made).acknowledge_warning("@batch-transform:moreInstancesThanObjects")

    assert warnings(stack) == ""


@pytest.mark.parametrize("instance_type", ["ml.m5.larg", "ml.c5.large", "ml.m5d.large"])
def test_fails_when_no_transform_job_can_have_the_instance_type(
    instance_type: str, new_stack: Callable[[], Stack]
) -> None:
    with pytest.raises(ValueError, match="types for transform jobs"):
        pipeline(new_stack(), instance_type=instance_type)
