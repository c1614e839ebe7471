"""The steps of a run: each one transform job, which reads what the step before it has written."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Self

from batch_transform.model import TransformModel
from batch_transform.places import StepPlace
from batch_transform.quantities import DAY_S, Duration, Size
from batch_transform.record_checks import media_type
from batch_transform.settings import AssembleWith, CompressionType, SplitType, TransformSettings

_NAME = re.compile(r"[a-z0-9](-*[a-z0-9])*")
_NAME_LENGTH = 32
_MAX_STEPS = 9  # the number is one digit of a job's name, and each adds `.out` to a key
_MAX_TYPES = 5
_MAX_INSTANCES = 100
_LONGEST_EXECUTION_S = 365 * DAY_S

if TYPE_CHECKING:
    from batch_transform.bound_model import BoundModel


@dataclass(frozen=True, kw_only=True, slots=True)
class InstanceCount:
    """How many instances a job has, decided when it starts; made by `from_batch`."""

    bytes_per_instance: int | None
    objects_per_instance: int | None
    maximum: int

    @classmethod
    def from_batch(
        cls,
        *,
        bytes_per_instance: Size | None = None,
        objects_per_instance: int | None = None,
        maximum: int,
    ) -> Self:
        """As many as the objects that the step reads need, and never more than there are objects.

        Of the two measures that is taken which asks for more instances.

        :param bytes_per_instance: what one instance is to work through; at least 1 MiB.
        :param objects_per_instance: how many objects one instance is to work through.
        :param maximum: 2 to 100, and no more than the account's quota for the type.
        :raises ValueError: neither measure is given, or one is out of its range.
        """
        if bytes_per_instance is None and objects_per_instance is None:
            raise ValueError(
                "an instance count from the batch must have bytes_per_instance or "
                "objects_per_instance, got neither; give one, or a plain number of instances"
            )
        if bytes_per_instance is not None and bytes_per_instance.to_bytes() < 1024**2:
            raise ValueError(
                "bytes_per_instance must be at least 1 MiB, got "
                f"{int(bytes_per_instance.to_bytes())} bytes; an instance takes minutes to start"
            )
        if objects_per_instance is not None and objects_per_instance < 1:
            raise ValueError(
                f"objects_per_instance must be at least 1, got {objects_per_instance}; "
                "leave it out to go by bytes alone"
            )
        if not 2 <= maximum <= _MAX_INSTANCES:
            raise ValueError(
                f"maximum must be 2 to {_MAX_INSTANCES} instances, got {maximum}; "
                "give a plain number if every batch is to have the same"
            )
        return cls(
            bytes_per_instance=(
                None if bytes_per_instance is None else int(bytes_per_instance.to_bytes())
            ),
            objects_per_instance=objects_per_instance,
            maximum=maximum,
        )

    def to_jsonata(self) -> str:
        """Return the count as the state machine works it out, from what a step begins with."""
        needed = [
            f"$ceil($states.input.{measure} / {each})"
            for measure, each in (
                ("size_bytes", self.bytes_per_instance),
                ("objects", self.objects_per_instance),
            )
            if each is not None
        ]
        wanted = f"$max([1, {', '.join(needed)}])"
        return f"{{% $min([{wanted}, $states.input.objects, {self.maximum}]) %}}"


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformStep:
    """One transform job of every run: its model, its instances, and how it reads its objects.

    :param name: says in reports and reasons where a drop was lost; lower-case letters, digits and
        inner hyphens, at most 32 characters.
    :param instance_type: such as `ml.m5.large`. Of several, the next one is taken when SageMaker
        has no capacity for one; after the last the job waits, and begins with the first again.
    :param instance_count: machines per job; one object is scored by one machine.
    :param settings: how records are cut, filtered, joined and assembled.
    :param job_timeout: a job that takes longer is stopped. Default: the pipeline's.
    :raises ValueError: something that no step could have.
    """

    name: str
    model: TransformModel
    instance_type: str | Sequence[str]
    instance_count: int | InstanceCount = 1
    settings: TransformSettings = field(default_factory=TransformSettings.json_lines)
    job_timeout: Duration | None = None

    def __post_init__(self) -> None:
        if len(self.name) > _NAME_LENGTH or not _NAME.fullmatch(self.name):
            raise ValueError(
                "a step's name must be lower-case letters, digits and inner hyphens, at most "
                f"{_NAME_LENGTH} characters, got {self.name!r}; rename it"
            )
        types = self.instance_types
        if not 1 <= len(types) <= _MAX_TYPES or len(set(types)) < len(types):
            raise ValueError(
                f"instance_type must be 1 to {_MAX_TYPES} different types, got {list(types)}; "
                "leave out what is twice, and those that you would rather wait than use"
            )
        if self.job_timeout is not None:
            check_timeout("job_timeout", self.job_timeout)

    @property
    def instance_types(self) -> tuple[str, ...]:
        """The types in the order in which they are tried."""
        if isinstance(self.instance_type, str):
            return (self.instance_type,)
        return tuple(self.instance_type)


@dataclass(frozen=True, kw_only=True, slots=True)
class BoundStep:
    """A step as a pipeline runs it."""

    place: StepPlace
    name: str
    model: "BoundModel"
    instance_types: tuple[str, ...]
    instance_count: int | InstanceCount
    settings: TransformSettings
    job_timeout: Duration


def check_timeout(name: str, timeout: Duration) -> None:
    """Refuse what no state machine, or no transform job, could keep to.

    :raises ValueError: it is shorter than a minute or longer than a year.
    """
    if not 60 <= timeout.to_seconds() <= _LONGEST_EXECUTION_S:
        raise ValueError(
            f"{name} must be 1 minute to 1 year, got {timeout.to_human_string()}; "
            "a transform job takes minutes only to start"
        )


def check_chain(steps: Sequence[TransformStep]) -> None:
    """Refuse steps of which one cannot read what the one before it writes.

    :raises ValueError: none or too many steps, a name twice, or formats that contradict.
    """
    if not 1 <= len(steps) <= _MAX_STEPS:
        raise ValueError(
            f"steps must be 1 to {_MAX_STEPS}, got {len(steps)}; "
            "containers that follow each other in one model make one step"
        )
    names = [step.name for step in steps]
    if len(set(names)) < len(names):
        raise ValueError(f"every step must have a name of its own, got {names}; rename one")
    for before, after in pairwise(steps):
        _check_pair(before, after)


def _check_pair(before: TransformStep, after: TransformStep) -> None:
    written, read = before.settings, after.settings
    accept, content_type = media_type(written.accept), media_type(read.content_type)
    if accept is not None and content_type is not None and accept != content_type:
        raise ValueError(
            f"step {after.name!r} must read what step {before.name!r} writes, got content_type "
            f"{content_type!r} after accept {accept!r}; make them the same"
        )
    if read.compression_type is CompressionType.GZIP:
        raise ValueError(
            f"step {after.name!r} must read its objects as they are, because SageMaker compresses "
            "no output, got compression_type Gzip; set it for the first step alone"
        )
    lines = _writes_lines(written)
    if lines and read.split_type in (SplitType.RECORD_IO, SplitType.TF_RECORD):
        raise ValueError(
            f"step {after.name!r} must split what step {before.name!r} assembles, got split_type "
            f"{read.split_type} after assemble_with Line; use assemble_with None, or split by Line"
        )


def joined_without_lines(steps: Sequence[TransformStep]) -> Iterator[str]:
    """Yield what to warn of: records that may run into each other between two steps."""
    for before, after in pairwise(steps):
        written, read = before.settings, after.settings
        if (
            not _writes_lines(written)
            and read.split_type is SplitType.LINE
            and written.split_type is not SplitType.NONE
        ):
            yield (
                f"step {after.name!r} splits by Line what step {before.name!r} assembles without: "
                "unless each answer ends with a newline, records run into each other; "
                "use assemble_with Line"
            )


def _writes_lines(settings: TransformSettings) -> bool:
    output = settings.to_request()["TransformOutput"]
    return bool(output.get("AssembleWith") == AssembleWith.LINE)
