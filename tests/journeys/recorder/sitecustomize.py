"""Python imports this in a Lambda worker whose PYTHONPATH leads here: notes each call of AWS."""

import json
import os
from typing import Any

from botocore.client import BaseClient

# What says on which resource a call works; bodies and items do not matter.
_RESOURCES = {
    "Bucket",
    "CopySource",
    "ExecutionArn",
    "IndexName",
    "Key",
    "ModelName",
    "Prefix",
    "QueueUrl",
    "TableName",
    "TransformJobName",
    "executionArn",
    "logGroupName",
    "stateMachineArn",
}

_make_api_call = BaseClient._make_api_call


def _note_and_call(client: Any, operation: str, parameters: dict[str, Any]) -> Any:
    service = client.meta.service_model.service_name
    of = {name: value for name, value in parameters.items() if name in _RESOURCES}
    if service == "dynamodb":
        of.pop("Key", None)  # an item's, not an object's
        of["Tables"] = list(parameters.get("RequestItems", {}))
        of["Parts"] = [
            [kind, part["TableName"]]
            for item in parameters.get("TransactItems", [])
            for kind, part in item.items()
        ]
    line = json.dumps([os.environ["AWS_LAMBDA_FUNCTION_NAME"], service, operation, of])
    with open(os.environ["RECORDED_CALLS"], "ab", buffering=0) as file:  # whole lines of many
        file.write(f"{line}\n".encode())
    return _make_api_call(client, operation, parameters)


BaseClient._make_api_call = _note_and_call
