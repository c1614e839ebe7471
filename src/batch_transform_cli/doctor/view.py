"""What was found, on a screen and for programs."""

import dataclasses
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.text import Text

from batch_transform_cli.doctor.examination import Report
from batch_transform_cli.doctor.findings import Finding, Level, ok
from batch_transform_cli.screen import counted, printable

_MARKS: dict[Level, tuple[str, str, str]] = {
    "ok": ("✔", "ok", "green"),
    "warn": ("!", "! ", "yellow"),
    "fail": ("✘", "X ", "red"),
    "skipped": ("-", "- ", "dim"),
}
_NARROWEST = 30
_GOOD_SHOWN = 6


def document(report: Report) -> dict[str, Any]:
    """Return a report for programs."""
    return {
        "groups": [
            {
                "account": group.place.account if group.place else None,
                "region": group.place.region if group.place else None,
                "findings": [dataclasses.asdict(finding) for finding in group.findings],
            }
            for group in report.groups
        ],
        "counts": {level: report.count(level) for level in _MARKS},
    }


def show(report: Report, console: Console) -> None:
    """Print a report: by account and region, each fix below what it is for.

    Fixes are not wrapped, so that they can be copied. Of much that is good only the first is told.
    """
    for group in report.groups:
        console.print(Text(group.title, style="bold"))
        width = max((len(finding.topic) for finding in group.findings), default=0)
        for finding in folded(group.findings):
            _show_finding(finding, width, console)
        console.print()
    console.print(summary(report))


def folded(findings: Sequence[Finding]) -> Iterator[Finding]:
    """Yield what is to be told: all, but for what is good many times over.

    :param findings: those of a topic one after the other.
    """
    for topic, of_topic in groupby(findings, key=lambda finding: finding.topic):
        good = 0
        for finding in of_topic:
            good += finding.level == "ok"
            if finding.level != "ok" or good <= _GOOD_SHOWN:
                yield finding
        if good > _GOOD_SHOWN:
            yield ok(topic, f"and {good - _GOOD_SHOWN:,} more")


def summary(report: Report) -> Text:
    """Return one line about all findings."""
    parts = [
        (counted(report.count("fail"), "failure"), "red" if report.count("fail") else ""),
        (counted(report.count("warn"), "warning"), "yellow" if report.count("warn") else ""),
        (f"{report.count('ok')} good", "green"),
        (f"{report.count('skipped')} not looked at", ""),
    ]
    line = Text()
    for number, (text, style) in enumerate(parts):
        line.append(", " if number else "").append(text, style=style)
    return line


def _show_finding(finding: Finding, width: int, console: Console) -> None:
    mark, plain, style = _MARKS[finding.level]
    head = Text("  ")
    head.append(mark if console.encoding.lower().startswith("utf") else plain, style=style)
    head.append(f"  {finding.topic:{width}}  ")
    indent = " " * len(head)
    found = Text(_writable(finding.found, console))
    # Elsewhere than on a terminal a line stays one, for whoever searches in it.
    room = max(console.width - len(head), _NARROWEST) if console.is_terminal else len(found) + 1
    for number, line in enumerate(found.wrap(console, room)):
        line.rstrip()
        console.print((Text(indent) if number else head) + line, soft_wrap=True)
    for number, text in enumerate(finding.fix.splitlines()):
        label = "     " if number else "fix: "
        console.print(
            Text(f"{indent}{label}{_writable(text, console)}", style="cyan"), soft_wrap=True
        )


def _writable(text: str, console: Console) -> str:
    """Return text that neither steers the terminal nor is beyond its characters."""
    return printable(text).encode(console.encoding, "replace").decode(console.encoding)
