"""What a pipeline looks like on a screen: tables and a bar on a terminal, lines elsewhere."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from batch_transform_cli.errors import CommandError
from batch_transform_cli.pipelines.client import PipelineClient
from batch_transform_cli.pipelines.details import Fate
from batch_transform_cli.pipelines.records import Drop, Load, Run, Status
from batch_transform_cli.pipelines.redrive import Choice, choose
from batch_transform_cli.screen import (
    can_redraw,
    counted,
    duration,
    minute,
    plain_table,
    printable,
    size,
)

_STYLES = {
    "waiting": "yellow",
    "claiming": "yellow",
    "claimed": "cyan",
    "running": "cyan",
    "settled": "cyan",
    "done": "green",
    "closed": "green",
    "Completed": "green",
    "PartiallyCompleted": "yellow",
    "failed": "red",
    "Failed": "red",
    "superseded": "dim",
    "InProgress": "cyan",
    "Stopping": "yellow",
    "Stopped": "yellow",
}
_POLL_S = 0.25
_BAR_WIDTH = 32
_REDRIVEN_SHOWN = 20
_ALIKE_TOLD = 20
_STATUS_WIDTH = 12
_RUN_WIDTH = 18  # in which the id of a run stands in two lines, on a terminal of 80 columns


def overview(
    status: Status,
    outputs: Mapping[str, int],
    *,
    load: Load | None = None,
    newest: int = 20,
) -> RenderableType:
    """Return the newest drops and runs as tables, and a bar for each job.

    :param outputs: how many outputs the runs have whose job is to be shown, by run id.
    :param load: how far the pipeline is behind. Default: that is left out.
    """
    bars = [_job_bar(run, outputs[run.run_id]) for run in status.runs if run.run_id in outputs]
    tables = [*([] if load is None else [load_table(load)]), drops_table(status.drops, newest)]
    if status.runs:
        tables.append(runs_table(status.runs, newest))
    parts = [Padding(part, (1, 0, 0, 2), expand=False) for part in (*tables, *bars)]
    return Group(*parts, "")


def load_table(load: Load) -> Table:
    """Return how far a pipeline is behind, in one row."""
    table = plain_table()
    for name in ("drops waiting", "the oldest for", "slots free", "jobs running"):
        table.add_column(name, no_wrap=True)
    oldest = duration(load.oldest_waiting_s) if load.waiting else "-"
    full = load.waiting and not load.slots_free
    table.add_row(
        Text(f"{load.waiting:,}", style="yellow" if load.waiting else "default"),
        oldest,
        Text(f"{load.slots_free} of {load.slots}", style="yellow" if full else "default"),
        f"{load.running_jobs:,}",
    )
    return table


def drops_table(drops: Sequence[Drop], newest: int) -> Table:
    """Return the newest drops, and before them older ones that failed and have no newer version.

    :param newest: how many of each.
    """
    table = plain_table()
    table.add_column("drop", overflow="fold")
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("why", overflow="fold")
    older = set(drops[:-newest])
    failed = [drop for drop in choose(drops).drops if drop in older]
    for drop in (*failed[-newest:], *drops[-newest:]):
        key, why = printable(drop.key), printable(why_not_done(drop))
        table.add_row(Text(key), size(drop.size), status_text(drop.status), Text(why))
    if len(drops) > newest:
        more = f", after {len(failed[-newest:])} of {len(failed)} older that failed"
        table.caption = f"the newest {newest} of {len(drops)} drops{more if failed else ''}"
    return table


def why_not_done(drop: Drop | Fate) -> str:
    """Return the reason of a drop without its key, which stands beside it."""
    return (drop.reason or "").removeprefix(f"{drop.key}: ")


def runs_table(runs: Sequence[Run], newest: int, *, now: datetime | None = None) -> Table:
    """Return the newest runs and what became of their drops.

    :param now: adds when each began, and how long it took or has taken so far. Default: neither.
    """
    table = plain_table()
    table.add_column("run", overflow="fold", min_width=_RUN_WIDTH)
    for name in ("drops", "done", "failed", "again"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("status", overflow="fold", min_width=_STATUS_WIDTH)
    if now is not None:
        table.padding = (0, 1, 0, 0)  # room for them on a terminal of 80 columns
        table.add_column("began, UTC", no_wrap=True)
        table.add_column("took")
    for run in runs[-newest:]:
        counts = [
            str(count) if run.outcome else "" for count in (run.done, run.failed, run.waiting)
        ]
        times = [] if now is None else [minute(run.opened_at), took(run, now)]
        status = status_text(run.outcome or run.status)
        table.add_row(run.run_id, str(run.drops), *counts, status, *times)
    return table


def runs_view(runs: Sequence[Run], newest: int, *, now: datetime) -> RenderableType:
    """Return the newest of the runs that were asked for, and of how many they are."""
    if not runs:
        return Text("no run is so")
    table = runs_table(runs, newest, now=now)
    if len(runs) > newest:
        table.caption = f"the newest {newest} of {counted(len(runs), 'run')}"
    return table


def took(run: Run, now: datetime) -> str:
    """Return how long a run was open, or is so far."""
    seconds = duration(run.took_s(now))
    return seconds if run.ended_at else f"{seconds} so far"


def redrive_view(choice: Choice, letters: Mapping[str, int], *, dry_run: bool) -> RenderableType:
    """Return what a redrive has asked for, or would.

    :param letters: dead letters that moved, or would, by what they are of; empty if none were to.
    """
    parts: list[RenderableType] = []
    drops = counted(len(choice.drops), "failed drop")
    if choice.drops:
        table = drops_table(choice.drops, _REDRIVEN_SHOWN)
        parts.append(Padding(table, (1, 0, 1, 2), expand=False))
        does = "would be tried again" if dry_run else "are asked to be tried again"
        parts.append(f"{drops} {does if len(choice.drops) > 1 else does.replace('are', 'is')}")
    else:
        parts.append("no failed drop is to be tried again")
    parts += [printable(f"{key} is left as it is: {status}") for key, status in choice.left.items()]
    parts += [
        f"{counted(count, 'dead letter')} of {what} {'would move' if dry_run else 'moved'} back"
        for what, count in letters.items()
    ]
    if not letters:
        parts.append("dead letters stay; they move when neither --since nor --key is given")
    return Group(*(Text(part) if isinstance(part, str) else part for part in parts))


def changed(before: Status, after: Status) -> tuple[list[Drop], list[Run]]:
    """Return the drops and the runs that are not as they were."""
    old_drops = {(drop.key, drop.order): drop.status for drop in before.drops}
    old_runs = {run.run_id: run.status for run in before.runs}
    return (
        [d for d in after.drops if old_drops.get((d.key, d.order)) != d.status],
        [run for run in after.runs if old_runs.get(run.run_id) != run.status],
    )


def changes(before: Status, after: Status) -> list[str]:
    """Return a line for each drop or run that is not as it was; many that are alike are counted."""
    return told(*changed(before, after))


def told(drops: Iterable[Drop], runs: Iterable[Run]) -> list[str]:
    """Return a line for what each drop and each run now is; many that are alike are counted."""
    lines = []
    alike: Counter[str] = Counter()
    for drop in drops:
        alike[drop.status] += 1
        if alike[drop.status] <= _ALIKE_TOLD:
            why = f" ({drop.reason})" if drop.reason else ""
            lines.append(printable(f"drop {drop.key}: {drop.status}{why}"))
    lines += [
        f"{counted(count - _ALIKE_TOLD, 'more drop')}: {status}"
        for status, count in alike.items()
        if count > _ALIKE_TOLD
    ]
    for run in runs:
        counts = f", {run.done} done, {run.failed} failed" if run.outcome else ""
        outcome = f" {run.outcome}" if run.outcome else ""
        drops_told = counted(run.drops, "drop")
        lines.append(f"run {run.run_id}: {run.status}{outcome} ({drops_told}{counts})")
    return lines


def written_lines(before: Mapping[str, int], after: Mapping[str, int]) -> list[str]:
    """Return a line for each run that has written more outputs than before."""
    return [
        f"run {run_id}: {counted(count, 'output')} written"
        for run_id, count in after.items()
        if count != before.get(run_id, 0)
    ]


@contextmanager
def redrawn(
    console: Console, say: Callable[[str], None]
) -> Iterator[Callable[[RenderableType, Iterable[str]], None]]:
    """Give what shows a picture in the place of the last on a terminal; elsewhere it says lines."""
    redraws = can_redraw(console)
    with Live(console=console, auto_refresh=False, transient=False) as live:

        def show(picture: RenderableType, lines: Iterable[str]) -> None:
            if redraws:
                live.update(picture, refresh=True)
            else:
                for line in lines:
                    say(line)

        yield show


def watch(
    client: PipelineClient,
    console: Console,
    *,
    until: Callable[[Status], bool],
    limit_s: float,
    say: Callable[[str], None],
) -> tuple[Status, RenderableType]:
    """Show the pipeline until it is as wanted; return how it is then, and the picture of it.

    On a terminal the picture is redrawn in place; elsewhere `say` gets a line for each change.

    :raises CommandError: it is not so within `limit_s`.
    """
    deadline = time.monotonic() + limit_s
    before = Status(drops=[], runs=[])
    outputs: dict[str, int] = {}
    with redrawn(console, say) as show:
        while True:
            status = client.status()
            written = {
                run.run_id: client.outputs_of(run)
                for run in status.runs
                if run.is_open or run.run_id not in outputs
            }
            picture = overview(status, outputs | written)
            show(picture, [*written_lines(outputs, written), *changes(before, status)])
            outputs |= written
            before = status
            if until(status):
                return status, picture
            if time.monotonic() > deadline:
                open_drops = [drop.key for drop in status.drops if drop.is_open]
                raise CommandError(
                    f"every drop must end within {limit_s:g} s, got {len(open_drops)} still open"
                    f"{' (' + open_drops[0] + ')' if open_drops else ''}; "
                    "see the state machine's executions for what they wait for"
                )
            time.sleep(_POLL_S)


def _job_bar(run: Run, outputs: int) -> RenderableType:
    row = Table.grid(padding=(0, 1))
    row.add_row(
        Text("transform job", style="bold"),
        ProgressBar(total=max(run.drops, 1), completed=outputs, width=_BAR_WIDTH),
        f"{outputs} of {run.drops} outputs",
    )
    return row


def status_text(status: str) -> str:
    """Return a status in its colour."""
    return f"[{_STYLES.get(status, 'default')}]{escape(status)}[/]"
