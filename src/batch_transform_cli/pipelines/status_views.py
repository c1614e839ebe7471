"""Pipelines on a screen: one of them with all it has to tell, or a row for each."""

import time
from collections.abc import Callable, Iterator
from itertools import zip_longest

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from batch_transform_cli.pipelines.snapshots import Seen, Snapshot, Unreadable
from batch_transform_cli.pipelines.views import (
    changes,
    overview,
    redrawn,
    status_text,
    why_not_done,
    written_lines,
)
from batch_transform_cli.screen import counted, duration, plain_table, printable

_FAILURES_TOLD = 20
_READING_SHARE = 5  # one part of the time at most goes into reading


def picture(seen: Seen, newest: int, *, rows: bool) -> RenderableType:
    """Return a row for each pipeline, or all that there is to tell of those that were readable."""
    if rows:
        return all_pipelines(seen, newest)
    return Group(*(one_pipeline(each, newest) for each in seen if isinstance(each, Snapshot)))


def one_pipeline(snapshot: Snapshot, newest: int) -> RenderableType:
    """Return how far a pipeline is behind, its drops and runs, and a bar for each run in flight."""
    title = Text(f"pipeline {snapshot.pipeline_id}", style="bold")
    shown = overview(snapshot.status, snapshot.outputs, load=snapshot.load, newest=newest)
    return Group(title, shown)


def all_pipelines(seen: Seen, newest: int) -> RenderableType:
    """Return a row for each pipeline, and below it what failed last in those with failures.

    :param newest: how many failures are shown.
    """
    table = plain_table()
    table.padding = (0, 2, 0, 0)
    table.add_column("pipeline", overflow="fold", min_width=18)
    for name in ("waiting", "oldest for", "outputs", "slots", "failed"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("last run", overflow="fold")
    for each in seen:
        table.add_row(each.pipeline_id, *(_row(each) if isinstance(each, Snapshot) else ()))
    problems = _problems_table(seen, newest)
    below = [Padding(problems, (1, 0, 0, 2), expand=False)] if problems.row_count else []
    return Group(Padding(table, (0, 0, 0, 2), expand=False), *below, "")


def summary_line(each: Snapshot | Unreadable) -> str:
    """Return how a pipeline is in one line."""
    if isinstance(each, Unreadable):
        return printable(f"pipeline {each.pipeline_id}: {each.problem}")
    load, last_run = each.load, each.last_run
    oldest = f" (the oldest for {duration(load.oldest_waiting_s)})" if load.waiting else ""
    said = [
        f"{load.waiting:,} waiting{oldest}",
        f"{load.slots - load.slots_free} of {counted(load.slots, 'slot')} used",
        f"{len(each.failures):,} failed",
    ]
    if each.running:
        said.append(f"{_written(each)} outputs written by runs in flight")
    if last_run is not None:
        said.append(f"last run {last_run.outcome}")
    return f"pipeline {each.pipeline_id}: {', '.join(said)}"


def lines(before: Seen, now: Seen) -> Iterator[str]:
    """Yield what has changed; of a pipeline that is seen for the first time, how it is."""
    for old, new in zip_longest(before, now):
        if isinstance(old, Snapshot) and isinstance(new, Snapshot):
            told = [
                *written_lines(old.outputs, new.outputs),
                *changes(old.status, new.status),
            ]
            name = f"{new.pipeline_id}: " if len(now) > 1 else ""
            yield from (f"{name}{line}" for line in told)
        elif old != new:
            yield summary_line(new)
            if isinstance(new, Snapshot) and len(now) == 1:
                yield from (
                    printable(f"drop {drop.key}: failed ({why_not_done(drop)})")
                    for drop in new.failures[-_FAILURES_TOLD:]
                )


def follow(
    look: Callable[[], Seen],
    console: Console,
    *,
    rows: bool,
    newest: int,
    interval_s: float,
    say: Callable[[str], None],
) -> None:
    """Show pipelines until somebody ends it.

    :param rows: a row for each of them, and not all that there is to tell.
    :param interval_s: between two looks; longer if a look takes more than a fourth of that.
    """
    before: Seen = ()
    with redrawn(console, say) as show:
        while True:
            began = time.monotonic()
            seen = look()
            took_s = time.monotonic() - began
            show(_fitting(console, seen, newest, rows=rows), lines(before, seen))
            before = seen
            time.sleep(max(interval_s, (_READING_SHARE - 1) * took_s))


def _fitting(console: Console, seen: Seen, newest: int, *, rows: bool) -> RenderableType:
    """Return the picture with as many of the newest things as the terminal has room for."""
    newest = max(1, min(newest, console.height // (1 if rows else 2)))
    while True:
        shown = picture(seen, newest, rows=rows)
        if newest == 1 or len(console.render_lines(shown, pad=False)) < console.height:
            return shown
        newest = max(1, newest * 3 // 4)


def _row(each: Snapshot) -> Iterator[RenderableType]:
    load, last_run, failed = each.load, each.last_run, len(each.failures)
    yield Text(f"{load.waiting:,}", style="yellow" if load.waiting else "default")
    yield duration(load.oldest_waiting_s) if load.waiting else "-"
    yield _written(each) if each.running else "-"
    full = load.waiting and not load.slots_free
    used = f"{load.slots - load.slots_free} of {load.slots}"
    yield Text(used, style="yellow" if full else "default")
    yield Text(f"{failed:,}", style="red" if failed else "default")
    yield status_text(last_run.outcome) if last_run else "-"


def _written(each: Snapshot) -> str:
    drops = sum(run.drops for run in each.running)
    return f"{sum(each.outputs.values()):,} of {drops:,}"


def _problems_table(seen: Seen, newest: int) -> Table:
    table = plain_table()
    table.add_column("pipeline", overflow="fold")
    table.add_column("failed last", overflow="fold")
    table.add_column("why", overflow="fold")
    for each in seen:
        if table.row_count == newest:
            break
        if isinstance(each, Unreadable):
            table.add_row(each.pipeline_id, "", Text(printable(each.problem), style="red"))
        elif each.failures:
            drop = each.failures[-1]
            key, why = printable(drop.key), printable(why_not_done(drop))
            table.add_row(each.pipeline_id, Text(key), Text(why))
    return table
