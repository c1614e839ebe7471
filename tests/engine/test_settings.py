from collections.abc import Callable
from typing import Any

import pytest

from transform_engine.settings import container_environment, settings_for
from transform_engine.spec import Readings

_OFFERED = {"MaxConcurrentTransforms": 8, "BatchStrategy": "SINGLE_RECORD", "MaxPayloadInMB": 3}


@pytest.mark.parametrize(
    ("given", "offered", "line"),
    [
        pytest.param(
            {},
            {},
            "MaxConcurrentTransforms=1, MaxPayloadInMB=6, BatchStrategy=MULTI_RECORD",
            id="defaults",
        ),
        pytest.param(
            {},
            _OFFERED,
            "MaxConcurrentTransforms=8, MaxPayloadInMB=3, BatchStrategy=SINGLE_RECORD",
            id="the container's",
        ),
        pytest.param(
            {"MaxConcurrentTransforms": 2, "MaxPayloadInMB": 0, "BatchStrategy": "MultiRecord"},
            _OFFERED,
            "MaxConcurrentTransforms=2, MaxPayloadInMB=0, BatchStrategy=MULTI_RECORD",
            id="the job's win",
        ),
        pytest.param(
            {"MaxConcurrentTransforms": 0},
            {"BatchStrategy": "SingleRecord", "MaxPayloadInMB": "6", "MaxConcurrentTransforms": 2},
            "MaxConcurrentTransforms=2, MaxPayloadInMB=6, BatchStrategy=SINGLE_RECORD",
            id="0 asks the container, malformed offers count as absent",
        ),
    ],
)
def test_each_member_is_the_jobs_or_the_containers_or_the_default(
    request_for: Callable[..., dict[str, Any]],
    given: dict[str, Any],
    offered: dict[str, Any],
    line: str,
) -> None:
    assert settings_for(request_for(**given), offered, Readings()).log_line == line


def test_a_container_is_told_only_what_the_caller_set(
    request_for: Callable[..., dict[str, Any]],
) -> None:
    assert container_environment(request_for(), {"A": "model"}) == {
        "A": "model",
        "SAGEMAKER_BATCH": "true",
    }
    request = request_for(
        MaxPayloadInMB=1,
        MaxConcurrentTransforms=4,
        BatchStrategy="SingleRecord",
        Environment={"A": "job"},
    )
    assert container_environment(request, {"A": "model", "B": "model"}) == {
        "A": "job",
        "B": "model",
        "SAGEMAKER_BATCH": "true",
        "SAGEMAKER_MAX_PAYLOAD_IN_MB": "1",
        "SAGEMAKER_BATCH_STRATEGY": "SINGLE_RECORD",
        "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": "4",
    }


def test_a_megabyte_can_be_read_as_decimal(request_for: Callable[..., dict[str, Any]]) -> None:
    request = request_for(MaxPayloadInMB=1)
    assert settings_for(request, {}, Readings()).limit_bytes == 2**20
    assert settings_for(request, {}, Readings(bytes_in_mb=10**6)).limit_bytes == 10**6
