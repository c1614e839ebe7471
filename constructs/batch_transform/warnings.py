"""What a pipeline or task is warned of at synth, each with an id to acknowledge it by."""

from aws_cdk import Annotations
from constructs import Construct

from batch_transform.settings import TransformSettings
from batch_transform.tokens import is_token
from transform_request.advice import advise


def warn(
    scope: Construct,
    settings: TransformSettings,
    *,
    instance_type: str,
    instance_count: int | None,
    objects: int | None = None,
) -> None:
    """Add a warning for everything that a job may be regretted for.

    :param instance_count: `None` when only a run knows it.
    :param objects: the most that a job gets; `None` when that is not known.
    """
    request = settings.to_request()
    request["TransformResources"] |= {"InstanceType": instance_type}
    if instance_count is not None:
        request["TransformResources"] |= {"InstanceCount": instance_count}
    for advice in advise(request, objects=objects, is_token=is_token):
        Annotations.of(scope).add_warning_v2(advice.name, advice.text)
