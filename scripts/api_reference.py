"""Writes docs/api.md from the docstrings of what batch_transform exports."""

import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import griffe

PROJECT = Path(__file__).resolve().parents[1]
PAGE = PROJECT / "docs" / "api.md"
HEAD = """# API reference

What `batch_transform` exports, from its docstrings, written by `python scripts/api_reference.py`.

| name | is |
|---|---|
"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(render())


def render() -> str:
    """Return the page."""
    package = griffe.load(
        "batch_transform",
        search_paths=[PROJECT / "constructs"],
        docstring_parser="sphinx",
        docstring_options={"warnings": False},
    )
    exports = [_target(package[str(name)]) for name in sorted(package.exports or [], key=str)]
    index = [f"| [{each.name}](#{each.name.lower()}) | {_summary(each)} |\n" for each in exports]
    return HEAD + "".join([*index, *(_section(each) for each in exports)])


def _target(found: griffe.Object | griffe.Alias) -> griffe.Object:
    return found.final_target if isinstance(found, griffe.Alias) else found


def _section(export: griffe.Object) -> str:
    lines = ["", f"## {export.name}", "", *_described(export)]
    if isinstance(export, griffe.Class):
        members = [*export.members.values()]
        public = [_target(each) for each in members if not each.name.startswith("_")]
        if any("Enum" in str(base) for base in export.bases):
            rows = [(f"`{each.name}`", _code(each.value)) for each in _attributes(public)]
            lines += _table(("member", "value"), rows)
        else:
            lines += _table(
                ("attribute", "type", "is"),
                [
                    (f"`{each.name}`", _code(each.annotation), _summary(each))
                    for each in _attributes(public)
                    if each.docstring is not None  # one without is a parameter
                ],
            )
        for each in public:
            if isinstance(each, griffe.Function) and each.docstring is not None:
                lines += [f"### {export.name}.{each.name}", "", *_described(each)]
    return "\n".join(lines).rstrip("\n") + "\n"


def _attributes(members: Iterable[griffe.Object]) -> Iterator[griffe.Attribute]:
    return (each for each in members if isinstance(each, griffe.Attribute))


def _described(documented: griffe.Object) -> Iterator[str]:
    """Give the text, then a table of the parameters, the result, and the errors."""
    sections = documented.docstring.parsed if documented.docstring else []
    said: dict[str, str] = {}
    raised = []
    for section in sections:
        if isinstance(section, griffe.DocstringSectionText):
            yield from (inspect.cleandoc(section.value), "")
        elif isinstance(section, griffe.DocstringSectionParameters):
            said |= {each.name: _line(each.description) for each in section.value}
        elif isinstance(section, griffe.DocstringSectionRaises):
            for each in section.value:
                raised.append(f"Raises {_code(each.annotation)}: {each.description}")
    if isinstance(documented, griffe.Class | griffe.Function):
        rows = [
            (
                f"`{each.name}`",
                _code(each.annotation),
                _code(_value(documented, each.default)),
                said.get(each.name, ""),
            )
            for each in documented.parameters
            if each.name not in ("self", "cls")
        ]
        yield from _table(("parameter", "type", "default", "is"), rows)
    if isinstance(documented, griffe.Function) and str(documented.returns) not in ("None", "Self"):
        yield from (f"Returns {_code(documented.returns)}.", "")
    for sentence in raised:
        yield from (_line(sentence), "")


def _value(documented: griffe.Object, default: object) -> object:
    """Return what a module's own constant stands for."""
    if str(default).startswith("_"):
        return documented.module[str(default)].value
    return default


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    if rows:
        yield f"| {' | '.join(head)} |"
        yield "|---" * len(head) + "|"
        yield from (f"| {' | '.join(row)} |" for row in rows)
        yield ""


def _summary(documented: griffe.Object) -> str:
    text = documented.docstring.value if documented.docstring else ""
    return _line(text.split("\n\n")[0])


def _line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _code(expression: object) -> str:
    """Return an expression as it is read: without the wrapping that dataclasses want."""
    if expression is None:
        return ""
    text = re.sub(r"^\(lambda: (.*)\)\(\)$", r"\1", _line(str(expression)))
    return "`{}`" if text == "dict()" else f"`{text}`"


if __name__ == "__main__":
    main()
