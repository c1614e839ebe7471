from dataclasses import replace

import pytest
from aws_cdk import Duration, Size

from batch_transform import (
    ModelClientConfig,
    ModelServer,
    TransformSettings,
    with_server_limits,
)

LARGE_AND_SLOW = TransformSettings(
    max_payload=Size.mebibytes(50),
    model_client=ModelClientConfig(invocations_timeout=Duration.minutes(20)),
)


@pytest.mark.parametrize(
    ("server", "prefix"),
    [
        pytest.param(ModelServer.TORCH_SERVE, "TS", id="TorchServe"),
        pytest.param(ModelServer.MULTI_MODEL_SERVER, "MMS", id="Multi Model Server"),
    ],
)
def test_a_server_takes_what_the_job_may_send_and_as_long_as_the_job_waits(
    server: ModelServer, prefix: str
) -> None:
    environment = with_server_limits(LARGE_AND_SLOW, server).environment

    assert environment == {
        "SAGEMAKER_MODEL_SERVER_TIMEOUT": "1200",
        f"{prefix}_DEFAULT_RESPONSE_TIMEOUT": "1200",
        f"{prefix}_MAX_REQUEST_SIZE": str(50 * 2**20),
        f"{prefix}_MAX_RESPONSE_SIZE": str(2**31 - 1),
    }


def test_gunicorn_has_a_timeout_only() -> None:
    environment = with_server_limits(LARGE_AND_SLOW, ModelServer.GUNICORN).environment

    assert environment == {"SAGEMAKER_MODEL_SERVER_TIMEOUT": "1200"}


@pytest.mark.parametrize(
    ("payload", "limit"),
    [
        pytest.param(None, 6 * 2**20, id="the service's default"),
        pytest.param(Size.mebibytes(0), 2**31 - 1, id="any size, in chunks"),
    ],
)
def test_without_settings_the_limits_are_the_service_s(payload: Size | None, limit: int) -> None:
    settings = with_server_limits(TransformSettings(max_payload=payload), ModelServer.TORCH_SERVE)

    assert settings.environment["TS_MAX_REQUEST_SIZE"] == str(limit)
    assert settings.environment["TS_DEFAULT_RESPONSE_TIMEOUT"] == "600"


def test_what_the_user_set_stays_and_the_rest_of_the_settings_too() -> None:
    settings = replace(
        TransformSettings.csv(), environment={"A": "b", "TS_MAX_REQUEST_SIZE": "1000"}
    )

    limited = with_server_limits(settings, ModelServer.TORCH_SERVE)

    assert limited.environment["TS_MAX_REQUEST_SIZE"] == "1000"
    assert limited.environment["A"] == "b"
    assert replace(limited, environment=settings.environment) == settings
