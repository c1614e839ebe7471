"""Checks a request against the table of members, then against the rules between members."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from transform_request import jsonpath
from transform_request.instance_types import LOCAL_STORAGE_FAMILIES, has_local_storage
from transform_request.members import (
    REQUEST,
    Choice,
    Flag,
    Group,
    Kind,
    Listing,
    Number,
    Pairs,
    Text,
)

FORMATS = ("text/csv", "application/json", "application/jsonlines")
_PAYLOAD_LIMIT_MB = 100
_INSTANCE_LIMIT = 100


class InvalidRequest(ValueError):
    """The request breaks rules; `problems` has one sentence for each."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def _no_tokens(value: object) -> bool:
    return False


def validate(
    request: Mapping[str, Any],
    *,
    partial: bool = False,
    is_token: Callable[[object], bool] = _no_tokens,
    foresee: bool = True,
) -> None:
    """Refuse a CreateTransformJob request that breaks a rule of reference §1.

    :param partial: required members may be missing, as in a construct before deployment.
    :param is_token: says which values are not known yet; those are not looked at.
    :param foresee: also refuse what CreateTransformJob accepts and the job then fails on.
    :raises InvalidRequest: with all problems at once.
    """
    check = _Check(partial, is_token)
    problems = [*check.kind("", request, REQUEST)]
    # Rules between members read members whose own shape is right.
    if not problems:
        problems.extend(check.rules(request))
        if foresee and not problems:
            problems.extend(check.foreseen(request))
    if problems:
        raise InvalidRequest(tuple(problems))


def validate_model(model: Mapping[str, Any]) -> None:
    """Refuse a model (CreateModel request or DescribeModel answer) that batch cannot run.

    :raises InvalidRequest: with the service's words where they are known (reference §1.9).
    """
    problems: list[str] = []
    containers = [
        container
        for container in (model.get("PrimaryContainer"), *(model.get("Containers") or ()))
        if container
    ]
    if any(container.get("ModelDataSource") for container in containers):
        problems.append(
            "SageMaker Batch currently doesn't support Model entity with container definitions "
            "which use ModelDataSource attribute"
        )
    if any(container.get("Mode", "SingleModel") != "SingleModel" for container in containers):
        problems.append(
            "a model for batch must have containers of Mode SingleModel, got MultiModel; "
            "create a model of its own for each archive"
        )
    mode = (model.get("InferenceExecutionConfig") or {}).get("Mode", "Serial")
    if mode != "Serial":
        problems.append(
            f"InferenceExecutionConfig.Mode of a model for batch must be Serial, got {mode}; "
            "create a model whose containers run one after the other"
        )
    if problems:
        raise InvalidRequest(tuple(problems))


def media_type(value: str) -> str:
    """Return a content type without its parameters, in lower case."""
    return value.split(";")[0].strip().lower()


_MISSING = object()


