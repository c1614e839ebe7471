"""`AWS::SageMaker::Model` for the emulator's CloudFormation."""

import json
import secrets
import string
from typing import Any

from botocore.model import Shape

from local_cloud import api_input, emulator
from local_cloud.models import Models, arn
from local_cloud.refusals import Refusal

_CREATE = "CreateModel"
_NAME_LIMIT = 63
_ALPHABET = string.ascii_uppercase + string.digits


def plug_in(models: Models) -> None:
    """Let CloudFormation create, replace and delete these models."""

    def create(
        logical_id: str, properties: dict[str, Any], stack_name: str
    ) -> tuple[str, dict[str, str]]:
        request = _as_the_api_has_it(api_input.shape_of(_CREATE), properties)
        name = request.setdefault("ModelName", _physical_name(stack_name, logical_id))
        try:
            models.create(api_input.accept(_CREATE, request))
        except Refusal as refusal:
            raise ValueError(refusal.message) from refusal
        return arn(name), {"ModelName": name}  # Ref is the ARN, as on AWS

    def update(
        physical_id: str,
        old: dict[str, Any],
        new: dict[str, Any],
        stack_name: str,
        logical_id: str,
    ) -> tuple[str, dict[str, str]]:
        # A model is immutable: a changed one is a new one, and the old one goes.
        made = create(logical_id, new, stack_name)
        emulator.delete_when_replaced(delete, physical_id, old)
        return made

    def delete(physical_id: str, properties: dict[str, Any]) -> None:
        try:
            models.delete({"ModelName": physical_id.rpartition("/")[2]})
        except Refusal:
            pass  # Gone already, which is what was asked for.

    emulator.add_resource_type("AWS::SageMaker::Model", create=create, update=update, delete=delete)


def _physical_name(stack_name: str, logical_id: str) -> str:
    """Name a model as CloudFormation does: stack, logical id, and letters that make it new."""
    unique = "".join(secrets.choice(_ALPHABET) for _ in range(12))
    room = _NAME_LIMIT - len(unique) - 1
    return f"{f'{stack_name}-{logical_id}'[:room].rstrip('-')}-{unique}"


def _as_the_api_has_it(shape: Shape, value: Any) -> Any:
    """Turn a template's "true" into the API's true and its 1 into "1", as CloudFormation does."""
    match shape.type_name, value:
        case "structure", dict():
            return {
                name: _as_the_api_has_it(shape.members[name], part)
                if name in shape.members
                else part
                for name, part in value.items()
                if part is not None
            }
        case "map", dict():
            return {key: _as_the_api_has_it(shape.value, part) for key, part in value.items()}
        case "list", list():
            return [_as_the_api_has_it(shape.member, part) for part in value]
        case "boolean", "true" | "false" | "True" | "False":
            return value.lower() == "true"
        case "string", bool() | int() | float():
            return json.dumps(value)
        case _:
            return value
