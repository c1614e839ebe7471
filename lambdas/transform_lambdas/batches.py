"""When waiting drops become a batch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from transform_lambdas import clock
from transform_lambdas.drops import Drop


@dataclass(frozen=True, slots=True)
class Waiting:
    """A drop in the queue.

    :ivar since: when it began to wait.
    :ivar group: with whom it is to be tried, apart from all others; see `halves`.
    :ivar first_returned_at: when a run first gave it back, if one did.
    """

    drop: Drop
    since: str
    group: str = ""
    first_returned_at: str = ""


def generation(group: str) -> int:
    """Return how often the batch that a group comes from was halved."""
    return int(group.partition("#")[0]) if group else 0


def halves(run_id: str, keys: Sequence[str], *, of: int) -> dict[str, str]:
    """Return the group in which each key is tried again; asked twice, it says the same.

    :param keys: what a run has left without output, in an order that does not change.
    :param of: the generation of that run.
    """
    middle = (len(keys) + 1) // 2
    return {key: f"{of + 1:02}#{run_id}{'ab'[rank >= middle]}" for rank, key in enumerate(keys)}


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

    def cut_apart(self, waiting: Iterable[Waiting]) -> "Batch":
        """Take a group that is to be tried apart from all others; it is due now.

        The larger groups come first: if both halves of a batch have run before a quarter does, one
        bad drop cannot make it look as if the model were broken.

        :param waiting: at least one.
        """
        entries = sorted(waiting, key=lambda entry: (generation(entry.group), entry.since))
        first = entries[0].group
        group = [entry for entry in entries if entry.group == first]
        returned_at = max(entry.first_returned_at for entry in group)
        return replace(self.cut(group), full=True, returned_at=returned_at)

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
    :ivar returned_at: when a run first gave one of them back, if they are to be tried apart.
    :ivar full: whether a limit other than time was reached.
    """

    drops: tuple[Drop, ...]
    size_bytes: int
    since: str | None
    full: bool
    returned_at: str | None = None
