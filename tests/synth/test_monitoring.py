import json
from collections.abc import Callable
from typing import Any

import jsonata  # type: ignore[import-untyped]  # it ships no type information
import pytest
from aws_cdk import App, Duration, Stack
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sqs as sqs

from batch_transform import (
    BatchPolicy,
    BatchTransform,
    Monitoring,
    PredictionIndex,
    TransformModel,
    TransformSettings,
)
from batch_transform.metrics import BatchTransformMetrics
from tests.documents import PROJECT, blocks_of

Template = dict[str, Any]
TOPIC = "arn:aws:sns:eu-west-1:111122223333:on-call"


def pipeline(stack: Stack, construct_id: str = "Churn", **options: Any) -> BatchTransform:
    return BatchTransform(
        stack,
        construct_id,
        model=TransformModel.from_model_name("churn"),
        instance_type="ml.m5.large",
        settings=TransformSettings.csv(),
        pipeline_id=construct_id.lower(),
        **options,
    )


@pytest.fixture(scope="module")
def watched(synthesize: Callable[[Any], Template]) -> dict[str, Any]:
    """The resources of two pipelines, one of which tells a topic and has rules."""

    def define(stack: Stack) -> None:
        churn = pipeline(
            stack,
            index=PredictionIndex(record_id=0),
            monitoring=Monitoring(topic=sns.Topic.from_topic_arn(stack, "OnCall", TOPIC)),
            batch=BatchPolicy(max_wait=Duration.minutes(10)),
        )
        queue = sqs.Queue(stack, "Ended")
        churn.on_run_completed("Done", target=targets.SqsQueue(queue), description="to the queue")
        churn.on_run_failed("Broken")
        churn.on_run_completed("Many").add_event_pattern(
            detail={"counts": {"done": [{"numeric": [">", 100]}]}}
        )
        churn.on_run_partially_completed("Half").add_target(targets.SqsQueue(queue))
        pipeline(stack, "Fraud")

    resources: dict[str, Any] = synthesize(define)["Resources"]
    return resources