@dataclass(frozen=True, slots=True)
class _Check:
    partial: bool
    is_token: Callable[[object], bool]

    def kind(self, name: str, value: Any, kind: Kind) -> Iterator[str]:
        if self.is_token(value):
            return
        match kind:
            case Text():
                yield from _text(name, value, kind)
            case Number():
                yield from _number(name, value, kind)
            case Flag():
                if not isinstance(value, bool):
                    yield f"{name} must be true or false, got {value!r}; give a boolean"
            case Choice():
                yield from _choice(name, value, kind)
            case Group():
                yield from self._group(name, value, kind)
            case Listing():
                yield from self._listing(name, value, kind)
            case Pairs():
                yield from self._pairs(name, value, kind)

    def _group(self, name: str, value: Any, kind: Group) -> Iterator[str]:
        where = name or "the request"
        if not isinstance(value, Mapping):
            yield f"{where} must be a structure, got {value!r}; give its members"
            return
        dot = f"{name}." if name else ""
        for member in kind.required:
            if member not in value and not self.partial:
                yield f"{where} must have {member}, got none; add {dot}{member}"
        for member, part in value.items():
            if member in kind.members:
                yield from self.kind(f"{dot}{member}", part, kind.members[member])
            else:
                known = ", ".join(kind.members)
                yield f"{where} must have only the members {known}, got {member}; remove it"

    def _listing(self, name: str, value: Any, kind: Listing) -> Iterator[str]:
        if not isinstance(value, list | tuple):
            yield f"{name} must be a list, got {value!r}; put it into one"
            return
        if len(value) > kind.most:
            yield f"{name} must have at most {kind.most} entries, got {len(value)}; remove some"
        for position, part in enumerate(value):
            yield from self.kind(f"{name}[{position}]", part, kind.of)

    def _pairs(self, name: str, value: Any, kind: Pairs) -> Iterator[str]:
        if not isinstance(value, Mapping):
            yield f"{name} must be a map of strings, got {value!r}; give names and values"
            return
        if len(value) > kind.most:
            yield f"{name} must have at most {kind.most} entries, got {len(value)}; remove some"
        for key, part in value.items():
            if not self.is_token(key):
                yield from _text(f"a key of {name}", key, kind.key)
            if not self.is_token(part):
                yield from _text(f"{name}.{key}", part, kind.value)

    def get(self, request: Mapping[str, Any], *names: str, default: Any = _MISSING) -> Any:
        """Return a member that is present and known, else `default`."""
        value: Any = request
        for name in names:
            if self.is_token(value) or name not in value:
                return default
            value = value[name]
        return _MISSING if self.is_token(value) else value

    def rules(self, request: Mapping[str, Any]) -> Iterator[str]:
        """What CreateTransformJob refuses, or would fail for certain (reference §1.8)."""
        yield from self._sizes(request)
        yield from self._volume_key(request)
        yield from self._join(request)
        for member, side, type_member in (
            ("InputFilter", "TransformInput", "ContentType"),
            ("OutputFilter", "TransformOutput", "Accept"),
        ):
            yield from self._filter(request, member, side, type_member)

    def _sizes(self, request: Mapping[str, Any]) -> Iterator[str]:
        payload = self.get(request, "MaxPayloadInMB")
        concurrent = self.get(request, "MaxConcurrentTransforms")
        count = self.get(request, "TransformResources", "InstanceCount")
        if payload is not _MISSING and payload > _PAYLOAD_LIMIT_MB:
            yield (
                f"MaxPayloadInMB must be at most {_PAYLOAD_LIMIT_MB}, got {payload}; "
                "lower it, or give 0 to send payloads of any size in chunks"
            )
        elif (
            payload is not _MISSING
            and concurrent is not _MISSING
            and payload * concurrent > _PAYLOAD_LIMIT_MB
        ):
            yield (
                f"MaxConcurrentTransforms * MaxPayloadInMB must be at most {_PAYLOAD_LIMIT_MB}, "
                f"got {concurrent} * {payload}; lower one of them"
            )
        if count is not _MISSING and count > _INSTANCE_LIMIT:
            yield (
                f"TransformResources.InstanceCount must be at most {_INSTANCE_LIMIT}, "
                f"got {count}; lower it"
            )

    def _volume_key(self, request: Mapping[str, Any]) -> Iterator[str]:
        instance_type = self.get(request, "TransformResources", "InstanceType")
        key = self.get(request, "TransformResources", "VolumeKmsKeyId", default="")
        if instance_type is not _MISSING and key and has_local_storage(instance_type):
            families = ", ".join(sorted(LOCAL_STORAGE_FAMILIES))
            yield (
                "TransformResources.VolumeKmsKeyId must be absent for instance types with local "
                f"storage ({families}), got it with {instance_type}; remove it, because those "
                "encrypt in hardware"
            )

    def _join(self, request: Mapping[str, Any]) -> Iterator[str]:
        if self.get(request, "DataProcessing", "JoinSource") != "Input":
            return
        # A partial request may get its missing half later; a whole one has only defaults left.
        absent = _MISSING if self.partial else None
        content = self.get(request, "TransformInput", "ContentType", default=absent)
        accept = self.get(request, "TransformOutput", "Accept", default=absent)
        unsplit = _MISSING if self.partial else "None"
        split = self.get(request, "TransformInput", "SplitType", default=unsplit)
        assemble = self.get(request, "TransformOutput", "AssembleWith", default=unsplit)
        if content is None or (content is not _MISSING and media_type(content) not in FORMATS):
            yield (
                "TransformInput.ContentType must be one of " + ", ".join(FORMATS) + " when "
                f"JoinSource is Input, got {content or 'none'}; set it, or remove JoinSource"
            )
        elif _MISSING not in (content, accept) and content != accept:
            yield (
                "TransformOutput.Accept must equal TransformInput.ContentType when JoinSource is "
                f"Input, got {accept or 'none'} and {content}; give both the same value"
            )
        if split is _MISSING or assemble is _MISSING:
            return
        if split != assemble:
            yield (
                "TransformInput.SplitType must equal TransformOutput.AssembleWith when "
                f"JoinSource is Input, got {split} and {assemble}; give both the same value"
            )
        elif isinstance(content, str) and media_type(content) == "text/csv" and split != "Line":
            yield (
                "SplitType and AssembleWith must both be Line when CSV is joined, "
                f"got {split}; set both to Line"
            )

    def _filter(
        self, request: Mapping[str, Any], member: str, side: str, type_member: str
    ) -> Iterator[str]:
        expression = self.get(request, "DataProcessing", member)
        if expression is _MISSING or expression == "$":
            return
        declared = self.get(request, side, type_member, default=None)
        if declared is _MISSING:
            return
        if declared is None and not self.partial:
            yield (
                f"{side}.{type_member} must be one of {', '.join(FORMATS)} when "
                f"{member} is given, got none; set it, or remove the filter"
            )
            return
        formats = media_type(declared) if declared is not None else "application/jsonlines"
        if formats not in FORMATS:
            yield (
                f"{side}.{type_member} must be one of {', '.join(FORMATS)} when "
                f"{member} is given, got {declared}; change it, or remove the filter"
            )
            return
        try:
            jsonpath.check_characters(member, expression, formats)
            jsonpath.parse(expression)
        except jsonpath.FailsAtRunTime:
            return  # CreateTransformJob takes it: see foreseen().
        except jsonpath.InvalidJsonPath as error:
            text = str(error)
            if not text.startswith(f"Invalid {member}: "):
                text = (
                    f"DataProcessing.{member} must be a JSONPath of the supported subset, got "
                    f"{expression!r} ({text}); write it like $[1:], $[0,-1] or $.name"
                )
            yield text

    def foreseen(self, request: Mapping[str, Any]) -> Iterator[str]:
        """What is accepted and then fails every object, after machines have been paid for."""
        for member in ("InputFilter", "OutputFilter"):
            expression = self.get(request, "DataProcessing", member)
            if expression is _MISSING:
                continue
            try:
                jsonpath.parse(expression)
            except jsonpath.InvalidJsonPath as error:
                yield (
                    f"DataProcessing.{member} must have one range or only indexes in a bracket "
                    f"and no nested path, got {expression!r} ({error}); "
                    "select with one range, or list the indexes"
                )
        if self.get(request, "DataCaptureConfig", "GenerateInferenceId") is True:
            accept = self.get(request, "TransformOutput", "Accept", default=None)
            if (accept is None and not self.partial) or (
                isinstance(accept, str) and media_type(accept) not in FORMATS
            ):
                yield (
                    f"TransformOutput.Accept must be one of {', '.join(FORMATS)} when "
                    f"GenerateInferenceId is true, got {accept or 'none'}; set it"
                )


