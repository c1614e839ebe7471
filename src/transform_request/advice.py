"""What a request should not have, though CreateTransformJob takes it (reference §1.8)."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from transform_request.instance_types import may_be_new, nearest

_DEFAULT_PAYLOAD_MB = 6
_PAYLOAD_LIMIT_MB = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Advice:
    """One thing to think about; `name` is the same for every request that it concerns."""

    name: str
    text: str


def advise(
    request: Mapping[str, Any],
    *,
    objects: int | None = None,
    is_token: Callable[[object], bool] = lambda value: False,
) -> Iterator[Advice]:
    """Yield what a valid request may be regretted for.

    :param objects: the most objects that the job can get, if that is known.
    :param is_token: says which values are not known yet; those are not looked at.
    """

    def get(*names: str) -> Any:
        value: Any = request
        for name in names:
            value = value.get(name)
            if value is None or is_token(value):
                return value
        return value

    split = get("TransformInput", "SplitType") or "None"
    # With a strategy that is not set the service packs many records into a request.
    packs = split != "None" and get("BatchStrategy") in (None, "MultiRecord")
    payload, concurrent = get("MaxPayloadInMB"), get("MaxConcurrentTransforms")
    instance_type = get("TransformResources", "InstanceType")
    count = get("TransformResources", "InstanceCount")

    if split == "Line" and (get("TransformOutput", "AssembleWith") or "None") == "None":
        yield Advice(
            name="@batch-transform:lineWithoutAssembleWith",
            text="AssembleWith should be Line when SplitType is Line, got none; set it, or let the "
            "model end each answer with a newline, or answers run into each other",
        )
    if split == "None" and get("BatchStrategy") == "MultiRecord":
        yield Advice(
            name="@batch-transform:strategyWithoutSplit",
            text="BatchStrategy should come with a SplitType, got MultiRecord with none; set "
            "SplitType, or leave the strategy out, because each request gets one whole object",
        )
    if payload == 0 and packs:
        yield Advice(
            name="@batch-transform:wholeObjectInOneRequest",
            text="MaxPayloadInMB should be above 0 when records are packed, got 0; set it, or "
            "choose SingleRecord, because one request then gets all records of an object",
        )
    if isinstance(concurrent, int) and payload is None:
        product = concurrent * _DEFAULT_PAYLOAD_MB
        if product > _PAYLOAD_LIMIT_MB:
            yield Advice(
                name="@batch-transform:concurrencyWithDefaultPayload",
                text=f"MaxConcurrentTransforms * MaxPayloadInMB should be at most "
                f"{_PAYLOAD_LIMIT_MB}, got {concurrent} * {_DEFAULT_PAYLOAD_MB}, the default; set "
                "MaxPayloadInMB, too, because nobody documents whether its default counts",
            )
    if isinstance(count, int) and objects is not None and objects < count:
        yield Advice(
            name="@batch-transform:moreInstancesThanObjects",
            text=f"InstanceCount should be at most the objects of a job, {objects}, got {count}; "
            "lower it, because one instance scores an object and the others cost the same",
        )
    if isinstance(instance_type, str) and not is_token(instance_type) and may_be_new(instance_type):
        yield Advice(
            name="@batch-transform:unknownInstanceType",
            text=f"InstanceType should be one that this version knows, got {instance_type!r}; "
            f"if it is not new, choose one such as {', '.join(nearest(instance_type))}",
        )
