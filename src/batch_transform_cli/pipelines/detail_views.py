"""One run or one key on a screen."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from batch_transform_cli.pipelines.details import Fate, Job, KeyDetails, RunDetails
from batch_transform_cli.pipelines.records import Drop
from batch_transform_cli.pipelines.views import status_text, took, why_not_done
from batch_transform_cli.screen import counted, plain_table, printable, size

_ENDS = ("failed", "waiting", "claimed", "superseded", "done")  # what needs somebody comes first


def run_view(found: RunDetails, newest: int, *, now: datetime) -> RenderableType:
    """Return a run with its jobs, its drops and where more is told.

    :param newest: how many drops are shown.
    """
    run, report = found.run, found.report
    facts = {
        "status": status_text(run.outcome or run.status),
        "began": run.opened_at,
        "took": took(run, now),
        "drops": _drops_line(found),
    }
    if report is not None:
        totals = report["totals"]
        if totals["drops_counted"]:
            facts["records"] = f"{totals['records_in']:,} in, {totals['records_out']:,} out"
        facts["billable"] = counted(totals["billable_seconds"], "second")
        if report["budget"]["overrun"]:
            facts["error budget"] = printable(report["budget"]["overrun"])
    parts = [
        _facts(facts),
        *([_jobs_table(found.jobs)] if found.jobs else []),
        *([_fates_table(found.drops, newest)] if found.drops else []),
        _facts({**found.links, **({"no report": found.no_report} if found.no_report else {})}),
    ]
    return _titled(f"run {run.run_id} of pipeline {found.pipeline_id}", parts)


def key_view(found: KeyDetails, newest: int) -> RenderableType:
    """Return a key with its versions and what to do next.

    :param newest: how many versions are shown.
    """
    table = plain_table()
    table.add_column("uploaded", no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("attempts", justify="right", no_wrap=True)
    table.add_column("run", overflow="fold", min_width=18)
    table.add_column("why", overflow="fold")
    for drop in found.versions[:newest]:
        table.add_row(*_version(drop))
    if len(found.versions) > newest:
        table.caption = f"the newest {newest} of {counted(len(found.versions), 'version')}"
    facts = {"predictions": printable(found.output)} if found.output else {}
    steps = [Text(printable(step), overflow="fold") for step in found.next_steps]
    return _titled(
        f"{printable(found.key)} of pipeline {found.pipeline_id}",
        [table, *([_facts(facts)] if facts else []), *([Group("next", *steps)] if steps else [])],
    )


def _titled(title: str, parts: Sequence[RenderableType]) -> RenderableType:
    padded = [Padding(part, (1, 0, 0, 2), expand=False) for part in parts]
    return Group(Text(title, style="bold", overflow="fold"), *padded, "")


def _facts(facts: Mapping[str, str]) -> Table:
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, fact in facts.items():
        table.add_row(name, fact)
    return table


def _drops_line(found: RunDetails) -> str:
    run = found.run
    if not run.outcome:
        written = f", {found.outputs:,} with an output so far" if found.outputs is not None else ""
        return f"{run.drops:,}{written}"
    return f"{run.drops:,}: {run.done:,} done, {run.failed:,} failed, {run.waiting:,} tried again"


def _jobs_table(jobs: Sequence[Job]) -> Table:
    table = plain_table()
    table.add_column("job", overflow="fold")
    table.add_column("status", no_wrap=True)
    table.add_column("instances", no_wrap=True)
    table.add_column("why", overflow="fold")
    for job in jobs:
        instances = f"{job.instance_count} {job.instance_type}" if job.instance_type else "-"
        why = Text(printable(job.failure_reason or ""))
        table.add_row(job.name, status_text(job.status), instances, why)
    return table


def _fates_table(drops: Sequence[Fate], newest: int) -> Table:
    table = plain_table()
    table.add_column("drop", overflow="fold")
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("predictions, or why there are none", overflow="fold")
    for drop in sorted(drops, key=lambda drop: _ENDS.index(drop.status))[:newest]:
        told = drop.output or why_not_done(drop)
        status = status_text(drop.status)
        table.add_row(Text(printable(drop.key)), size(drop.size), status, Text(printable(told)))
    if len(drops) > newest:
        table.caption = f"{newest} of {counted(len(drops), 'drop')}"
    return table


def _version(drop: Drop) -> tuple[RenderableType, ...]:
    return (
        drop.dropped_at,
        size(drop.size),
        status_text(drop.status),
        str(drop.attempts),
        drop.run_id or "-",
        Text(printable(why_not_done(drop))),
    )
