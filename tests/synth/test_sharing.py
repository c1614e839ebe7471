from typing import Any

import pytest
from aws_cdk import App, Environment, Stack, Stage
from aws_cdk import aws_s3 as s3

from batch_transform import BatchTransform, TransformModel


def bucket(stack: Stack, name: str) -> s3.IBucket:
    """A bucket that exists, by its name; an import of its own each time, as users make them."""
    return s3.Bucket.from_bucket_name(stack, f"{name}{len(stack.node.children)}", name)


def pipeline(stack: Stack, construct_id: str, **arguments: Any) -> BatchTransform:
    model = TransformModel.from_model_name("churn")
    return BatchTransform(
        stack, construct_id, model=model, instance_type="ml.m5.large", **arguments
    )


def reading(stack: Stack, construct_id: str, *names: str, prefix: str) -> BatchTransform:
    """A pipeline from the first of the named buckets to the second."""
    source, target = (bucket(stack, name) for name in names)
    return pipeline(
        stack, construct_id, input_bucket=source, output_bucket=target, input_prefix=prefix
    )


def test_two_pipelines_share_a_bucket_under_different_prefixes() -> None:
    stack = Stack(App(), "Scoring")

    reading(stack, "Churn", "data", "scores", prefix="churn/")
    reading(stack, "Fraud", "data", "scores", prefix="fraud/")


def test_two_models_score_the_same_drops_into_buckets_of_their_own() -> None:
    stack = Stack(App(), "Scoring")
    drops = bucket(stack, "drops")

    pipeline(stack, "Champion", input_bucket=drops)
    pipeline(stack, "Challenger", input_bucket=drops)


def test_one_prefix_may_hold_two_formats() -> None:
    stack = Stack(App(), "Scoring")

    for construct_id, suffix in (("Rows", ".csv"), ("Lines", ".jsonl")):
        pipeline(
            stack,
            construct_id,
            input_bucket=bucket(stack, "data"),
            output_bucket=bucket(stack, "scores"),
            input_suffix=suffix,
        )


@pytest.mark.parametrize("prefix", ["in/", "in/deeper/"])
def test_fails_when_one_pipeline_would_replace_the_predictions_of_another(prefix: str) -> None:
    stack = Stack(App(), "Scoring")
    reading(stack, "Churn", "one", "scores", prefix="in/")

    with pytest.raises(
        ValueError,
        match=r"different keys, got Scoring/Churn and Scoring/Fraud .*; give one of them another",
    ):
        reading(stack, "Fraud", "two", "scores", prefix=prefix)


def test_fails_when_two_pipelines_feed_each_other() -> None:
    stack = Stack(App(), "Scoring")
    reading(stack, "Churn", "one", "two", prefix="predictions/")

    with pytest.raises(
        ValueError,
        match="in a circle, got Scoring/Fraud → Scoring/Churn → Scoring/Fraud; give one of them",
    ):
        reading(stack, "Fraud", "two", "one", prefix="predictions/")


def test_fails_when_three_pipelines_of_several_stacks_feed_each_other() -> None:
    app = App()
    reading(Stack(app, "A"), "Churn", "one", "two", prefix="predictions/")
    reading(Stack(app, "B"), "Churn", "two", "three", prefix="predictions/")

    with pytest.raises(ValueError, match="got C/Churn → A/Churn → B/Churn → C/Churn; give one"):
        reading(Stack(app, "C"), "Churn", "three", "one", prefix="predictions/predictions/")


def test_a_circle_of_buckets_is_none_when_the_prefixes_part() -> None:
    stack = Stack(App(), "Scoring")

    reading(stack, "Churn", "one", "two", prefix="churn/")
    reading(stack, "Fraud", "two", "one", prefix="fraud/")


def test_a_pipeline_hears_of_the_predictions_of_the_one_before_it() -> None:
    app = App()
    first = pipeline(Stack(app, "First"), "Churn")
    second = Stack(app, "Second")
    pipeline(second, "Uplift", input_bucket=first.output_bucket, input_prefix="predictions/")

    template = app.synth().get_stack_by_name("First").template
    telling = [
        resource["Properties"]["NotificationConfiguration"]
        for resource in template["Resources"].values()
        if resource["Type"] == "AWS::S3::Bucket"
    ]

    assert telling == [{"EventBridgeConfiguration": {"EventBridgeEnabled": True}}] * 2


def test_fails_when_two_pipelines_of_one_account_have_one_id() -> None:
    app = App()
    where = Environment(account="111122223333", region="eu-west-1")
    pipeline(Stack(Stage(app, "A", env=where), "Scoring"), "Churn", pipeline_id="churn")

    with pytest.raises(
        ValueError, match=r"got 'churn' for A/Scoring/Churn and B/.*; choose another, or leave it"
    ):
        pipeline(Stack(Stage(app, "B", env=where), "Scoring"), "Churn", pipeline_id="churn")


def test_each_account_or_stage_may_have_the_id() -> None:
    app = App()

    for stage in ("Test", "Prod"):
        pipeline(Stack(Stage(app, stage), "Scoring"), "Churn", pipeline_id="churn")
    for region in ("eu-west-1", "us-east-1"):
        where = Environment(account="111122223333", region=region)
        pipeline(Stack(app, region, env=where), "Churn", pipeline_id="churn")


def test_another_app_is_of_no_concern() -> None:
    for _ in range(2):
        reading(Stack(App(), "Scoring"), "Churn", "one", "two", prefix="in/")
