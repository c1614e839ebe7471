"""What pydantic refuses of a file, in the words of our other errors, with the line."""

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import ValidationError

from batch_transform.yaml_existing import Entry
from batch_transform.yaml_text import Place, Problem, YamlError, YamlText

_T = TypeVar("_T", bound=Entry)


def validated(text: YamlText, of: type[_T], context: object = None, members: Any = None) -> _T:
    """Return what a file says, read as `of`.

    :param members: what to read in place of all that the file says.
    :raises YamlError: with every problem.
    """
    try:
        return of.model_validate(text.members if members is None else members, context=context)
    except ValidationError as refused:
        raise YamlError(*_problems(refused, text, of)) from refused


def _problems(refused: ValidationError, text: YamlText, of: type[Entry]) -> Iterator[Problem]:
    for error in refused.errors():
        # Pydantic adds the branch that it took, and the word [key], which are not in the file.
        place = tuple(
            part for part in error["loc"] if part != "[key]" and not str(part).startswith("<")
        )
        if error["type"] == "value_error":
            for line in str(error["ctx"]["error"]).splitlines():
                yield text.refusal(place, line)
        else:
            yield text.problem(place, _sentence(error, place, text, of))


def _sentence(error: Mapping[str, Any], place: Place, text: YamlText, of: type[Entry]) -> str:
    kind, got = error["type"], error["input"]
    if kind == "extra_forbidden":
        return _unknown(place, text, of)
    if kind == "missing":
        return "must be given, got nothing; add it"
    if kind in ("dict_type", "model_type"):
        out = "leave it out, or " if got is None else ""
        return f"must have members, got {got!r}; {out}write them indented below it"
    if kind == "too_short":
        return "must have a member, got none; add the first"
    message = str(error["msg"]).replace("Input should", "must").replace("String should", "must")
    if kind == "string_type" and not isinstance(got, list | dict | None):
        return f"{message}, got {got!r}; put it in quotes"
    remedy = "leave it out" if got is None else "correct it"
    return f"{message}, got {got!r}; {remedy}"


def _unknown(place: Place, text: YamlText, of: type[Entry]) -> str:
    got = str(place[-1])
    if place == ("accounts",):
        return "must stand in a file of its own, got it beside pipelines; move it to accounts.yaml"
    siblings: Any = text.members
    for part in place[:-1]:
        siblings = siblings[part]
    ways = _known_members(of, place[:-1])
    taken = max(ways, key=lambda way: len(way & siblings.keys()))
    if any(got in way for way in ways):
        beside = ", ".join(sorted(taken & siblings.keys()))
        return f"must not stand beside {beside}, got {got!r}; leave one of them out"
    near = get_close_matches(got, taken, n=1)
    remedy = (
        f"write {near[0]}" if near else f"remove it, or write one of {', '.join(sorted(taken))}"
    )
    return f"must be a member that exists, got {got!r}; {remedy}"


def _known_members(of: type[Entry], place: Place) -> list[set[str]]:
    """Return which members may stand at a place together: a list of every way."""
    schema = of.model_json_schema()

    def branches(nodes: Iterable[Any]) -> Iterator[Mapping[str, Any]]:
        for node in nodes:
            if "$ref" in node:
                yield from branches([schema["$defs"][node["$ref"].rpartition("/")[2]]])
            else:
                yield node
                yield from branches(node.get("oneOf", ()))

    def below(node: Mapping[str, Any], part: str | int) -> Iterator[Any]:
        named = node.get("properties", {}).get(part)
        of_any_name = [*node.get("patternProperties", {}).values(), node.get("items")]
        yield from filter(None, [named] if named else of_any_name)

    nodes = [schema]
    for part in place:
        nodes = [each for node in branches(nodes) for each in below(node, part)]
    return [{*node["properties"]} for node in branches(nodes) if "properties" in node]
