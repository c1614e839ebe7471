"""The whole CreateTransformJob request: the settings, and what a run adds to them."""

from typing import Any

from aws_cdk import Token

import transform_request
from batch_transform.settings import TransformSettings


def job_request(
    settings: TransformSettings,
    *,
    model_name: str,
    instance_type: str,
    instance_count: int,
    job_name: str,
    manifest_uri: str,
    output_uri: str,
) -> dict[str, Any]:
    """Return a CreateTransformJob request for the objects of a manifest.

    The last three may be JSONata, which is how the state machine has them.
    """
    request = settings.to_request()
    request["TransformJobName"] = job_name
    request["ModelName"] = model_name
    request["TransformInput"]["DataSource"] = {
        "S3DataSource": {"S3DataType": "ManifestFile", "S3Uri": manifest_uri}
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
    """Refuse at synth what CreateTransformJob would refuse at run time.

    :raises ValueError: with every violation; what is only known at deployment passes.
    """
    transform_request.validate(
        job_request(
            settings,
            model_name=model_name,
            instance_type=instance_type,
            instance_count=instance_count,
            job_name="any-run-s1-0",
            manifest_uri="s3://output/runs/any-run/manifest.json",
            output_uri="s3://output/runs/any-run/step-1",
        ),
        is_token=Token.is_unresolved,
    )
