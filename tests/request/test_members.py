"""The table of members, held against botocore's own model of the API."""

from typing import Any

import botocore.session

from transform_request import INSTANCE_TYPES
from transform_request.members import (
    REQUEST,
    Choice,
    Flag,
    Group,
    Kind,
    Listing,
    Number,
    Pairs,
    Text,
)

_MODEL: Any = botocore.session.get_session().get_service_model("sagemaker")


def _as_botocore_says(shape: Any) -> Any:
    limits = {name: shape.metadata[name] for name in ("min", "max") if name in shape.metadata}
    if shape.type_name == "structure":
        return {
            "members": {name: _as_botocore_says(part) for name, part in shape.members.items()},
            "required": sorted(shape.required_members),
        }
    if shape.type_name == "map":
        return {"key": _as_botocore_says(shape.key), "value": _as_botocore_says(shape.value)}
    if shape.type_name == "list":
        return {"of": _as_botocore_says(shape.member), "max": limits["max"]}
    if shape.type_name == "boolean":
        return "flag"
    if shape.type_name == "string" and shape.enum:
        return {"enum": sorted(shape.enum)}
    return {"type": shape.type_name, **limits}


def _as_we_say(kind: Kind) -> Any:
    match kind:
        case Group():
            return {
                "members": {name: _as_we_say(part) for name, part in kind.members.items()},
                "required": sorted(kind.required),
            }
        case Pairs():
            return {"key": _as_we_say(kind.key), "value": _as_we_say(kind.value)}
        case Listing():
            return {"of": _as_we_say(kind.of), "max": kind.most}
        case Flag():
            return "flag"
        case Choice():
            return {"enum": sorted((*kind.values, *kind.refused))}
        case Number():
            upper = {} if kind.most is None else {"max": kind.most}
            return {"type": "integer", "min": kind.least, **upper}
        case Text():
            return {"type": "string", "min": kind.least, "max": kind.most}


def test_every_member_and_limit_is_the_one_of_the_api_model() -> None:
    shape = _MODEL.operation_model("CreateTransformJob").input_shape
    assert _as_we_say(REQUEST) == _as_botocore_says(shape)


def test_the_instance_types_are_those_of_the_api_model() -> None:
    assert tuple(_MODEL.shape_for("TransformInstanceType").enum) == INSTANCE_TYPES
