"""What is a drop: by its name, its size, an event, or a schedule."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from aws_cdk import Annotations as Metadata
from aws_cdk import App, Size, Stack, TimeZone
from aws_cdk import aws_s3 as s3
from aws_cdk.assertions import Annotations, Match
from aws_cdk.aws_scheduler import ScheduleExpression

from batch_transform import BatchPolicy, BatchTransform, TransformModel, Uploads

MODEL = TransformModel.from_model_name("churn")
Resources = dict[str, dict[str, Any]]


def of_type(template: dict[str, Any], kind: str) -> Resources:
    return {
        name: resource["Properties"]
        for name, resource in template["Resources"].items()
        if resource["Type"] == kind
    }


def pipeline(stack: Stack, **arguments: Any) -> BatchTransform:
    return BatchTransform(stack, "Churn", model=MODEL, instance_type="ml.m5.large", **arguments)


@pytest.fixture(scope="module")
def scheduled(synthesize: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    """A pipeline that no event tells of uploads."""
    return synthesize(
        lambda stack: pipeline(
            stack,
            input_bucket=s3.Bucket.from_bucket_name(stack, "Drops", "drops"),
            uploads=Uploads(
                prefix="in/",
                suffix=(".csv", ".tsv"),
                min_size=Size.kibibytes(1),
                max_size=Size.mebibytes(2),
                events=False,
            ),
            schedule=ScheduleExpression.cron(
                hour="2", minute="30", time_zone=TimeZone.EUROPE_BERLIN
            ),
        )
    )


def test_clients_are_told_what_a_drop_is(
    scheduled: dict[str, Any], synthesize: Callable[[Any], dict[str, Any]]
) -> None:
    def told(template: dict[str, Any]) -> Any:
        (settings,) = [
            parameter["Value"]
            for parameter in of_type(template, "AWS::SSM::Parameter").values()
            if parameter["Name"].endswith("/settings")
        ]
        return json.loads(settings)

    assert told(scheduled) == {
        "input-prefix": "in/",
        "max-concurrent-runs": 2,
        "suffixes": [".csv", ".tsv"],
        "min-bytes": 1024,
        "max-bytes": 2 * 1024 * 1024,
        "events": False,
    }
    marked = synthesize(lambda stack: pipeline(stack, batch=BatchPolicy(marker="_SUCCESS")))
    assert told(marked) == {
        "input-prefix": "input/",
        "max-concurrent-runs": 2,
        "marker": "_SUCCESS",
    }


def test_a_schedule_asks_intake_for_a_backfill_of_all(scheduled: dict[str, Any]) -> None:
    (nightly,) = [
        schedule
        for schedule in of_type(scheduled, "AWS::Scheduler::Schedule").values()
        if schedule["ScheduleExpression"] != "rate(1 minute)"
    ]

    assert nightly["ScheduleExpression"] == "cron(30 2 * * ? *)"
    assert nightly["ScheduleExpressionTimezone"] == "Europe/Berlin"
    assert json.loads(nightly["Target"]["Input"]) == {"backfill": {}}
    assert "IntakeUploads" in str(nightly["Target"]["Arn"])


def test_intake_may_list_the_watched_prefix_and_nothing_else(scheduled: dict[str, Any]) -> None:
    (listing,) = [
        statement
        for name, role in of_type(scheduled, "AWS::IAM::Role").items()
        if "IntakeFunction" in name
        for policy in role["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]
        if statement["Action"] == "s3:ListBucket"
    ]

    assert listing["Condition"] == {"StringLike": {"s3:prefix": "in/*"}}
    assert "drops" in str(listing["Resource"])
    assert "*" not in str(listing["Resource"])


def test_names_and_sizes_are_told_to_intake(scheduled: dict[str, Any]) -> None:
    (variables,) = [
        function["Environment"]["Variables"]
        for function in of_type(scheduled, "AWS::Lambda::Function").values()
        if "intake" in function["Handler"]
    ]

    assert variables["INPUT_PREFIX"] == "in/"
    assert json.loads(variables["INPUT_SUFFIXES"]) == [".csv", ".tsv"]
    assert (variables["MIN_DROP_BYTES"], variables["MAX_DROP_BYTES"]) == ("1024", str(2 << 20))


def test_without_events_no_rule_listens_to_the_bucket(scheduled: dict[str, Any]) -> None:
    rules = of_type(scheduled, "AWS::Events::Rule").values()

    assert [rule["EventPattern"]["source"] for rule in rules] == [["aws.states"]]


def warnings(stack: Stack, *parts: str) -> list[Any]:
    found: list[Any] = Annotations.from_stack(stack).find_warning(
        "*", Match.string_like_regexp(".*".join(parts))
    )
    return found


def test_an_imported_bucket_is_warned_of_until_that_is_acknowledged() -> None:
    stack = Stack(App(), "Scoring")
    made = pipeline(stack, input_bucket=s3.Bucket.from_bucket_name(stack, "Drops", "drops"))
    assert warnings(stack, "must send its events", "@batch-transform:eventsOfImportedBucket")

    Metadata.of(made).acknowledge_warning("@batch-transform:eventsOfImportedBucket")

    assert not warnings(stack, "must send its events")


@pytest.mark.parametrize("which", ["own", "of the app", "without events"])
def test_a_bucket_that_needs_no_look_is_not_warned_of(which: str) -> None:
    stack = Stack(App(), "Scoring")
    arguments: dict[str, dict[str, Any]] = {
        "own": {},
        "of the app": {"input_bucket": s3.Bucket(stack, "Drops", event_bridge_enabled=True)},
        "without events": {
            "input_bucket": s3.Bucket.from_bucket_name(stack, "Named", "drops"),
            "uploads": Uploads(events=False),
        },
    }
    pipeline(stack, **arguments[which])

    assert not warnings(stack, "")


@pytest.mark.parametrize("prefix", ["input", "", "/input/", "/"])
def test_fails_when_the_prefix_is_not_a_folder(prefix: str) -> None:
    with pytest.raises(ValueError, match=r"must end with '/' and not start with it, .*; use 'inpu"):
        Uploads(prefix=prefix)


def test_fails_when_there_are_more_suffixes_than_eventbridge_takes() -> None:
    with pytest.raises(ValueError, match="at most 5 suffixes, got 6; take what they have in com"):
        Uploads(suffix=[f".{number}" for number in range(6)])


def test_fails_when_one_of_several_suffixes_is_every_name() -> None:
    with pytest.raises(ValueError, match="got ''; leave suffix out to take every name"):
        Uploads(suffix=[".csv", ""])


def test_fails_when_no_size_can_be_right() -> None:
    with pytest.raises(ValueError, match="got 1 and 2 bytes; exchange them"):
        Uploads(min_size=Size.bytes(2), max_size=Size.bytes(1))


def test_fails_when_the_pattern_is_too_long_for_eventbridge() -> None:
    stack = Stack(App(), "Scoring")
    uploads = Uploads(prefix=f"{'x' * 400}/", suffix=[".a", ".b", ".c"])

    with pytest.raises(ValueError, match=r"2048 characters, got 2\d+; give fewer suffixes"):
        pipeline(stack, uploads=uploads, batch=BatchPolicy(marker="_SUCCESS"))
