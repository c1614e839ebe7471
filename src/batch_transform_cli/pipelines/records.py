"""What a pipeline remembers: drops and runs, as the ledger has them, and predictions.

The one module here that knows the ledger's items; their owner is `transform_lambdas.ledger`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

OPEN_DROPS = ("waiting", "claimed")
SLOT_RUNS = ("claiming", "claimed", "running")
OPEN_RUNS = (*SLOT_RUNS, "settled")


@dataclass(frozen=True, kw_only=True, slots=True)
class Drop:
    """One version of one uploaded object, as the ledger knows it.

    :ivar waiting_since: when it began to wait, or to wait again; empty if it does not wait.
    :ivar failed_at: when it was given up; empty if it was not.
    :ivar ended_at: when it was done, given up or superseded; empty if it can still change.
    :ivar output_key: of its predictions, in the output bucket; empty if it is not done.
    """

    key: str
    status: str
    size: int
    attempts: int
    run_id: str
    dropped_at: str
    reason: str
    order: str
    waiting_since: str
    failed_at: str
    ended_at: str = ""
    output_key: str = ""
    etag: str = ""
    version_id: str = ""

    @property
    def is_open(self) -> bool:
        """Whether it can still change."""
        return self.status in OPEN_DROPS


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One batch on its way, as the ledger knows it.

    :ivar execution: the name of the execution that has it now; empty while it claims its drops.
    :ivar finishes: how many executions were to end it after its own had died.
    """

    run_id: str
    status: str
    drops: int
    outcome: str
    done: int
    failed: int
    waiting: int
    opened_at: str
    ended_at: str
    execution: str = ""
    finishes: int = 0

    @property
    def is_open(self) -> bool:
        """Whether it can still change."""
        return self.status in OPEN_RUNS

    @property
    def is_running(self) -> bool:
        """Whether its execution has begun and its drops are not settled."""
        return self.status == "running"

    @property
    def has_slot(self) -> bool:
        """Whether it keeps another run from beginning."""
        return self.status in SLOT_RUNS

    def took_s(self, now: datetime) -> int:
        """Return for how many seconds it was open, or has been."""
        ended = datetime.fromisoformat(self.ended_at) if self.ended_at else now
        return max(0, round((ended - datetime.fromisoformat(self.opened_at)).total_seconds()))


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """All drops and runs of a pipeline at one moment, the oldest first."""

    drops: list[Drop]
    runs: list[Run]


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """How far a pipeline is behind, and with how much at once it works.

    :ivar oldest_waiting_s: for how many seconds the drop waits that waits longest.
    :ivar slots: how many runs may be in flight.
    :ivar running_jobs: transform jobs; fewer than runs when the account's quota is reached.
    """

    waiting: int
    oldest_waiting_s: int
    slots: int
    slots_free: int
    running_jobs: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """What the pipeline last said of one id."""

    record_id: str
    prediction: Any
    dropped_at: str
    source_key: str
    run_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class LogLine:
    """What a model server or an agent said.

    :ivar at: in UTC.
    :ivar stream: job and instance, and container if there are several.
    """

    at: str
    stream: str
    message: str


def drop_of(item: Mapping[str, Any]) -> Drop:
    """Read the ledger's item."""
    return Drop(
        key=item["object_key"],
        status=item["drop_status"],
        size=int(item["size"]),
        attempts=int(item["attempts"]),
        run_id=item.get("run_id", ""),
        dropped_at=item["dropped_at"],
        reason=item.get("reason", ""),
        order=item["ordering"],
        waiting_since=item.get("due", ""),
        failed_at=item.get("ended_at", "") if item["drop_status"] == "failed" else "",
        ended_at=item.get("ended_at", ""),
        output_key=item.get("prediction_key", ""),
        etag=item["etag"],
        version_id=item["version_id"],
    )


def run_of(item: Mapping[str, Any]) -> Run:
    """Read the ledger's item."""
    result = item.get("result", {})
    counts = result.get("counts", {})
    return Run(
        run_id=item["run_id"],
        status=item["run_status"],
        drops=int(item.get("drops", 0)),
        outcome=result.get("outcome", ""),
        done=int(counts.get("done", 0)),
        failed=int(counts.get("failed", 0)),
        waiting=int(counts.get("waiting", 0)),
        opened_at=item["opened_at"],
        ended_at=item.get("closed_at", ""),
        execution=item.get("execution", ""),
        finishes=int(item.get("finishes", 0)),
    )


def prediction_of(entry: Mapping[str, Any]) -> Prediction:
    """Read what the lookup API tells of one."""
    return Prediction(
        record_id=entry["id"],
        prediction=entry["prediction"],
        dropped_at=entry["dropped_at"],
        source_key=entry["source_key"],
        run_id=entry["run_id"],
    )