def _text(name: str, value: Any, kind: Text) -> Iterator[str]:
    if not isinstance(value, str):
        yield f"{name} must be a string, got {value!r}; put it in quotes"
        return
    if not kind.least <= len(value) <= kind.most:
        yield (
            f"{name} must have {kind.least} to {kind.most} characters, "
            f"got {len(value)} in {_shown(value)}; "
            + ("shorten it" if len(value) > kind.most else "fill it in, or leave it out")
        )
    elif kind.pattern is not None and kind.pattern.fullmatch(value) is None:
        yield f"{name} must be {kind.means}, got {_shown(value)}; change it"


def _number(name: str, value: Any, kind: Number) -> Iterator[str]:
    # bool is an int to Python and not to AWS.
    if not isinstance(value, int) or isinstance(value, bool):
        yield f"{name} must be a whole number, got {value!r}; give one"
    elif value < kind.least or (kind.most is not None and value > kind.most):
        limits = (
            f"{kind.least} to {kind.most}" if kind.most is not None else f"{kind.least} or more"
        )
        yield f"{name} must be {limits}, got {value}; change it"


def _choice(name: str, value: Any, kind: Choice) -> Iterator[str]:
    if value in kind.values:
        return
    if kind.nearest is None:
        yield f"{name} must be one of {', '.join(kind.values)}, got {value!r}; choose one of them"
    elif not (isinstance(value, str) and kind.may_be_new is not None and kind.may_be_new(value)):
        yield (
            f"{name} must be one of the {len(kind.values)} types for transform jobs, "
            f"got {value!r}; choose one such as {', '.join(kind.nearest(str(value)))}"
        )


def _shown(value: str) -> str:
    return repr(value if len(value) <= 80 else value[:77] + "...")
