"""What a person sees of a job that has ended, or that a dry run has planned."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from batch_transform_cli.job.advice import Advice
from batch_transform_cli.job.dry_run import Plan
from batch_transform_cli.job.progress import Failure, Progress, clock_time
from batch_transform_cli.job.request import Member, flag_name
from batch_transform_cli.screen import counted, plain_table, printable, size, unfolded

_ROWS = 20
_LOG_LINES = 12
_WHY_LENGTH = 400
_LOG = "its last log lines:\n"
_STYLES = {"wrong": "red", "wasteful": "yellow", "doubtful": "cyan"}
_STATUS_STYLES = {"Completed": "bold green", "Failed": "bold red", "Stopped": "bold yellow"}


def outcome(
    progress: Progress,
    *,
    status: str,
    failure_reason: str | None,
    detail: str | None,
    output: str,
    log_dir: str | None,
) -> RenderableType:
    """Return how a job ended, with a table of the objects that failed.

    :param detail: the engine's words, among them the model server's last log lines.
    """
    said = [f"{progress.done:,} of {counted(progress.total, 'object')} done"]
    said += progress.records_told
    rate = f" ({size(progress.bytes / progress.seconds)}/s)" if progress.seconds else ""
    said.append(f"{size(progress.bytes)} in {_duration(progress.seconds)}{rate}")
    head = Text.assemble((status, _STATUS_STYLES[status]), "  ", ", ".join(said))
    parts: list[RenderableType] = [head]
    if status == "Failed":
        parts.append(Text(printable(failure_reason or "")))
        if progress.failures:
            parts.append(_indented(failures_table("why", progress.failures, progress.failed)))
        _, found, words = (detail or "").partition(_LOG)
        # A server that refused an object has said why; one that broke has it in its log.
        if found and not (failure_reason or "").startswith("ClientError"):
            parts += ["", Text("the model server's last log lines")]
            parts.append(_indented(_lines(words.splitlines()[-_LOG_LINES:]), above=0))
        elif detail and not progress.failures:
            parts.append(_indented(_lines(detail.splitlines()[-_LOG_LINES:])))
        parts.append("")
    if progress.done and status != "Stopped":
        parts.append(unfolded(f"outputs in {printable(output)}"))
    if log_dir is not None:
        parts.append(unfolded(f"logs in {printable(log_dir)}"))
    elif status == "Failed":
        parts.append(Text("--log-dir DIR keeps the logs of the next run"))
    return Group(*parts)


def failures_table(title: str, failures: Sequence[Failure], count: int) -> RenderableType:
    """Return the first objects that have no output, with why, and how many more there are."""
    table = plain_table()
    table.add_column("object", overflow="fold")
    table.add_column(title, overflow="fold")
    for failure in failures[:_ROWS]:
        why = Text(printable(failure.reason))
        why.truncate(_WHY_LENGTH, overflow="ellipsis")
        table.add_row(Text(printable(failure.name)), why)
    return _with_more(table, count)


def planned(
    plan: Plan, advices: Sequence[Advice], *, input_place: str, output_place: str
) -> RenderableType:
    """Return what a job would read and send, and what is to be said about it."""
    settings = plan.settings
    limit = f"at most {settings.max_payload_mb} MB" if settings.max_payload_mb else "in chunks"
    packed = (
        "an object each"
        if settings.split == "None"
        else f"{'one record' if settings.single else 'records'} of SplitType {settings.split}"
    )
    read = [counted(plan.count, "object"), counted(plan.records, "record"), size(plan.read_bytes)]
    head = [
        ("reads", f"{input_place}: {', '.join(read)}"),
        (
            "sends",
            f"{counted(plan.requests, 'request')} of about {size(plan.body_bytes)} "
            f"({packed}, {limit}, {settings.max_concurrent} at a time)",
        ),
        ("writes", f"{output_place}: {counted(plan.count - plan.failing_count, 'output')}"),
    ]
    table = plain_table()
    table.show_header = False
    for name, text in head:
        table.add_row(Text(name, style="bold"), Text(printable(text)))
    parts: list[RenderableType] = [_indented(table, above=0), _indented(_objects_table(plan))]
    if plan.failing:
        failures = [Failure(each.name, each.problem or "") for each in plan.failing]
        parts.append(_indented(failures_table("would fail", failures, plan.failing_count)))
    if len(plan.instances) > 1:
        parts.append(_indented(_instances_table(plan)))
    parts.append(_indented(_advice_table(advices)) if advices else _indented("nothing to mend"))
    return Group(*parts)


def _objects_table(plan: Plan) -> RenderableType:
    table = plain_table()
    table.add_column("object", overflow="fold")
    for name in ("size", "records", "largest", "requests"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in plan.objects[:_ROWS]:
        table.add_row(
            Text(printable(each.name)),
            size(each.size if each.size is not None else each.read_bytes),
            f"{each.records:,}",
            size(each.longest),
            f"{each.requests:,}",
            style="red" if each.problem is not None else "",
        )
    return _with_more(table, plan.count)


def _instances_table(plan: Plan) -> RenderableType:
    table = plain_table()
    for name in ("instance", "objects", "size", "requests"):
        table.add_column(name, justify="right", no_wrap=True)
    for number, each in enumerate(plan.instances[:_ROWS], 1):
        table.add_row(str(number), f"{each.objects:,}", size(each.bytes), f"{each.requests:,}")
    return _with_more(table, len(plan.instances))


def _advice_table(advices: Sequence[Advice]) -> RenderableType:
    table = plain_table()
    table.show_header = False
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for advice in advices:
        text = Text(printable(advice.text))
        if advice.suggest:
            text.append("\n" + flags(advice.suggest), style="bold")
        table.add_row(Text(advice.kind, style=_STYLES[advice.kind]), text)
    return table


def flags(members: Mapping[Member, Any]) -> str:
    """Return the flags that set some members."""
    return " ".join(
        f"--{flag_name(member)} {shlex.quote(str(value))}" for member, value in members.items()
    )


def _with_more(table: RenderableType, count: int) -> RenderableType:
    more = count - _ROWS
    return Group(table, Text(f"and {more:,} more", style="italic")) if more > 0 else table


def _lines(lines: Sequence[str]) -> Text:
    return Text("\n".join(printable(line) for line in lines), style="dim")


def _indented(part: RenderableType, *, above: int = 1) -> RenderableType:
    return Padding(part, (above, 0, 0, 2), expand=False)


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else clock_time(seconds)
