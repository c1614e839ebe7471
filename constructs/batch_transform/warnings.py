"""What a pipeline or task is warned of at synth, each with an id to acknowledge it by."""

from collections.abc import Sequence

from aws_cdk import Annotations
from constructs import Construct

from batch_transform.settings import TransformSettings
from batch_transform.steps import TransformStep, joined_without_lines
from batch_transform.tokens import is_token
from transform_request.advice import advise

_LINES_WARNING = "@batch-transform:stepsJoinedWithoutLines"


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


def warn_of_joined_lines(scope: Construct, steps: Sequence[TransformStep]) -> None:
    """Add a warning for every step that may find no lines in what the one before it writes."""
    for text in joined_without_lines(steps):
        Annotations.of(scope).add_warning_v2(_LINES_WARNING, text)
