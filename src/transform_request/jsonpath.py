"""The JSONPath subset of `DataProcessing`'s filters (reference §1.7).

    $  $.name  $.a.b  $['a','b']  $.a.['b','c']  $.*  $[0]  $[-1]  $[0,2]  $[1:4]  $[5:]  $[:5]

Errors come in two kinds, as on AWS: what CreateTransformJob refuses (`InvalidJsonPath`), and what
it accepts and the job then fails on (`FailsAtRunTime`).
"""

import re
from dataclasses import dataclass

JSON_OPERATORS = ("$", "[", "]", "*", ".", " ", ",", ":", "-", "'")
#: CSV rows have columns and no names, so their paths need neither dots nor quotes.
CSV_OPERATORS = ("$", "[", "]", "*", " ", ",", ":", "-")


class InvalidJsonPath(ValueError):
    """The expression is none that Batch Transform knows."""


class FailsAtRunTime(InvalidJsonPath):
    """CreateTransformJob takes the expression; every object of the job then fails on it."""


@dataclass(frozen=True, slots=True)
class Name:
    """`.name` or `['name']`: one member's value."""

    name: str


@dataclass(frozen=True, slots=True)
class Names:
    """`['a','b']`: an object of several members."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Index:
    """`[n]`: one element; a negative one counts from the end."""

    index: int


@dataclass(frozen=True, slots=True)
class Indexes:
    """`[n,m]`: elements in the order asked for."""

    indexes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Slice:
    """`[start:end]`: a run of elements, the end excluded."""

    start: int | None
    end: int | None


@dataclass(frozen=True, slots=True)
class Wildcard:
    """`*`: every member's or element's value."""


Step = Name | Names | Index | Indexes | Slice | Wildcard


@dataclass(frozen=True, slots=True)
class Path:
    """A parsed expression; no steps means the value itself."""

    text: str
    steps: tuple[Step, ...]

    @property
    def is_root(self) -> bool:
        """Whether the path is `$`, which filters nothing."""
        return not self.steps


_INDEX = re.compile(r"-?\d+")
_RANGE = re.compile(r"(-?\d+)?\s*:\s*(-?\d+)?")
_QUOTED = re.compile(r"\s*'([^']*)'\s*(,|$)")


def operators_for(media_type: str) -> tuple[str, ...]:
    """Which characters besides letters and digits a filter on this format may have."""
    return CSV_OPERATORS if media_type == "text/csv" else JSON_OPERATORS


def check_characters(member: str, expression: str, media_type: str) -> None:
    """Refuse the characters that CreateTransformJob refuses, in its words.

    :param member: `InputFilter` or `OutputFilter`.
    :param media_type: the format that the filter reads, such as `text/csv`.
    :raises InvalidJsonPath: with the service's message.
    """
    operators = operators_for(media_type)
    letters = media_type != "text/csv"
    for character in expression:
        if character in operators or character.isdigit() or (letters and character.isalpha()):
            continue
        listed = ", ".join(f"'{operator}'" for operator in operators)
        raise InvalidJsonPath(
            f'Invalid {member}: "{expression}". Unexpected "{character}" in JsonPath. '
            f'Supported operators for "{media_type}" are [{listed}]'
        )


def parse(expression: str) -> Path:
    """Read an expression.

    :raises InvalidJsonPath: it is malformed.
    :raises FailsAtRunTime: AWS would accept it at create time and fail the objects.
    """
    if not expression.startswith("$"):
        raise _invalid(expression, "a path must start with $")
    steps: list[Step] = []
    at = 1
    while at < len(expression):
        if expression[at] == "[":
            at = _bracket(expression, at, steps)
        elif expression[at] == ".":
            at = _dot(expression, at, steps)
        else:
            raise _invalid(expression, f"expected . or [ at character {at + 1}")
    return Path(expression, tuple(steps))


def _invalid(expression: str, why: str) -> InvalidJsonPath:
    return InvalidJsonPath(f"Invalid JsonPath: {expression}: {why}")


def _dot(expression: str, at: int, steps: list[Step]) -> int:
    if expression[at + 1 : at + 2] == "[":
        return _bracket(expression, at + 1, steps)
    end = at + 1
    while end < len(expression) and expression[end] not in ".[":
        end += 1
    name = expression[at + 1 : end]
    if not name.strip():
        raise _invalid(expression, f"a name must follow the dot at character {at + 1}")
    steps.append(Wildcard() if name.strip() == "*" else Name(name))
    return end


def _bracket(expression: str, at: int, steps: list[Step]) -> int:
    # A quoted name may hold a bracket, so the closing one is looked for outside quotes.
    end, quoted = at + 1, False
    while end < len(expression) and (quoted or expression[end] != "]"):
        quoted ^= expression[end] == "'"
        end += 1
    if end == len(expression):
        raise _invalid(expression, f"the bracket at character {at + 1} is never closed")
    content = expression[at + 1 : end].strip()
    steps.append(_selector(expression, content))
    return end + 1


def _selector(expression: str, content: str) -> Step:
    if content == "*":
        return Wildcard()
    if content.startswith("'"):
        return _names(expression, content)
    parts = [part.strip() for part in content.split(",")]
    if all(_INDEX.fullmatch(part) for part in parts):
        indexes = tuple(int(part) for part in parts)
        return Index(indexes[0]) if len(indexes) == 1 else Indexes(indexes)
    if any(":" in part for part in parts):
        if len(parts) == 1 and (bounds := _RANGE.fullmatch(content)):
            start, end = bounds.groups()
            return Slice(int(start) if start else None, int(end) if end else None)
        raise FailsAtRunTime(
            f"Invalid JsonPath: {expression}: only single range filters of format "
            f"(eg: [1:5]) are supported. Format [{content}] is not supported"
        )
    raise _invalid(expression, f"[{content}] is neither indexes, nor a range, nor quoted names")


def _names(expression: str, content: str) -> Step:
    names: list[str] = []
    at = 0
    while at < len(content) or content[-1] == ",":
        match = _QUOTED.match(content, at)
        if match is None:
            raise _invalid(expression, f"[{content}] must be names in single quotes")
        names.append(match.group(1))
        at = match.end()
        if match.group(2) != ",":
            break
    if at != len(content):
        raise _invalid(expression, f"[{content}] must be names in single quotes")
    for name in names:
        if "." in name:
            raise FailsAtRunTime(
                f"Invalid JsonPath: {expression}: nested path '{name}' in brackets is not supported"
            )
    return Name(names[0]) if len(names) == 1 else Names(tuple(names))
