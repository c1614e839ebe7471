"""When waiting drops become a batch."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from transform_lambdas import clock
from transform_lambdas.drops import Drop


@dataclass(frozen=True, slots=True)
class Waiting:
    """A drop in the queue, and since when it waits."""

    drop: Drop
    since: str


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """A batch is due when one of these is reached, or when a marker object has arrived."""

    max_wait_s: float
    max_objects: int
    max_bytes: int

    def cut(self, waiting: Iterable[Waiting]) -> "Batch":
        """Take the oldest drops up to the limits, one version of a key: the newest of those met.

        :param waiting: oldest first. A drop that alone is over `max_bytes` is a batch of its own.
        """
        taken: dict[str, Waiting] = {}
        total = 0
        full = False
        for entry in waiting:
            if entry.drop.key in taken:
                other = taken[entry.drop.key]
                if other.drop.order < entry.drop.order:
                    taken[entry.drop.key] = entry
                    total += entry.drop.size - other.drop.size
                continue
            if taken and total + entry.drop.size > self.max_bytes:
                full = True
                break
            taken[entry.drop.key] = entry
            total += entry.drop.size
            if len(taken) >= self.max_objects or total >= self.max_bytes:
                full = True
                break
        since = min((entry.since for entry in taken.values()), default=None)
        return Batch(tuple(entry.drop for entry in taken.values()), total, since, full)

    def wait_left_s(self, batch: "Batch", *, now: datetime, marked_at: str | None) -> float:
        """Return 0 when the batch is due, else the seconds until it will be."""
        if batch.since is None:
            raise ValueError("a batch must hold a drop to become due, got none; ask for others")
        if batch.full or (marked_at is not None and marked_at >= batch.since):
            return 0
        due = clock.from_text(batch.since) + timedelta(seconds=self.max_wait_s)
        return max(0.0, (due - now).total_seconds())


@dataclass(frozen=True, slots=True)
class Batch:
    """The drops that one run is to score.

    :ivar since: when its oldest drop began to wait; `None` when there is none.
    :ivar full: whether a limit other than time was reached.
    """

    drops: tuple[Drop, ...]
    size_bytes: int
    since: str | None
    full: bool
