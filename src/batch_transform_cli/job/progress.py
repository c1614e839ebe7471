"""How far a job is: counted from the engine's events, shown while it runs.

On a terminal a bar that is redrawn in place; elsewhere a line now and then.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from batch_transform_cli.screen import can_redraw, counted, size

_REDRAW_S = 0.1
_LINE_S = 10.0
_BAR_WIDTH = 40
FAILURES_KEPT = 1000


@dataclass(frozen=True, slots=True)
class Failure:
    """An object without output, and why."""

    name: str
    reason: str


class Progress:
    """Counts what became of the objects of a job; events may come from several threads.

    :param names: what a person calls the objects, by key.
    :param sizes: how large they are, by key, if that is known.
    """

    def __init__(
        self,
        phase: str,
        names: Mapping[str, str],
        sizes: Mapping[str, int],
        *,
        total: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.phase = phase
        self.total = total
        self.done = self.failed = self.bytes = self.instances = 0
        self.records: int | None = None
        self.records_estimated = False
        self.failures: list[Failure] = []
        self.settings: Mapping[str, Any] = {}
        self._names = names
        self._sizes = sizes
        self._total_bytes = sum(sizes.values()) if len(sizes) == total else 0
        self.clock = clock
        self._lock = threading.Lock()
        # Bytes and records of objects that have not ended, by instance.
        self._unfinished: dict[str, tuple[int, int]] = {}
        self._begun: float | None = None

    def begin(self, phase: str) -> None:
        """Count the time from now: what went before was preparation."""
        self.phase = phase
        self._begun = self.clock()

    @property
    def is_begun(self) -> bool:
        """Whether objects are being worked at."""
        return self._begun is not None

    @property
    def seconds(self) -> float:
        """The time since it began."""
        return 0.0 if self._begun is None else self.clock() - self._begun

    @property
    def ended(self) -> int:
        """How many objects are done with, well or not."""
        return self.done + self.failed

    @property
    def fraction(self) -> float:
        """How much is done: of the bytes if their number is known, else of the objects."""
        if self._total_bytes:
            return min(1.0, self.bytes_read / self._total_bytes)
        return self.ended / (self.total or 1)

    @property
    def bytes_read(self) -> int:
        """How many bytes are read, also of objects that have not ended."""
        return self.bytes + sum(size for size, _ in self._unfinished.values())

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Take an event of the engine."""
        with self._lock:
            if event["event"] == "started":
                self.instances += 1
                self.settings = self.settings or {
                    name: value for name, value in event.items() if name[0].isupper()
                }
                if self._begun is None:
                    self.begin("transforming")
            elif event["event"] == "progress":
                self._unfinished[event["instance_id"]] = event["bytes"], event["records"]
            elif event["event"] == "object":
                # What it had is counted as done now, until the instance tells anew.
                self._unfinished.pop(event.get("instance_id", ""), None)
                key = event["key"]
                self.records_estimated |= event.get("records_estimated", False)
                self.count(
                    self._names.get(key, key),
                    event.get("bytes", self._sizes.get(key, 0)),
                    event.get("records"),
                    problem=None if event["ok"] else event["reason"],
                )

    def count(self, name: str, read_bytes: int, records: int | None, problem: str | None) -> None:
        """Count an object."""
        self.bytes += read_bytes
        if records is not None:
            self.records = (self.records or 0) + records
        if problem is None:
            self.done += 1
        else:
            self.failed += 1
            if len(self.failures) < FAILURES_KEPT:
                self.failures.append(Failure(name, problem))

    @property
    def records_told(self) -> list[str]:
        """How many records that are, if the engine tells; lines sent together it estimates."""
        unfinished = sum(records for _, records in self._unfinished.values())
        if self.records is None and not unfinished:
            return []
        records = (self.records or 0) + unfinished
        # Only an object that has ended says whether its records were counted.
        about = "about " if self.records_estimated or unfinished else ""
        return [f"{about}{counted(records, 'record')}"]

    @property
    def line(self) -> str:
        """How far it is, in a line."""
        if self._begun is None:
            return self.phase
        seconds, fraction = self.seconds, self.fraction
        said = [f"{self.ended:,} of {counted(self.total, 'object')}"]
        if self.failed:
            said.append(f"{self.failed:,} failed")
        said += self.records_told
        if seconds:
            said.append(f"{size(self.bytes_read / seconds)}/s")
        if fraction:
            said.append(f"{clock_time(seconds / fraction - seconds)} left")
        return ", ".join(said)

    @property
    def picture(self) -> RenderableType:
        """How far it is, for a terminal."""
        if self._begun is None:
            return bar(self.phase, None, at=self.clock())
        return bar(self.phase, self.fraction, self.line, at=self.clock())


def bar(phase: str, fraction: float | None, *lines: str, at: float) -> RenderableType:
    """Return a bar with its percentage, and lines below it.

    :param fraction: how much is done; `None` before that can be said.
    :param at: the time in seconds, by which the bar moves that can say nothing.
    """
    picture = ProgressBar(
        total=1,
        completed=fraction or 0,
        width=_BAR_WIDTH,
        pulse=fraction is None,
        animation_time=at,
    )
    row = Table.grid(padding=(0, 1))
    row.add_row(Text(phase, style="bold"), picture, "" if fraction is None else f"{fraction:.0%}")
    return Padding(Group(row, *map(Text, lines)), (0, 0, 0, 2))


def clock_time(seconds: float) -> str:
    """Return a time as minutes and seconds, with hours when there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Shown(Protocol):
    """What can be shown while it goes on."""

    clock: Callable[[], float]

    @property
    def line(self) -> str:
        """How far it is, in a line."""

    @property
    def picture(self) -> RenderableType:
        """How far it is, for a terminal."""


@contextmanager
def shown(progress: Shown, console: Console) -> Iterator[Callable[[], None]]:
    """Give what shows the progress, as often as you call it but not more often than helps."""
    last = progress.clock()
    redraws = can_redraw(console)
    with Live(console=console, auto_refresh=False, transient=True) as live:

        def show() -> None:
            nonlocal last
            now = progress.clock()
            if redraws:
                if now - last >= _REDRAW_S:
                    last = now
                    live.update(progress.picture, refresh=True)
            elif now - last >= _LINE_S:
                last = now
                console.print(progress.line, soft_wrap=True, highlight=False)

        yield show
