"""What a pipeline's jobs may be regretted for, without CDK: told at synth, and by `validate`."""

from collections.abc import Iterator

from batch_transform.plan import Plan
from batch_transform.settings import TransformSettings
from batch_transform.steps import joined_without_lines
from batch_transform.tokens import is_token
from transform_request.advice import Advice, advise

_LINES_WARNING = "@batch-transform:stepsJoinedWithoutLines"


def job_advice(
    settings: TransformSettings,
    *,
    instance_type: str,
    instance_count: int | None,
    objects: int | None = None,
) -> Iterator[Advice]:
    """Yield everything that a job may be regretted for.

    :param instance_count: `None` when only a run knows it.
    :param objects: the most that a job gets; `None` when that is not known.
    """
    request = settings.to_request()
    request["TransformResources"] |= {"InstanceType": instance_type}
    if instance_count is not None:
        request["TransformResources"] |= {"InstanceCount": instance_count}
    yield from advise(request, objects=objects, is_token=is_token)


def plan_advice(plan: Plan) -> Iterator[Advice]:
    """Yield everything that the jobs of a pipeline may be regretted for."""
    for text in joined_without_lines(plan.steps):
        yield Advice(name=_LINES_WARNING, text=text)
    for step in plan.steps:
        count = step.instance_count
        for instance_type in step.instance_types:
            yield from job_advice(
                step.settings,
                instance_type=instance_type,
                # A count from the batch is never more than its objects.
                instance_count=count if isinstance(count, int) else None,
                objects=plan.batch.max_objects,
            )
