"""Data capture: manifests of what was read and written (reference §1.5)."""

import json
import os.path
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from transform_engine.objects import Task, output_key
from transform_engine.storage import Storage, split_uri, uri_of


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
    out_above = output_key(out_prefix, "").removesuffix(".out")
    sides = {
        "input": _inputs(done),
        "output": (uri_of(out_bucket, out_above), [output_key("", task.relative) for task in done]),
    }
    for side, (uri, names) in sides.items():
        await _write(
            storage,
            bucket,
            f"{above}{side}/{hour}/{uuid.uuid4()}",
            [{"prefix": uri}, *sorted(names)],
            kms_key_id=config.get("KmsKeyId") or None,
        )


def _inputs(done: Sequence[Task]) -> tuple[str, list[str]]:
    """Return a prefix and what follows it in each input's key.

    That is each one's name below the job's own prefix, unless that name leaves out a slash: then
    the keys themselves have to tell.
    """
    above = {task.key.removesuffix(task.relative) for task in done}
    if len(above) > 1:
        common = os.path.commonprefix([task.key for task in done])  # noqa: RUF071 - keys are strings
        above = {common[: common.rfind("/") + 1]}
    (prefix,) = above
    return uri_of(done[0].bucket, prefix), [task.key[len(prefix) :] for task in done]


async def _write(
    storage: Storage, bucket: str, key: str, entries: Iterable[Any], *, kms_key_id: str | None
) -> None:
    output = storage.outputs(bucket, kms_key_id=kms_key_id)(key)
    try:
        # One entry a line, so that a person can read a long one.
        between = b"["
        for entry in entries:
            output.write(between + json.dumps(entry, separators=(",", ":")).encode())
            between = b",\n"
        if (visible := output.commit(b"]")) is not None:
            await visible
    finally:
        output.discard()
