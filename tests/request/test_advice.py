"""What a request may be regretted for, and what of it is silence."""

from typing import Any

import botocore.session
import pytest

from transform_request import INSTANCE_TYPES, InvalidRequest, validate
from transform_request.advice import advise
from transform_request.instance_types import OTHER_FAMILIES

_MODEL: Any = botocore.session.get_session().get_service_model("sagemaker")
_LINES: dict[str, Any] = {
    "TransformInput": {"SplitType": "Line"},
    "TransformOutput": {"AssembleWith": "Line"},
}
_WHOLE: dict[str, Any] = {"TransformInput": {"SplitType": "None"}}


def names(request: dict[str, Any], **known: Any) -> list[str]:
    return [advice.name for advice in advise(request, **known)]


@pytest.mark.parametrize(
    ("request_", "known", "name"),
    [
        pytest.param(
            {"TransformInput": {"SplitType": "Line"}, "TransformOutput": {}},
            {},
            "lineWithoutAssembleWith",
            id="answers to lines on one line",
        ),
        pytest.param(
            _WHOLE | {"BatchStrategy": "MultiRecord"}, {}, "strategyWithoutSplit", id="no records"
        ),
        pytest.param(
            _LINES | {"MaxPayloadInMB": 0},
            {},
            "wholeObjectInOneRequest",
            id="no limit",
        ),
        pytest.param(
            _LINES | {"MaxConcurrentTransforms": 17},
            {},
            "concurrencyWithDefaultPayload",
            id="17 times the default of 6",
        ),
        pytest.param(
            _LINES | {"TransformResources": {"InstanceCount": 3}},
            {"objects": 2},
            "moreInstancesThanObjects",
            id="an instance without an object",
        ),
        pytest.param(
            _LINES | {"TransformResources": {"InstanceType": "ml.m99.large"}},
            {},
            "unknownInstanceType",
            id="a family that may be new",
        ),
    ],
)
def test_a_regret_is_told_with_what_to_do(
    request_: dict[str, Any], known: dict[str, Any], name: str
) -> None:
    (advice,) = advise(request_, **known)

    assert advice.name == f"@batch-transform:{name}"
    assert "should" in advice.text
    assert ", got " in advice.text
    assert "; " in advice.text


@pytest.mark.parametrize(
    ("request_", "known"),
    [
        pytest.param(_LINES, {}, id="lines"),
        pytest.param(_WHOLE, {}, id="whole objects"),
        pytest.param(
            _LINES | {"BatchStrategy": "SingleRecord", "MaxPayloadInMB": 0},
            {},
            id="any size",
        ),
        pytest.param(_LINES | {"MaxConcurrentTransforms": 16}, {}, id="16 times 6"),
        pytest.param(
            _LINES | {"MaxConcurrentTransforms": 100, "MaxPayloadInMB": 1}, {}, id="100 times 1"
        ),
        pytest.param(
            _LINES | {"TransformResources": {"InstanceCount": 3, "InstanceType": "ml.m5.large"}},
            {"objects": 3},
            id="an object for each",
        ),
    ],
)
def test_what_is_usual_is_not_spoken_of(request_: dict[str, Any], known: dict[str, Any]) -> None:
    assert names(request_, **known) == []


def test_tokens_are_not_looked_at() -> None:
    token = "${Token[1]}"
    request = {
        "BatchStrategy": token,
        "MaxConcurrentTransforms": token,
        "MaxPayloadInMB": token,
        "TransformInput": token,
        "TransformOutput": {"AssembleWith": token},
        "TransformResources": {"InstanceType": token, "InstanceCount": token},
    }

    found = advise(request, objects=1, is_token=lambda value: value == token)

    assert [*found] == []


@pytest.mark.parametrize(
    ("instance_type", "such_as"),
    [
        pytest.param("m5.large", "such as ml.m5.large", id="no prefix"),
        pytest.param("ml.m5.larg", "such as ml.m5.large", id="a letter short"),
        pytest.param("ml.m5.3xlarge", "ml.m5.2xlarge", id="a size that is not"),
        pytest.param("ml.c5.large", "ml.c5.xlarge", id="a size that others have"),
        pytest.param("ml.m5d.large", "ml.m5.large", id="a family for training"),
        pytest.param("nonsense", "such as ml.m5.large", id="like none"),
    ],
)
def test_fails_when_an_instance_type_cannot_be_and_names_what_looks_like_it(
    instance_type: str, such_as: str
) -> None:
    with pytest.raises(InvalidRequest, match="116 types for transform jobs") as refusal:
        validate({"TransformResources": {"InstanceType": instance_type}}, partial=True)

    assert such_as in str(refusal.value)


def test_a_family_that_may_be_newer_than_we_is_taken() -> None:
    validate({"TransformResources": {"InstanceType": "ml.m99.24xlarge"}}, partial=True)


def test_the_families_of_other_jobs_are_those_of_the_api_model() -> None:
    enums = (
        "ProductionVariantInstanceType",
        "TrainingInstanceType",
        "ProcessingInstanceType",
        "InstanceType",
    )
    families = {value.split(".")[1] for name in enums for value in _MODEL.shape_for(name).enum} - {
        value.split(".")[1] for value in INSTANCE_TYPES
    }

    assert families == OTHER_FAMILIES
