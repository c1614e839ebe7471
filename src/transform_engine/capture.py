"""Data capture: manifests of what was read and written (reference §1.5)."""

import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from transform_engine.objects import Task, output_key
from transform_engine.storage import Storage, split_uri, write_object


def utc(seconds: float) -> str:
    """Return a time as `SageMakerInferenceTime` writes it."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


async def write_manifests(
    storage: Storage, request: Mapping[str, Any], done: Sequence[Task], started_at: float
) -> None:
    """Write one manifest of the inputs and one of the outputs, if the job captures and has any."""
    config = request.get("DataCaptureConfig")
    if not config or not done:
        return
    bucket, prefix = split_uri(config["DestinationS3Uri"])
    above = f"{prefix.removesuffix('/')}/" if prefix.removesuffix("/") else ""
    hour = f"{datetime.fromtimestamp(started_at, UTC):%Y/%m/%d/%H}"
    out_bucket, out_prefix = split_uri(request["TransformOutput"]["S3OutputPath"])
    outputs = sorted(output_key("", task.relative) for task in done)
    out_above = output_key(out_prefix, "").removesuffix(".out")
    lists = {
        "input": _input_manifest(done),
        "output": [{"prefix": f"s3://{out_bucket}/{out_above}"}, *outputs],
    }
    for side, entries in lists.items():
        # One entry a line, so that a person can read a long one.
        lines = ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in entries)
        await write_object(
            storage,
            bucket,
            f"{above}{side}/{hour}/{uuid.uuid4()}",
            f"[{lines}]".encode(),
            kms_key_id=config.get("KmsKeyId"),
        )


def _input_manifest(done: Sequence[Task]) -> list[Any]:
    # A manifest has one prefix, and every name must follow it in its own key.
    above = {task.key.removesuffix(task.relative) for task in done}
    if len({task.bucket for task in done}) == 1 and len(above) == 1:
        prefix = f"s3://{done[0].bucket}/{above.pop()}"
        return [{"prefix": prefix}, *sorted(task.relative for task in done)]
    names = sorted(f"{task.bucket}/{task.key}" for task in done)
    return [{"prefix": "s3://"}, *names]
