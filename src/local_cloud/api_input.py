"""What SageMaker takes of a request, by the service's own model of its API, which botocore carries.

The messages are those of AWS's service framework. A wrong JSON type is refused first and alone;
then everything that breaks a limit of the model is told in one message. A member that is null or
that the model does not have is as if it were not there.
"""

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

from botocore.loaders import create_loader
from botocore.model import ServiceModel, Shape

from local_cloud.refusals import Refusal, invalid

TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "string": ((str,), "a String"),
    "integer": ((int,), "an Integer"),
    "long": ((int,), "a Long"),
    "float": ((int, float), "a Float"),
    "double": ((int, float), "a Double"),
    "boolean": ((bool,), "an Boolean"),  # So the service writes it.
    "timestamp": ((int, float), "milliseconds since epoch"),
}
"""The scalar types of the API: what JSON has for them, and what the service calls them."""

_TOKENS = {str: "STRING", int: "NUMBER", float: "DECIMAL"}
_WITH_LENGTH = ("string", "list", "map")
# The model's patterns are Java's; Python's re lacks these classes. They stand in one bracket with
# the underscore, which \w has besides letters and numbers.
_JAVA_CLASSES = {
    r"\p{L}": r"\w",
    r"\p{N}": r"\w",
    r"\p{Z}": " \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000",
}


def accept(operation: str, request: object) -> dict[str, Any]:
    """Return what the operation reads of a request.

    :raises Refusal: in the service's words.
    """
    shape = shape_of(operation)
    members: dict[str, Any] = _read(shape, request)
    violations = list(_violations(shape, members, ""))
    if violations:
        errors = "error" if len(violations) == 1 else "errors"
        raise invalid(f"{len(violations)} validation {errors} detected: {'; '.join(violations)}")
    return members


def unknown_member(operation: str, request: object) -> str | None:
    """Name the first member of a request that the operation does not have, however deep it is."""
    return next(_unknown(shape_of(operation), request), None)


def shape_of(operation: str) -> Shape:
    """Return what the service's model says of the operation's request."""
    return _service().operation_model(operation).input_shape


@functools.cache
def _service() -> ServiceModel:
    return ServiceModel(create_loader().load_service_model("sagemaker", "service-2"), "sagemaker")


def _read(shape: Shape, value: Any) -> Any:
    match shape.type_name:
        case "structure":
            given = _collection(dict, value, "Expected null")
            return {
                name: _read(member, given[name])
                for name, member in shape.members.items()
                if given.get(name) is not None
            }
        case "map":
            given = _collection(dict, value, "Expected map or null")
            return {
                key: _read(shape.value, part) for key, part in given.items() if part is not None
            }
        case "list":
            given = _collection(list, value, "Expected list or null")
            return [part if part is None else _read(shape.member, part) for part in given]
        case scalar:
            return _scalar(value, *TYPES[scalar])


def _collection(expected: type, value: Any, otherwise: str) -> Any:
    if isinstance(value, expected):
        return value
    raise _misread(_misplaced(value) or otherwise)


def _scalar(value: Any, expected: tuple[type, ...], called: str) -> Any:
    # bool is an int to Python and not to JSON.
    if isinstance(value, expected) and (bool in expected or not isinstance(value, bool)):
        return value
    token = str(value).upper() if isinstance(value, bool) else _TOKENS.get(type(value))
    raise _misread(_misplaced(value) or f"{token}_VALUE can not be converted to {called}")


def _misplaced(value: object) -> str | None:
    if isinstance(value, list):
        return "Start of list found where not expected"
    if isinstance(value, dict):
        return "Start of structure or map found where not expected."
    return None


def _misread(message: str) -> Refusal:
    return Refusal("SerializationException", message)


