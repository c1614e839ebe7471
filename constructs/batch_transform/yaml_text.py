"""A YAML file that knows on which line each of its members stands."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

# The one in C is ten times as fast, where PyYAML was built with it.
_Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Place = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """What a file says that it must not; `place` are the names that lead there."""

    file: str
    line: int
    place: Place
    sentence: str

    def __str__(self) -> str:
        where = ".".join(map(str, self.place))
        return ": ".join(filter(None, (f"{self.file}:{self.line}", where, self.sentence)))


class YamlError(ValueError):
    """Files that cannot be used; one line for each problem, with file, line and place."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class YamlText:
    """A file, read.

    :ivar members: what it says, with what `<<` merges.
    :raises YamlError: there is no such file, or it is no mapping in YAML.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = _shown(path)
        try:
            text = path.read_bytes().decode("utf-8")
            tree = yaml.compose(text, Loader=_Loader)
            self.members: Any = yaml.load(text, Loader=_Loader)
        except OSError as refused:
            raise self._unreadable(
                1,
                f"must be a file that can be read, got {refused.strerror}; correct the path, or "
                "create it",
            ) from None
        except yaml.MarkedYAMLError as refused:
            mark = refused.problem_mark
            raise self._unreadable(
                mark.line + 1 if mark else 1,
                f"must be YAML, got {refused.problem}; correct the line",
            ) from None
        except (UnicodeDecodeError, yaml.reader.ReaderError) as refused:
            raise self._unreadable(
                1, f"must be text in UTF-8, got {refused.reason}; save it again as UTF-8"
            ) from None
        if not isinstance(tree, yaml.MappingNode):
            raise self._unreadable(1, "must have members, got none; add the first")
        self._tree = tree
        twice = [
            Problem(
                self.name,
                key.start_mark.line + 1,
                place,
                f"must have {key.value!r} once, got it twice; rename or remove one",
            )
            for place, key in _twice(tree, ())
        ]
        if twice:
            raise YamlError(*twice)

    def problem(self, place: Place, sentence: str) -> Problem:
        """Return a problem of a place; it is on the line of its deepest part that there is."""
        return Problem(self.name, _line(self._tree, place), place, sentence)

    def refusal(self, place: Place, sentence: str) -> Problem:
        """Return what a rule says of a place, on the line of the member that it names first."""
        node: yaml.Node | None = self._tree
        for part in place:
            node = _child(node, part)
        named = place
        if node is not None:
            below = {_bare(str(way[-1])): way for way in _ways(node, place)}
            words = re.findall(r"\w+", sentence.partition(", got")[0])
            named = next((below[_bare(word)] for word in words if _bare(word) in below), place)
        return Problem(self.name, _line(self._tree, named), place, sentence)

    def _unreadable(self, line: int, sentence: str) -> YamlError:
        return YamlError(Problem(self.name, line, (), sentence))


def _shown(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _twice(node: yaml.Node, place: Place) -> Iterator[tuple[Place, yaml.Node]]:
    """Yield the members that stand twice, of which YAML readers silently take the last."""
    if isinstance(node, yaml.SequenceNode):
        for position, item in enumerate(node.value):
            yield from _twice(item, (*place, position))
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.value in seen:
                yield place, key
            seen.add(key.value)
            yield from _twice(value, (*place, key.value))


def _line(node: yaml.Node, place: Place) -> int:
    line: int = node.start_mark.line + 1
    for part in place:
        found = _entry(node, part)
        if found is None:
            break
        marked, node = found
        line = marked.start_mark.line + 1
    return line


def _entry(node: yaml.Node | None, part: str | int) -> tuple[yaml.Node, yaml.Node] | None:
    """Return what marks the line of a member or an item, and its value."""
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int):
        return (node.value[part], node.value[part]) if part < len(node.value) else None
    return next((entry for entry in _entries(node) if entry[0].value == str(part)), None)


def _child(node: yaml.Node | None, part: str | int) -> yaml.Node | None:
    found = _entry(node, part)
    return None if found is None else found[1]


def _entries(node: yaml.Node | None) -> Iterator[tuple[yaml.Node, yaml.Node]]:
    """Yield a mapping's own members, then those that `<<` merges into it."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _entries(item)
    if isinstance(node, yaml.MappingNode):
        yield from node.value
        for key, value in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                yield from _entries(value)


def _ways(node: yaml.Node, place: Place) -> Iterator[Place]:
    for key, value in _entries(node):
        yield (*place, key.value)
        yield from _ways(value, (*place, key.value))


def _bare(name: str) -> str:
    """Write AWS's `MaxPayloadInMB`, the API's `max_payload` and our `max_payload_mib` alike."""
    units = "InMB|InSeconds|_s|_minutes|_hours|_days|_bytes|_kib|_mib|_gib"
    return re.sub(f"({units})$", "", name).replace("_", "").lower()
