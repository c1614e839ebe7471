"""One seed, one order of events: processes that take turns at their calls, on one clock."""

import heapq
import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from botocore.exceptions import ClientError
from greenlet import getcurrent, greenlet

_START = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Killed(BaseException):
    """The process is dead: nothing after this runs, and no `except Exception` sees it."""


class Process:
    """A Lambda's invocation, an execution or a job: runs from one call to the next."""

    def __init__(self, run: Callable[[], Any], hub: greenlet) -> None:
        self._greenlet = greenlet(run, parent=hub)
        self.is_killed = False

    def kill(self) -> None:
        """Let its next call be its last, and not be made."""
        self.is_killed = True

    def resume(self) -> None:
        """Go on until the next call."""
        self._greenlet.switch()


class Scheduler:
    """Time passes only from event to event, so a day takes milliseconds and a seed repeats it."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now_s = 0.0
        self.steps = 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._hub = getcurrent()
        self._current: Process | None = None

    def moment(self, skew_s: float = 0.0) -> datetime:
        """Return what a clock shows that is so many seconds fast."""
        return _START + timedelta(seconds=self.now_s + skew_s)

    def after(self, delay_s: float, do: Callable[[], None]) -> None:
        """Do something later."""
        heapq.heappush(self._events, (self.now_s + delay_s, next(self._numbers), do))

    def spawn(
        self,
        run: Callable[[], Any],
        *,
        on_end: Callable[[Any, BaseException | None], None] = lambda result, error: None,
        delay_s: float = 0.0,
    ) -> Process:
        """Begin a process; `on_end` is told what it returned, or what it died of."""

        def body() -> None:
            result, died = None, None
            try:
                result = run()
            except (ClientError, TimeoutError, Killed) as error:
                died = error  # All else is a mistake in a program, and ends the simulation.
            # Told from outside, where nothing can be switched to by mistake.
            self.after(0, lambda: on_end(result, died))

        process = Process(body, self._hub)
        self.after(delay_s, lambda: self._resume(process))
        return process

    def pause(self, seconds: float) -> None:
        """Let a process wait while others go on.

        :raises Killed: it was killed meanwhile.
        """
        process = self._current
        assert process is not None, "only a process can wait"
        self.after(seconds, lambda: self._resume(process))
        self._hub.switch()
        if process.is_killed:
            raise Killed

    def run(self, *, until_s: float, is_over: Callable[[], bool]) -> bool:
        """Let things happen until they are over or the time is; return whether they are over."""
        while self._events:
            if is_over():
                return True
            at, _, do = heapq.heappop(self._events)
            if at > until_s:
                return False
            self.now_s = max(self.now_s, at)
            self.steps += 1
            do()
        return is_over()

    def _resume(self, process: Process) -> None:
        before, self._current = self._current, process
        process.resume()
        self._current = before