def _violations(shape: Shape, value: Any, path: str) -> Iterator[str]:
    """Name every limit of the model that the value breaks, in the order of the model."""
    if shape.type_name == "structure":
        for name, member in shape.members.items():
            inner = f"{path}.{_camel(name)}" if path else _camel(name)
            if name in value:
                yield from _violations(member, value[name], inner)
            elif name in shape.required_members:
                yield _violation(shape, None, inner, "Member must not be null")
        return
    for text, holds in _constraints(shape):
        if not holds(value):
            yield _violation(shape, value, path, text)
    if shape.type_name == "list":
        yield from _in_list(shape, value, path)
    elif shape.type_name == "map":
        if not all(_valid(shape.key, key) for key in value):
            yield _violation(
                shape, value, path, f"Map keys must satisfy constraint: {_all(shape.key)}"
            )
        if not all(_valid(shape.value, part) for part in value.values()):
            yield _violation(
                shape, value, path, f"Map value must satisfy constraint: {_all(shape.value)}"
            )


def _in_list(shape: Shape, value: list[Any], path: str) -> Iterator[str]:
    if shape.member.type_name in TYPES:
        if not all(_valid(shape.member, part) for part in value):
            yield _violation(
                shape, value, path, f"Member must satisfy constraint: {_all(shape.member)}"
            )
        return
    for position, part in enumerate(value, start=1):
        inner = f"{path}.{position}.member"
        if part is None:
            yield _violation(shape.member, None, inner, "Member must not be null")
        else:
            yield from _violations(shape.member, part, inner)


def _constraints(shape: Shape) -> Iterator[tuple[str, Callable[[Any], bool]]]:
    limits = shape.metadata
    has_length = shape.type_name in _WITH_LENGTH
    measured = "length" if has_length else "value"

    def size(value: Any) -> Any:
        return len(value) if has_length else value

    if "max" in limits:
        yield (
            f"Member must have {measured} less than or equal to {limits['max']}",
            lambda value: size(value) <= limits["max"],
        )
    if "min" in limits:
        yield (
            f"Member must have {measured} greater than or equal to {limits['min']}",
            lambda value: size(value) >= limits["min"],
        )
    if "pattern" in limits:
        yield (
            f"Member must satisfy regular expression pattern: {limits['pattern']}",
            lambda value: pattern(limits["pattern"]).fullmatch(value) is not None,
        )
    if "enum" in limits:
        yield (
            f"Member must satisfy enum value set: [{', '.join(limits['enum'])}]",
            lambda value: value in limits["enum"],
        )


@functools.cache
def pattern(java: str) -> re.Pattern[str]:
    """Compile a pattern of the model.

    :raises re.error: it has what neither Python nor we know.
    """
    for written, meant in _JAVA_CLASSES.items():
        java = java.replace(written, meant)
    return re.compile(java)


def _valid(shape: Shape, value: Any) -> bool:
    return value is not None and all(holds(value) for _, holds in _constraints(shape))


def _all(shape: Shape) -> str:
    return f"[{', '.join(text for text, _ in _constraints(shape))}]"


def _violation(shape: Shape, value: Any, path: str, constraint: str) -> str:
    shown = "null" if value is None else f"'{_shown(shape, value)}'"
    return f"Value {shown} at '{path}' failed to satisfy constraint: {constraint}"


def _shown(shape: Shape, value: Any) -> str:
    """Write a value as the service's language, Java, does."""
    match shape.type_name:
        case _ if value is None:
            return "null"
        case "structure":
            parts = (
                f"{_camel(name)}={_shown(shape.members[name], part)}"
                for name, part in value.items()
            )
            return f"{shape.name}({', '.join(parts)})"
        case "list":
            return f"[{', '.join(_shown(shape.member, part) for part in value)}]"
        case "map":
            return f"{{{', '.join(f'{key}={part}' for key, part in value.items())}}}"
        case _:
            return str(value)


def _camel(name: str) -> str:
    return name[0].lower() + name[1:]


def _unknown(shape: Shape, value: Any) -> Iterator[str]:
    if shape.type_name == "structure" and isinstance(value, dict):
        for name, part in value.items():
            if name in shape.members:
                yield from _unknown(shape.members[name], part)
            else:
                yield name
    elif shape.type_name == "list" and isinstance(value, list):
        for part in value:
            yield from _unknown(shape.member, part)
