"""The whole CreateTransformJob request: the settings, and what a run adds to them."""

from collections.abc import Iterator
from typing import Any

import transform_request
from batch_transform.settings import TransformSettings
from batch_transform.tokens import is_token


def job_request(
    settings: TransformSettings,
    *,
    model_name: str,
    instance_type: str,
    instance_count: int | str,
    job_name: str,
    input_uri: str,
    output_uri: str,
    data_type: str = "ManifestFile",
) -> dict[str, Any]:
    """Return a CreateTransformJob request for the objects of a manifest, or of a prefix.

    All but the first two may be JSONata, which is how the state machine has them.
    """
    request = settings.to_request()
    request["TransformJobName"] = job_name
    request["ModelName"] = model_name
    request["TransformInput"]["DataSource"] = {
        "S3DataSource": {"S3DataType": data_type, "S3Uri": input_uri}
    }
    request["TransformOutput"]["S3OutputPath"] = output_uri
    request["TransformResources"] |= {
        "InstanceType": instance_type,
        "InstanceCount": instance_count,
    }
    return request


def check_settings(
    settings: TransformSettings, *, model_name: str, instance_type: str, instance_count: int
) -> None:
    """Refuse at synth what CreateTransformJob, or the state machine, would refuse at run time.

    :raises ValueError: with every violation; what only deployment or a run knows passes.
    """
    for text in _texts(settings.to_request()):
        if is_jsonata(text):
            raise ValueError(
                "a setting must not begin with '{%' and end with '%}', which Step Functions "
                f"evaluates as JSONata, got {text!r}; put something before it, such as a space"
            )
    transform_request.validate(
        job_request(
            settings,
            model_name=model_name,
            instance_type=instance_type,
            instance_count=instance_count,
            job_name="any-run-s1-0",
            input_uri="s3://output/runs/any-run/manifest-1.json",
            output_uri="s3://output/runs/any-run/step-1-of-1",
        ),
        is_token=lambda value: is_token(value) or is_jsonata(value),
    )


def is_jsonata(value: object) -> bool:
    """Whether Step Functions evaluates a value instead of taking it as it is."""
    return isinstance(value, str) and value.startswith("{%") and value.endswith("%}")


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for member in value.values():
            yield from _texts(member)
    elif isinstance(value, list):
        for member in value:
            yield from _texts(member)
