"""What the arguments of a pipeline come to, and the rules that they have to keep together.

Nothing here needs CDK, so that a file of pipelines is checked without it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import transform_request
from batch_transform.model import TransformModel
from batch_transform.monitoring_policy import Monitoring
from batch_transform.names import checked_name
from batch_transform.places import check_output_prefix
from batch_transform.policy import BatchPolicy
from batch_transform.prediction_index import PredictionIndex
from batch_transform.quantities import Duration, days
from batch_transform.request import check_settings
from batch_transform.settings import TransformSettings
from batch_transform.steps import InstanceCount, TransformStep, check_chain, check_timeout
from batch_transform.uploads import Uploads

if TYPE_CHECKING:
    from aws_cdk import aws_kms as kms

# Beside it, a transform job's name has the run's time, six digits, step and attempt: 63 in all.
PIPELINE_ID_LENGTH = 28


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a pipeline is to be; `steps` have its key where they name none."""

    steps: Sequence[TransformStep]
    batch: BatchPolicy
    uploads: Uploads
    monitoring: Monitoring
    longest_wait_s: int
    job_timeout: Duration
    max_concurrent_runs: int

    @property
    def settings(self) -> TransformSettings:
        """Of the step that makes the predictions."""
        return self.steps[-1].settings


def plan_pipeline(
    *,
    model: TransformModel | None = None,
    instance_type: str | Sequence[str] | None = None,
    instance_count: int | InstanceCount | None = None,
    settings: TransformSettings | None = None,
    steps: Sequence[TransformStep] | None = None,
    index: PredictionIndex | None = None,
    batch: BatchPolicy | None = None,
    uploads: Uploads | None = None,
    output_prefix: str,
    max_concurrent_runs: int,
    max_attempts: int,
    max_failed_fraction: float | None = None,
    job_timeout: Duration | None = None,
    run_timeout: Duration | None = None,
    encryption_key: "kms.IKey | None" = None,
    monitoring: Monitoring | None = None,
    pipeline_id: str | None = None,
) -> Plan:
    """Return what `BatchTransform` does with these arguments of its own.

    :raises ValueError: all that the service, or a run, would refuse, a line each.
    """
    chain = _checked_steps(model, instance_type, instance_count, settings, steps)
    batch = batch or BatchPolicy()
    monitoring = monitoring or Monitoring()
    job_timeout = job_timeout or days(1)
    longest_wait_s = 0
    problems: list[str] = []
    with _noted(problems):
        check_chain(chain)
    if encryption_key is not None:
        with _noted(problems):
            _check_key(encryption_key)
        chain = [_encrypt_job(step, encryption_key) for step in chain]
    for step in chain:
        with _noted(problems):
            _check_jobs(step)
    with _noted(problems):
        longest_wait_s = monitoring.longest_wait_s(batch.max_wait)
    for name, count in (
        ("max_concurrent_runs", max_concurrent_runs),
        ("max_attempts", max_attempts),
    ):
        with _noted(problems):
            _check_count(name, count)
    with _noted(problems):
        _check_fraction(max_failed_fraction)
    for name, timeout in (("job_timeout", job_timeout), ("run_timeout", run_timeout)):
        if timeout is not None:
            with _noted(problems):
                check_timeout(name, timeout)
    if index is not None:
        with _noted(problems):
            index.record_format(chain[-1].settings)
    if pipeline_id is not None:
        with _noted(problems):
            checked_name("pipeline_id", pipeline_id, length=PIPELINE_ID_LENGTH)
    with _noted(problems):
        check_output_prefix(output_prefix)
    if problems:
        raise ValueError("\n".join(dict.fromkeys(problems)))
    return Plan(
        steps=chain,
        batch=batch,
        uploads=uploads or Uploads(),
        monitoring=monitoring,
        longest_wait_s=longest_wait_s,
        job_timeout=job_timeout,
        max_concurrent_runs=max_concurrent_runs,
    )


@contextmanager
def _noted(problems: list[str]) -> Iterator[None]:
    """Go on after a refusal, so that whoever mends the first is not told of the second later."""
    try:
        yield
    except ValueError as refused:
        problems += str(refused).splitlines()


def _check_jobs(step: TransformStep) -> None:
    count = step.instance_count
    for instance_type in step.instance_types:
        check_settings(
            step.settings,
            model_name="any",  # TransformModel has looked at it
            instance_type=instance_type,
            instance_count=count if isinstance(count, int) else count.maximum,
        )


def _check_count(name: str, count: int) -> None:
    if count < 1:
        raise ValueError(f"{name} must be at least 1, got {count}; leave it out for the default")


def _check_fraction(max_failed_fraction: float | None) -> None:
    if max_failed_fraction is not None and not 0 <= max_failed_fraction < 1:
        raise ValueError(
            f"max_failed_fraction must be at least 0 and below 1, got {max_failed_fraction}; "
            "write 0.2 for a fifth of a batch, or leave it out for no limit"
        )


def _checked_steps(
    model: TransformModel | None,
    instance_type: str | Sequence[str] | None,
    instance_count: int | InstanceCount | None,
    settings: TransformSettings | None,
    steps: Sequence[TransformStep] | None,
) -> Sequence[TransformStep]:
    """Return the steps, of which the short form makes one."""
    given = {
        "model": model,
        "instance_type": instance_type,
        "instance_count": instance_count,
        "settings": settings,
    }
    names = [name for name, value in given.items() if value is not None]
    if steps is not None and names:
        raise ValueError(
            f"steps must be given without model, instance_type, instance_count and settings, got "
            f"them with {', '.join(names)}; move those into the steps"
        )
    if steps is not None:
        return steps
    if model is None or instance_type is None:
        raise ValueError(
            "a pipeline must have model and instance_type, or steps, got "
            f"{' and '.join(names) or 'none of them'}; give what is missing"
        )
    step = TransformStep(
        name="predict",
        model=model,
        instance_type=instance_type,
        instance_count=1 if instance_count is None else instance_count,
        settings=settings or TransformSettings.json_lines(),
    )
    return [step]


def _check_key(key: "kms.IKey") -> None:
    """Refuse an alias, by which no policy can name a key.

    :raises ValueError: it is one.
    """
    if ":alias/" in key.key_arn:
        raise ValueError(
            "encryption_key must be a key, got an alias, which policies cannot name; import the "
            "key with kms.Key.from_key_arn, or find it by its alias with kms.Key.from_lookup"
        )


def _encrypt_job(step: TransformStep, key: "kms.IKey") -> TransformStep:
    """Have a step's outputs and volumes encrypted with `key`, where it does not say with which.

    Local NVMe storage is encrypted by its hardware, and SageMaker refuses a key for it.
    """
    settings = step.settings
    on_nvme = any(transform_request.has_local_storage(each) for each in step.instance_types)
    return replace(
        step,
        settings=replace(
            settings,
            output_key=settings.output_key or key,
            volume_key=settings.volume_key or (None if on_nvme else key),
        ),
    )
