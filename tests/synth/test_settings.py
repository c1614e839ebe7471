from collections.abc import Callable
from dataclasses import replace
from typing import Any

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
        pytest.param(TransformSettings.record_io(), id="RecordIO"),
        pytest.param(TransformSettings.tf_record("application/x-tfrecord"), id="TFRecord"),
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


def test_only_lines_are_assembled_unless_told_otherwise() -> None:
    for settings in (
        TransformSettings.whole_files("image/jpeg", accept="application/json"),
        TransformSettings.record_io(accept="application/jsonlines"),
        TransformSettings.tf_record("application/x-tfrecord"),
        replace(TransformSettings.csv(), split_type=SplitType.NONE),
    ):
        assert "AssembleWith" not in settings.to_request()["TransformOutput"]
        lines = replace(settings, assemble_with=AssembleWith.LINE).to_request()
        assert lines["TransformOutput"]["AssembleWith"] == "Line"


def test_gzip_is_one_argument_of_every_factory() -> None:
    for settings in (
        TransformSettings.csv(id_column=0, gzip=True),
        TransformSettings.json_lines(gzip=True),
        TransformSettings.whole_files("application/pdf", gzip=True),
        TransformSettings.record_io(gzip=True),
        TransformSettings.tf_record("application/x-tfrecord", gzip=True),
    ):
        assert settings.to_request()["TransformInput"]["CompressionType"] == "Gzip"
        checked(settings)


@pytest.mark.parametrize(
    ("make", "arguments", "remedy"),
    [
        pytest.param(
            TransformSettings.csv, {"id_column": -1}, "from the left", id="a column from the end"
        ),
        pytest.param(
            TransformSettings.csv,
            {"id_column": 2},
            r"say what the model sees, for example input_filter='\$\[3:\]'",
            id="a column that no range leaves out",
        ),
        pytest.param(
            TransformSettings.csv,
            {"id_column": 0, "answer_columns": 0},
            "got 0; set keep_input=True",
            id="no answer",
        ),
        pytest.param(
            TransformSettings.csv,
            {"id_column": 0, "answer_columns": 18},
            "got 18; set keep_input=True",
            id="more columns than a filter can list",
        ),
        pytest.param(
            TransformSettings.json_lines,
            {"id_member": "account_id"},
            "got 'account_id'; set keep_input=True",
            id="a member that no filter can select",
        ),
        pytest.param(
            TransformSettings.json_lines,
            {"id_member": "i" * 60},
            "set keep_input=True",
            id="a member too long for a filter",
        ),
        pytest.param(
            TransformSettings.csv,
            {"id_column": 0, "data_processing": DataProcessing()},
            "write the filters and the join into it",
            id="two ways to say it for CSV",
        ),
        pytest.param(
            TransformSettings.json_lines,
            {"keep_input": True, "data_processing": DataProcessing()},
            "write the filters and the join into it",
            id="two ways to say it for JSON Lines",
        ),
    ],
)
def test_fails_when_a_preset_cannot_be_a_filter(
    make: Callable[..., TransformSettings], arguments: dict[str, Any], remedy: str
) -> None:
    with pytest.raises(ValueError, match=remedy):
        make(**arguments)


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