def of_type(resources: dict[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    return {
        name: resource["Properties"]
        for name, resource in resources.items()
        if resource["Type"] == kind
    }


def alarm(resources: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [
        properties
        for logical_id, properties in of_type(resources, "AWS::CloudWatch::Alarm").items()
        if logical_id.startswith(name)
    ]
    return found


def widgets(resources: dict[str, Any]) -> list[dict[str, Any]]:
    (dashboard,) = of_type(resources, "AWS::CloudWatch::Dashboard").values()
    parts = dashboard["DashboardBody"]["Fn::Join"][1]
    text = "".join(part if isinstance(part, str) else "<token>" for part in parts)
    found: list[dict[str, Any]] = json.loads(text)["widgets"]
    return found


def announcement(resources: dict[str, Any]) -> dict[str, Any]:
    """The event as the state machine of the first pipeline sends it."""
    (definition,) = [
        properties["DefinitionString"]["Fn::Join"][1]
        for name, properties in of_type(resources, "AWS::StepFunctions::StateMachine").items()
        if name.startswith("Churn")
    ]
    text = "".join(part if isinstance(part, str) else "<token>" for part in definition)
    (entry,) = json.loads(text)["States"]["Announce"]["Arguments"]["Entries"]
    found: dict[str, Any] = entry
    return found


def test_four_alarms_watch_a_pipeline_and_each_says_what_to_do(watched: dict[str, Any]) -> None:
    alarms = of_type(watched, "AWS::CloudWatch::Alarm")

    assert len(alarms) == 2 * 4
    for name, properties in alarms.items():
        pipeline_id = "churn" if name.startswith("Churn") else "fraud"
        assert f"pipeline {pipeline_id}: " in properties["AlarmDescription"]
        assert len(properties["AlarmDescription"]) <= 1024


def test_one_failed_drop_alarms_and_none_is_no_news(watched: dict[str, Any]) -> None:
    found = alarm(watched, "ChurnAlarmsDropsFailed")

    assert found["MetricName"] == "DropsFailed"
    assert found["Dimensions"] == [{"Name": "Pipeline", "Value": "churn"}]
    assert (found["Threshold"], found["Statistic"], found["Period"]) == (1, "Sum", 300)
    assert found["TreatMissingData"] == "notBreaching"


def test_a_silent_dispatch_is_told_as_well_as_a_drop_that_waits(watched: dict[str, Any]) -> None:
    found = alarm(watched, "ChurnAlarmsDropsWait")

    assert found["MetricName"] == "OldestWaitingSeconds"
    assert found["Threshold"] == 600 + 6 * 3600
    assert found["TreatMissingData"] == "missing"
    assert found["InsufficientDataActions"] == found["AlarmActions"] == [TOPIC]


def test_runs_that_fail_and_executions_that_die_are_counted_together(
    watched: dict[str, Any],
) -> None:
    found = alarm(watched, "ChurnAlarmsRunsFailed")

    by_id = {part["Id"]: part for part in found["Metrics"]}
    (expression,) = [part for part in found["Metrics"] if "Expression" in part]
    assert expression["Expression"] == "FILL(failed, 0) + FILL(died, 0)"
    assert by_id["failed"]["MetricStat"]["Metric"]["MetricName"] == "RunsFailed"
    died = by_id["died"]["MetricStat"]
    assert died["Metric"]["Namespace"] == "AWS/States"
    assert "ChurnRunStateMachine" in str(died["Metric"]["Dimensions"])
    assert (died["Period"], found["Threshold"]) == (3600, 3)


def test_dead_letters_of_uploads_and_of_wake_ups_alarm(watched: dict[str, Any]) -> None:
    found = alarm(watched, "ChurnAlarmsDeadLetters")

    queues = [
        part["MetricStat"]["Metric"]["Dimensions"][0]["Value"]["Fn::GetAtt"][0]
        for part in found["Metrics"]
        if "MetricStat" in part
    ]
    assert [name[:-8] for name in sorted(queues)] == [
        "ChurnIntakeUploadsDeadLetters",
        "ChurnWakeUpsQueueDeadLetters",
    ]
    assert found["Threshold"] == 1


def test_every_alarm_goes_to_the_topic_of_its_pipeline(watched: dict[str, Any]) -> None:
    for name, properties in of_type(watched, "AWS::CloudWatch::Alarm").items():
        assert properties.get("AlarmActions") == ([TOPIC] if name.startswith("Churn") else None)


def test_pipelines_of_a_stack_share_one_dashboard_with_a_row_each(
    watched: dict[str, Any],
) -> None:
    titles = [widget["properties"]["title"] for widget in widgets(watched)]

    graphs = ["drops", "waiting", "runs", "dead letters"]
    assert titles == [f"{name}: {graph}" for name in ("churn", "fraud") for graph in graphs]
    assert {widget["width"] for widget in widgets(watched)} == {24 // len(graphs)}


def test_a_graph_shows_metrics_that_exist_and_records_only_of_an_index(
    watched: dict[str, Any],
) -> None:
    written = {
        "".join(word.capitalize() for word in name.split("_"))
        for name in vars(BatchTransformMetrics)
    }
    lines = [
        (widget["properties"]["title"], line)
        for widget in widgets(watched)
        for line in widget["properties"]["metrics"]
    ]

    ours = [(title, line) for title, line in lines if line[0] == "BatchTransform"]
    assert {line[1] for _, line in ours} <= written
    assert all(title.startswith(f"{line[3]}: ") for title, line in ours)
    assert {title for title, line in ours if "Records" in line[1]} == {"churn: drops"}
    assert {line[0] for _, line in lines} == {"BatchTransform", "AWS/States", "AWS/SQS"}


def test_alarms_and_dashboard_can_be_switched_off(synthesize: Callable[[Any], Template]) -> None:
    def define(stack: Stack) -> None:
        off = pipeline(stack, monitoring=Monitoring(alarms=False, dashboard=False))
        assert off.alarms is None

    resources = synthesize(define)["Resources"]

    assert not of_type(resources, "AWS::CloudWatch::Alarm")
    assert not of_type(resources, "AWS::CloudWatch::Dashboard")


@pytest.mark.parametrize(
    ("outcome", "rule"),
    [
        pytest.param("Completed", "ChurnDone", id="completed"),
        pytest.param("PartiallyCompleted", "ChurnHalf", id="partially completed"),
        pytest.param("Failed", "ChurnBroken", id="failed"),
    ],
)
def test_a_rule_matches_runs_of_its_pipeline_that_end_so(
    watched: dict[str, Any], outcome: str, rule: str
) -> None:
    (found,) = [
        properties
        for name, properties in of_type(watched, "AWS::Events::Rule").items()
        if name.startswith(rule)
    ]

    assert found["EventPattern"] == {
        "source": ["batch-transform"],
        "detail-type": [f"Batch Transform Run {outcome}"],
        "detail": {"pipeline": ["churn"]},
    }
    assert len(found.get("Targets", [])) == (0 if outcome == "Failed" else 1)


def test_a_rule_matches_what_the_state_machine_announces(watched: dict[str, Any]) -> None:
    announced = announcement(watched)
    told = jsonata.Jsonata(announced["DetailType"].removeprefix("{%").removesuffix("%}"))

    for name, outcome in (("Done", "Completed"), ("Half", "PartiallyCompleted")):
        (pattern,) = [
            rule["EventPattern"]
            for logical_id, rule in of_type(watched, "AWS::Events::Rule").items()
            if logical_id.startswith(f"Churn{name}")
        ]
        assert pattern["source"] == [announced["Source"]]
        assert pattern["detail"] == {"pipeline": [announced["Detail"]["pipeline"]]}
        assert pattern["detail-type"] == [
            told.evaluate(None, {"states": {"input": {"outcome": outcome}}})
        ]


def test_a_rule_says_what_it_is_for_when_it_is_told(watched: dict[str, Any]) -> None:
    (found,) = [
        properties
        for name, properties in of_type(watched, "AWS::Events::Rule").items()
        if name.startswith("ChurnDone")
    ]

    assert found["Description"] == "to the queue"


def test_a_rule_can_be_narrowed_by_its_user(watched: dict[str, Any]) -> None:
    (found,) = [
        properties
        for name, properties in of_type(watched, "AWS::Events::Rule").items()
        if name.startswith("ChurnMany")
    ]

    assert found["EventPattern"]["detail"] == {
        "pipeline": ["churn"],
        "counts": {"done": [{"numeric": [">", 100]}]},
    }


def test_fails_when_a_topic_comes_without_alarms() -> None:
    topic = sns.Topic.from_topic_arn(Stack(App(), "Scoring"), "OnCall", TOPIC)

    with pytest.raises(ValueError, match="topic must come with alarms, got alarms=False"):
        Monitoring(alarms=False, topic=topic)


def test_fails_when_the_longest_wait_is_shorter_than_a_batch_gathers() -> None:
    with pytest.raises(
        ValueError,
        match=r"longer than the batch policy's max_wait of 1 hour, got 30 minutes; raise",
    ):
        pipeline(
            Stack(App(), "Scoring"),
            batch=BatchPolicy(max_wait=Duration.hours(1)),
            monitoring=Monitoring(longest_wait=Duration.minutes(30)),
        )


def test_the_longest_wait_is_what_was_asked_for() -> None:
    monitoring = Monitoring(longest_wait=Duration.hours(2))

    assert monitoring.longest_wait_s(Duration.minutes(1)) == 7200


PAGE = PROJECT / "docs" / "monitoring.md"


def test_every_metric_and_alarm_is_documented() -> None:
    text = PAGE.read_text()
    metrics = [name for name in vars(BatchTransformMetrics) if not name.startswith("_")]
    alarms = ["drops_failed", "drops_wait", "runs_failed", "dead_letters"]

    assert [name for name in metrics if f"\n| `{name}` | `" not in text] == []
    assert [name for name in alarms if f"\n| `{name}` | " not in text] == []


def test_the_documented_event_has_what_the_state_machine_announces(
    watched: dict[str, Any],
) -> None:
    announced = announcement(watched)
    (block,) = blocks_of(PAGE, "json")

    event = json.loads(block.text)

    assert event["source"] == announced["Source"]
    assert event["detail"].keys() == announced["Detail"].keys()
    assert event["detail-type"] == f"Batch Transform Run {event['detail']['outcome']}"
