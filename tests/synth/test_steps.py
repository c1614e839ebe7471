"""Chains of steps, instances that follow the batch, and types to fall back on."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jsonata  # type: ignore[import-untyped]
import pytest
from aws_cdk import App, Duration, Size, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk.assertions import Annotations, Match

from batch_transform import (
    AssembleWith,
    BatchTransform,
    CompressionType,
    InstanceCount,
    SplitType,
    TransformModel,
    TransformSettings,
    TransformStep,
)
from tests.policies import statements_of_roles

CLEAN = TransformModel.from_model_name("clean-v1")
CHURN = TransformModel.from_model_name("churn-v1")
CSV = TransformSettings.csv()


def step(name: str, settings: TransformSettings = CSV, **changes: Any) -> TransformStep:
    arguments: dict[str, Any] = {"model": CHURN, "instance_type": "ml.m5.large", **changes}
    return TransformStep(name=name, settings=settings, **arguments)


def chain(steps: Sequence[TransformStep]) -> Stack:
    stack = Stack(App(), "Scoring")
    BatchTransform(stack, "Churn", steps=steps)
    return stack


@pytest.fixture(scope="module")
def template(synthesize: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    """Two steps that differ in everything, and the roles of their models."""

    def define(stack: Stack) -> None:
        key = kms.Key.from_key_arn(stack, "Key", "arn:aws:kms:eu-west-1:111122223333:key/clean")
        pipeline = BatchTransform(
            stack,
            "Churn",
            pipeline_id="churn",
            job_timeout=Duration.hours(2),
            run_timeout=Duration.hours(9),
            steps=[
                step(
                    "clean",
                    replace(CSV, output_key=key),
                    model=CLEAN,
                    job_timeout=Duration.minutes(20),
                ),
                step(
                    "score",
                    instance_type=["ml.g5.xlarge", "ml.g4dn.xlarge"],
                    instance_count=InstanceCount.from_batch(
                        bytes_per_instance=Size.mebibytes(100), objects_per_instance=4, maximum=8
                    ),
                ),
            ],
        )
        for name in ("clean", "score"):
            role = iam.Role(stack, f"For{name}", assumed_by=iam.AccountRootPrincipal())
            pipeline.grants.score(role, step=name)

    return synthesize(define)


def statements(template: dict[str, Any], role: str) -> list[dict[str, Any]]:
    (found,) = [
        found for name, found in statements_of_roles(template).items() if name.startswith(role)
    ]
    return found


@pytest.fixture(scope="module")
def definition(template: dict[str, Any]) -> dict[str, Any]:
    (machine,) = [
        resource["Properties"]["DefinitionString"]["Fn::Join"][1]
        for resource in template["Resources"].values()
        if resource["Type"] == "AWS::StepFunctions::StateMachine"
    ]
    text = "".join(part if isinstance(part, str) else "token" for part in machine)
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.fixture(scope="module")
def states(definition: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = definition["States"]
    return found


def test_a_run_as_a_whole_ends_in_time(definition: dict[str, Any]) -> None:
    assert definition["TimeoutSeconds"] == 9 * 3600


def test_each_step_is_a_job_with_its_own_model_timeout_and_name(states: dict[str, Any]) -> None:
    first, second = states["Step1"], states["Step2"]

    assert [state["Arguments"]["ModelName"] for state in (first, second)] == [
        "clean-v1",
        "churn-v1",
    ]
    assert [state["TimeoutSeconds"] for state in (first, second)] == [1200, 7200]
    assert "'-s2-'" in second["Arguments"]["TransformJobName"]
    assert "KmsKeyId" not in second["Arguments"]["TransformOutput"]


def test_the_state_machine_may_use_a_model_and_a_type_in_its_own_step_alone(
    template: dict[str, Any],
) -> None:
    creates = [
        statement
        for statement in statements(template, "ChurnRunRole")
        if statement["Action"] == "sagemaker:CreateTransformJob"
    ]

    allowed = [
        (
            re.findall(r":transform-job/([^']+)", str(create["Resource"])),
            set(re.findall(r":model/([^']+)", str(create["Condition"]))),
            create["Condition"]["ForAnyValue:StringEquals"]["sagemaker:InstanceTypes"],
        )
        for create in creates
    ]
    assert allowed == [
        (["churn-*-s1-*"], {"clean-v1"}, ["ml.m5.large"]),
        (["churn-*-s2-*"], {"churn-v1"}, ["ml.g5.xlarge", "ml.g4dn.xlarge"]),
    ]


def test_a_model_reads_and_writes_only_where_its_step_does(template: dict[str, Any]) -> None:
    def objects(name: str, action: str) -> set[str]:
        return {
            path
            for statement in statements(template, f"For{name}")
            if action in statement["Action"]
            for path in re.findall(r"'/([^']+)'", str(statement["Resource"]))
        }

    assert objects("clean", "s3:GetObject") == {"input/*", "runs/*/manifest-1.json"}
    assert objects("clean", "s3:PutObject") == {"runs/*/step-1-of-2/*"}
    assert objects("score", "s3:GetObject") == {"runs/*/step-1-of-2/*", "runs/*/manifest-2.json"}
    assert objects("score", "s3:PutObject") == {"runs/*/step-2-of-2/*"}
    listed = [
        statement["Resource"]
        for statement in statements(template, "Forscore")
        if statement["Action"] == "s3:ListBucket"
    ]
    assert "Input" not in str(listed)


def test_who_hands_on_and_who_reads_next_may_decrypt_what_a_step_wrote(
    template: dict[str, Any],
) -> None:
    for role in ("ChurnSettle", "Forscore"):
        assert "key/clean" in str(statements(template, role))


@pytest.mark.parametrize(
    ("objects", "size_mib", "count"),
    [
        pytest.param(1, 10_000, 1, id="one object is worked on by one instance"),
        pytest.param(2, 10_000, 2, id="never more instances than objects"),
        pytest.param(20, 30, 5, id="by objects"),
        pytest.param(20, 601, 7, id="by bytes, rounded up"),
        pytest.param(500, 100, 8, id="never more than the maximum"),
        pytest.param(3, 0, 1, id="at least one"),
    ],
)
def test_the_count_follows_the_batch(
    states: dict[str, Any], objects: int, size_mib: int, count: int
) -> None:
    expression = states["Step2"]["Arguments"]["TransformResources"]["InstanceCount"]
    begin = {"objects": objects, "size_bytes": size_mib * 1024**2}

    value = jsonata.Jsonata(expression[2:-2]).evaluate(None, {"states": {"input": begin}})

    assert value == count
    assert isinstance(value, int)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        pytest.param({"maximum": 4}, "got neither; give one, or a plain number", id="no measure"),
        pytest.param(
            {"bytes_per_instance": Size.kibibytes(1), "maximum": 4}, "at least 1 MiB", id="tiny"
        ),
        pytest.param(
            {"objects_per_instance": 0, "maximum": 4}, "at least 1, got 0", id="no object"
        ),
        pytest.param({"objects_per_instance": 1, "maximum": 101}, "2 to 100", id="too many"),
        pytest.param({"objects_per_instance": 1, "maximum": 1}, "give a plain number", id="one"),
    ],
)
def test_fails_when_a_count_cannot_follow_the_batch(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        InstanceCount.from_batch(**changes)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        pytest.param({"name": "Clean up"}, "lower-case letters, .* rename it", id="name"),
        pytest.param({"instance_type": []}, "1 to 5 different types", id="no type"),
        pytest.param({"instance_type": ["ml.m5.large"] * 2}, "leave out what is twice", id="twice"),
        pytest.param({"job_timeout": Duration.seconds(1)}, "takes minutes", id="timeout"),
    ],
)
def test_fails_when_no_step_can_be_so(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        step(**{"name": "clean", **changes})


JSON = TransformSettings.json_lines()
IMAGES = TransformSettings.whole_files("image/jpeg")


@pytest.mark.parametrize(
    ("steps", "match"),
    [
        pytest.param([], "must be 1 to 9, got 0", id="none"),
        pytest.param([step(f"s-{n}") for n in range(10)], "must be 1 to 9, got 10", id="ten"),
        pytest.param([step("a"), step("a")], "a name of its own", id="a name twice"),
        pytest.param(
            [step("clean", CSV), step("score", JSON)],
            "got content_type 'application/jsonlines' after accept 'text/csv'; make them the same",
            id="another content type",
        ),
        pytest.param(
            [step("clean"), step("score", replace(CSV, compression_type=CompressionType.GZIP))],
            "SageMaker compresses no output, got .* set it for the first step alone",
            id="compressed in between",
        ),
        pytest.param(
            [step("clean"), step("score", replace(CSV, split_type=SplitType.RECORD_IO))],
            "must split what step 'clean' assembles, got split_type RecordIO after",
            id="records of another kind",
        ),
        pytest.param(
            [step("clean"), step("score", instance_type=["ml.m5.large", "ml.m5.tiny"])],
            "ml.m5.tiny",
            id="a type that does not exist behind one that does",
        ),
    ],
)
def test_fails_when_steps_cannot_follow_each_other(
    steps: Sequence[TransformStep], match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        chain(steps)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        pytest.param({}, "got none of them; give what is missing", id="nothing"),
        pytest.param({"model": CHURN}, "got model; give what is missing", id="no type"),
        pytest.param(
            {"steps": [step("score")], "instance_type": "ml.m5.large", "settings": CSV},
            "got them with instance_type, settings; move those into the steps",
            id="both forms",
        ),
    ],
)
def test_fails_when_the_steps_are_given_twice_or_not_at_all(
    arguments: dict[str, Any], match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        BatchTransform(Stack(App(), "Scoring"), "Churn", **arguments)


def test_fails_when_a_grant_names_no_step() -> None:
    stack = Stack(App(), "Scoring")
    pipeline = BatchTransform(stack, "Churn", steps=[step("clean"), step("score")])

    with pytest.raises(ValueError, match="one of clean, score, got 'predict'"):
        pipeline.grants.score(
            iam.Role(stack, "Role", assumed_by=iam.AccountRootPrincipal()), step="predict"
        )


def test_warns_when_records_may_run_into_each_other() -> None:
    framed = TransformSettings(
        content_type="application/x-recordio-protobuf",
        split_type=SplitType.RECORD_IO,
        assemble_with=AssembleWith.NONE,
        accept="text/csv",
    )
    warned = Match.string_like_regexp("'score' splits by Line .* use assemble_with Line")

    Annotations.from_stack(chain([step("clean", framed), step("score")])).has_warning("*", warned)
    quiet = chain([step("read", replace(IMAGES, accept="text/csv")), step("score")])
    Annotations.from_stack(quiet).has_no_warning("*", warned)
