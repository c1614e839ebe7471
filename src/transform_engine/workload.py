"""The objects of an instance: a few are open at a time, and their payloads go out in order."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from transform_engine.errors import ObjectFailed
from transform_engine.http_client import HttpClient
from transform_engine.lanes import Lanes
from transform_engine.object_run import Job, ObjectRun, window
from transform_engine.objects import Task
from transform_engine.packing import Payload
from transform_engine.records import Recipe
from transform_engine.settings import Settings
from transform_engine.storage import Output, Storage


class Workload:
    """Transforms objects.

    :param output_of: begins an object's output.
    :param ending: how many objects may wait for their output, besides those that are read and sent.
    :param on_end: called for each object with why it failed or None; its errors end `run`.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        *,
        recipe: Recipe,
        settings: Settings,
        storage: Storage,
        clients: Sequence[HttpClient],
        output_of: Callable[[Task], Output],
        ending: int,
        on_end: Callable[[ObjectRun, ObjectFailed | None], None],
    ) -> None:
        self._left: Iterator[Task] = iter(tasks)
        self._output_of = output_of
        self._on_end = on_end
        self._open: deque[ObjectRun] = deque()  # Those that may give a payload.
        self._unfinished: set[ObjectRun] = set()
        self._at_once = settings.max_concurrent
        self._unfinished_at_most = settings.max_concurrent + ending
        self._ended: asyncio.Future[None] | None = None
        self._lanes = Lanes(clients, settings, take=self._take, broke=self.broke)
        self._job = Job(
            recipe=recipe,
            settings=settings,
            storage=storage,
            lanes=self._lanes,
            window=window(settings, recipe),
            on_end=self._object_ended,
        )

    async def run(self) -> None:
        """Return when every object has ended; whatever nobody foresaw is raised."""
        self._ended = asyncio.get_running_loop().create_future()
        try:
            self._lanes.wake()
            await self._ended
        finally:
            self._lanes.close()
            for run in self._unfinished:
                run.close()
            # An upload that is given up takes a moment until nothing of it is left.
            await asyncio.gather(*(run.wait_closed() for run in self._unfinished))

    @property
    def unfinished(self) -> tuple[int, int]:
        """How many bytes are read, and records scored, of objects that have not ended."""
        runs = self._unfinished
        return sum(run.bytes_read for run in runs), sum(run.records for run in runs)

    def broke(self, error: Exception) -> None:
        """End `run` with an error that nobody foresaw."""
        if self._ended is not None and not self._ended.done():
            self._ended.set_exception(error)

    def _take(self) -> tuple[ObjectRun, Payload] | None:
        for run in [*self._open]:
            payload = run.take()
            if payload is not None:
                return run, payload
            if run.all_taken and run in self._open:
                self._open.remove(run)
        # As many objects as lanes, for each may be one request.
        while len(self._open) < self._at_once and len(self._unfinished) < self._unfinished_at_most:
            task = next(self._left, None)
            if task is None:
                break
            run = ObjectRun(task, self._output_of(task), self._job)
            self._unfinished.add(run)
            payload = run.take()
            if not run.all_taken:
                self._open.append(run)
            if payload is not None:
                return run, payload
        if not self._unfinished and self._ended is not None and not self._ended.done():
            self._ended.set_result(None)
        return None

    def _object_ended(self, run: ObjectRun, failure: ObjectFailed | None) -> None:
        self._unfinished.discard(run)
        if run in self._open:
            self._open.remove(run)
        try:
            self._on_end(run, failure)
        except Exception as error:
            self.broke(error)
        self._lanes.wake_soon()  # There is room for another one, or all is done.
