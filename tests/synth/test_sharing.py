from typing import Any

import pytest
from aws_cdk import Annotations as Metadata
from aws_cdk import App, Environment, Stack, Stage
from aws_cdk import aws_s3 as s3
from aws_cdk.assertions import Annotations, Match

from batch_transform import (
    BatchTransform,
    DataCapture,
    TransformModel,
    TransformSettings,
    Uploads,
)


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
        stack,
        construct_id,
        input_bucket=source,
        output_bucket=target,
        uploads=Uploads(prefix=prefix),
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
            uploads=Uploads(suffix=suffix),
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
    pipeline(
        second, "Uplift", input_bucket=first.output_bucket, uploads=Uploads(prefix="predictions/")
    )

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


def warned(stack: Stack) -> int:
    same_drops = Match.string_like_regexp("should take drops of different keys")
    return len(Annotations.from_stack(stack).find_warning("*", same_drops))


def test_a_pipeline_that_scores_the_drops_of_another_is_warned_of_until_acknowledged() -> None:
    stack = Stack(App(), "Scoring")
    drops = bucket(stack, "drops")
    pipeline(stack, "Champion", input_bucket=drops)
    challenger = pipeline(
        stack, "Challenger", input_bucket=drops, uploads=Uploads(prefix="input/eu/", suffix=".csv")
    )
    assert warned(stack) == 1

    Metadata.of(challenger).acknowledge_warning("@batch-transform:sameDrops")
    assert warned(stack) == 0


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(Uploads(prefix="input_old/"), id="a prefix that begins like it"),
        pytest.param(Uploads(suffix=(".json", ".txt")), id="other suffixes"),
    ],
)
def test_pipelines_of_one_bucket_with_other_drops_are_not_warned_of(other: Uploads) -> None:
    stack = Stack(App(), "Scoring")
    drops = bucket(stack, "drops")
    pipeline(stack, "Rows", input_bucket=drops, uploads=Uploads(suffix=(".csv", ".tsv")))
    pipeline(stack, "Other", input_bucket=drops, uploads=other)

    assert warned(stack) == 0


def test_fails_when_any_of_several_suffixes_is_also_another_pipelines() -> None:
    stack = Stack(App(), "Scoring")
    shared: dict[str, Any] = {
        "input_bucket": bucket(stack, "drops"),
        "output_bucket": bucket(stack, "scores"),
    }
    pipeline(stack, "Rows", uploads=Uploads(suffix=[".csv", ".tsv"]), **shared)

    with pytest.raises(ValueError, match="must have inputs of different keys"):
        pipeline(stack, "Packed", uploads=Uploads(suffix=[".gz", ".all.tsv"]), **shared)


def test_a_bucket_of_the_app_is_known_by_its_name_in_another_stack_too() -> None:
    app = App()
    made = s3.Bucket(Stack(app, "Data"), "Scores", bucket_name="scores", event_bridge_enabled=True)
    first, second = Stack(app, "A"), Stack(app, "B")
    pipeline(first, "Churn", output_bucket=made, input_bucket=bucket(first, "one"))

    with pytest.raises(ValueError, match="must have inputs of different keys"):
        pipeline(
            second,
            "Churn",
            output_bucket=bucket(second, "scores"),
            input_bucket=bucket(second, "two"),
        )


def test_fails_when_data_capture_would_be_a_drop() -> None:
    stack = Stack(App(), "Scoring")
    drops = bucket(stack, "drops")
    capture = DataCapture(bucket=bucket(stack, "drops"), prefix="input/captured/")

    with pytest.raises(ValueError, match="give the capture another prefix or bucket"):
        pipeline(
            stack,
            "Churn",
            input_bucket=drops,
            settings=TransformSettings(content_type="text/csv", data_capture=capture),
        )
