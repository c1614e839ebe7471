"""`AWS::SageMaker::Model` for the emulator's CloudFormation."""

import secrets
import string
from typing import Any

from local_cloud import api_input, emulator
from local_cloud.models import Models
from local_cloud.refusals import Refusal

_NAME_LIMIT = 63
_ALPHABET = string.ascii_uppercase + string.digits


def plug_in(models: Models) -> None:
    """Let CloudFormation create, replace and delete these models."""

    def create(
        logical_id: str, properties: dict[str, Any], stack_name: str
    ) -> tuple[str, dict[str, str]]:
        request = _booleans({k: v for k, v in properties.items() if v is not None})
        name = request.setdefault("ModelName", _physical_name(stack_name, logical_id))
        try:
            models.create(api_input.accept("CreateModel", request))
        except Refusal as refusal:
            raise ValueError(refusal.message) from refusal
        return name, {"ModelName": name}

    def update(
        physical_id: str,
        old: dict[str, Any],
        new: dict[str, Any],
        stack_name: str,
        logical_id: str,
    ) -> tuple[str, dict[str, str]]:
        # A model is immutable: a changed one is a new one, and the old one goes.
        made = create(logical_id, new, stack_name)
        delete(physical_id, old)
        return made

    def delete(physical_id: str, properties: dict[str, Any]) -> None:
        try:
            models.delete({"ModelName": physical_id})
        except Refusal:
            pass  # Gone already, which is what was asked for.

    emulator.add_resource_type("AWS::SageMaker::Model", create=create, update=update, delete=delete)


def _physical_name(stack_name: str, logical_id: str) -> str:
    """Name a model as CloudFormation does: stack, logical id, and letters that make it new."""
    unique = "".join(secrets.choice(_ALPHABET) for _ in range(12))
    room = _NAME_LIMIT - len(unique) - 1
    return f"{f'{stack_name}-{logical_id}'[:room].rstrip('-')}-{unique}"


def _booleans(properties: dict[str, Any]) -> dict[str, Any]:
    """Turn the template's "true" into the API's true where the API has a boolean."""
    isolated = properties.get("EnableNetworkIsolation")
    if isinstance(isolated, str):
        properties["EnableNetworkIsolation"] = isolated.lower() == "true"
    return properties
