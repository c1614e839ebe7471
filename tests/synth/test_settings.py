from dataclasses import replace

import pytest
from aws_cdk import Duration, Size

from batch_transform import (
    AssembleWith,
    DataProcessing,
    JoinSource,
    ModelClientConfig,
    SplitType,
    TransformSettings,
)
from batch_transform.request import check_settings


def checked(settings: TransformSettings) -> None:
    check_settings(settings, model_name="churn", instance_type="ml.m5.large", instance_count=1)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(TransformSettings(), id="defaults"),
        pytest.param(TransformSettings.csv(), id="csv"),
        pytest.param(TransformSettings.json_lines(), id="json lines"),
        pytest.param(TransformSettings.whole_files("image/jpeg"), id="whole files"),
    ],
)
def test_what_the_user_did_not_set_is_not_written(settings: TransformSettings) -> None:
    request = settings.to_request()

    assert set(request) == {"TransformInput", "TransformOutput", "TransformResources"}
    assert set(request["TransformInput"]) == {"ContentType", "SplitType"}
    assert set(request["TransformOutput"]) <= {"AssembleWith", "Accept"}
    assert request["TransformResources"] == {}
    checked(settings)


def test_half_a_model_client_is_written_as_half() -> None:
    settings = TransformSettings(model_client=ModelClientConfig(invocations_max_retries=0))

    assert settings.to_request()["ModelClientConfig"] == {"InvocationsMaxRetries": 0}


def test_an_explicit_zero_is_written() -> None:
    settings = TransformSettings(max_payload=Size.mebibytes(0), max_concurrent_transforms=0)

    assert settings.to_request()["MaxPayloadInMB"] == 0
    assert settings.to_request()["MaxConcurrentTransforms"] == 0


def test_lines_in_means_lines_out() -> None:
    for settings in (TransformSettings.csv(), TransformSettings.json_lines()):
        request = settings.to_request()
        assert request["TransformInput"]["SplitType"] == "Line"
        assert request["TransformOutput"]["AssembleWith"] == "Line"


def test_fails_when_answers_to_lines_would_run_into_each_other() -> None:
    with pytest.raises(ValueError, match="leave it out, or answers run into each other"):
        TransformSettings(split_type=SplitType.LINE, assemble_with=AssembleWith.NONE)


def test_fails_when_the_payload_is_not_whole_mebibytes() -> None:
    with pytest.raises(ValueError, match=r"got 1\.5 MiB; use Size\.mebibytes\(2\)"):
        TransformSettings(max_payload=Size.kibibytes(1536))


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        pytest.param(
            TransformSettings(max_payload=Size.mebibytes(50), max_concurrent_transforms=3),
            "lower",
            id="more than 100 MiB in flight",
        ),
        pytest.param(
            TransformSettings.csv(data_processing=DataProcessing(output_filter="$[0:2,5:]")),
            "range",
            id="two ranges in a filter",
        ),
        pytest.param(
            TransformSettings.csv(data_processing=DataProcessing(input_filter="$.name")),
            "CSV|csv",
            id="a member of a CSV row",
        ),
        pytest.param(
            replace(
                TransformSettings.csv(data_processing=DataProcessing(join_source=JoinSource.INPUT)),
                accept="application/json",
            ),
            "Accept",
            id="a join of two formats",
        ),
        pytest.param(
            TransformSettings(
                model_client=ModelClientConfig(invocations_timeout=Duration.hours(2))
            ),
            "3600",
            id="longer than an hour",
        ),
        pytest.param(
            TransformSettings(environment={f"NAME_{n}": "x" for n in range(17)}),
            "16",
            id="too many variables",
        ),
    ],
)
def test_fails_at_synth_when_the_service_would_refuse(
    settings: TransformSettings, remedy: str
) -> None:
    with pytest.raises(ValueError, match=remedy):
        checked(settings)


def test_fails_when_the_state_machine_would_evaluate_a_setting() -> None:
    with pytest.raises(ValueError, match="put something before it, such as a space"):
        checked(TransformSettings(environment={"TEMPLATE": "{% for row in rows %}"}))


def test_tokens_pass() -> None:
    from aws_cdk import Aws

    check_settings(
        TransformSettings(environment={"REGION": Aws.REGION}),
        model_name=Aws.STACK_NAME,
        instance_type="ml.m5.large",
        instance_count=1,
    )
