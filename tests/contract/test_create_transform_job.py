"""What we send to SageMaker, held against botocore's own model of the API."""

import json
from collections.abc import Iterator
from typing import Any

import botocore.session
import jsonata  # type: ignore[import-untyped]
import pytest
from aws_cdk import App, Duration, Size, Stack
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from botocore.validate import ParamValidator

import transform_request
from batch_transform import (
    BatchStrategy,
    CompressionType,
    DataCapture,
    DataProcessing,
    Experiment,
    JoinSource,
    ModelClientConfig,
    TransformSettings,
)
from batch_transform import settings as settings_module
from batch_transform.request import job_request
from tests.shapes import members

# Maps have keys of the user's own.
MAPS = {"Environment"}


@pytest.fixture(scope="module")
def shape() -> Any:
    service = botocore.session.get_session().get_service_model("sagemaker")
    return service.operation_model("CreateTransformJob").input_shape


def written(value: Any, path: str = "") -> Iterator[str]:
    """Every leaf of a request, in the same spelling."""
    if isinstance(value, dict) and path not in MAPS:
        for name, member in value.items():
            yield from written(member, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for member in value:
            yield from written(member, path)
    else:
        yield path


def full_request() -> dict[str, Any]:
    stack = Stack(App(), "Scoring")
    key = kms.Key.from_key_arn(stack, "Key", "arn:aws:kms:eu-west-1:111122223333:key/1234-abcd")
    bucket = s3.Bucket.from_bucket_name(stack, "Captured", "captured")
    settings = TransformSettings(
        content_type="text/csv",
        accept="text/csv",
        compression_type=CompressionType.GZIP,
        batch_strategy=BatchStrategy.SINGLE_RECORD,
        max_payload=Size.mebibytes(6),
        max_concurrent_transforms=4,
        model_client=ModelClientConfig(
            invocations_timeout=Duration.minutes(5), invocations_max_retries=1
        ),
        data_processing=DataProcessing(
            input_filter="$[1:]", output_filter="$[0,-1]", join_source=JoinSource.INPUT
        ),
        environment={"LOG_LEVEL": "info"},
        data_capture=DataCapture(
            bucket=bucket, prefix="capture/", key=key, generate_inference_id=True
        ),
        experiment=Experiment(
            experiment_name="churn",
            trial_name="autumn",
            trial_component_display_name="score",
            run_name="nightly",
        ),
        output_key=key,
        volume_key=key,
        ami_version="al2-ami-sagemaker-batch-gpu-535",
        tags={"team": "growth"},
    )
    return job_request(
        settings,
        model_name="churn-v1",
        instance_type="ml.m5.large",
        instance_count=2,
        job_name="churn-20260301t120000-0a1b2c-s1-0",
        input_uri="s3://out/runs/r/manifest-1.json",
        output_uri="s3://out/runs/r/step-1-of-1",
    )


def test_every_member_of_the_api_can_be_written(shape: Any) -> None:
    """Fails when AWS adds a member: give it a field, then it passes again."""
    assert set(written(full_request())) == set(members(shape))


def test_the_fullest_request_is_accepted(shape: Any) -> None:
    request = full_request()

    report = ParamValidator().validate(request, shape)

    assert report.generate_report() == ""
    transform_request.validate(request)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("SplitType", "SplitType"),
        ("CompressionType", "CompressionType"),
        ("BatchStrategy", "BatchStrategy"),
        ("AssembleWith", "AssemblyType"),
        ("JoinSource", "JoinSource"),
    ],
)
def test_our_enums_have_the_values_of_the_api(ours: str, theirs: str) -> None:
    """`ParamValidator` does not look at the values of an enum."""
    service = botocore.session.get_session().get_service_model("sagemaker")
    enum = getattr(settings_module, ours)

    assert {member.value for member in enum} == set(service.shape_for(theirs).enum)


def plain(value: Any) -> Any:
    """Resolve CloudFormation's functions and JSONata as a run would."""
    states = {
        "input": {
            "run_id": "churn-20260301t120000-0a1b2c",
            "shortages": 499,
        },
        "context": {"State": {"RetryCount": 12}},
    }
    if isinstance(value, dict):
        return {name: plain(member) for name, member in value.items()}
    if isinstance(value, str) and value.startswith("{%"):
        return jsonata.Jsonata(value[2:-2]).evaluate(None, {"states": states})
    return value


def test_the_deployed_state_machine_sends_a_request_that_sagemaker_accepts(
    template: dict[str, Any], shape: Any
) -> None:
    (machine,) = [
        resource["Properties"]
        for resource in template["Resources"].values()
        if resource["Type"] == "AWS::StepFunctions::StateMachine"
    ]
    text = "".join(
        part if isinstance(part, str) else "token"
        for part in machine["DefinitionString"]["Fn::Join"][1]
    )

    request = plain(json.loads(text)["States"]["Step1"]["Arguments"])

    assert request["TransformJobName"] == "churn-20260301t120000-0a1b2c-s1-499012"
    assert ParamValidator().validate(request, shape).generate_report() == ""
    transform_request.validate(request)


def test_the_longest_job_name_fits() -> None:
    longest = f"{'p' * 28}-20260301t120000-0a1b2c-s9-999900"

    assert len(longest) <= 63
