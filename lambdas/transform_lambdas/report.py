"""What an auditor asks of a run: its drops, jobs, models, records, bytes and errors.

docs/reports.md has the form. A settlement that is repeated writes the same again, so all here is
from the ledger, the run's files and jobs that have ended, and no time is that of the writing.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transform_lambdas import clock
from transform_lambdas.drops import Drop
from transform_lambdas.ledger import DONE, FAILED, SUPERSEDED, WAITING, Entry
from transform_lambdas.outcomes import Missing
from transform_lambdas.record_counts import Compared
from transform_lambdas.transform_jobs import Job

VERSION = 1

# Not Environment: who may read predictions need not see it.
_SETTINGS = (
    "BatchStrategy",
    "DataCaptureConfig",
    "DataProcessing",
    "ExperimentConfig",
    "MaxConcurrentTransforms",
    "MaxPayloadInMB",
    "ModelClientConfig",
    "TransformInput",
    "TransformOutput",
    "TransformResources",
)


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a drop in the run.

    :ivar entry: where it stands in the ledger, if the run has ended it, or has it still.
    :ivar output: the key of its predictions and their bytes, which are there if it is done.
    """

    drop: Drop
    entry: Entry | None
    output: tuple[str, int]
    records: Compared
    missing: Missing | None

    @property
    def status(self) -> str:
        """How the run has left it; what it has not ended waits for another one."""
        ended = self.entry is not None and self.entry.status in (DONE, FAILED, SUPERSEDED)
        return self.entry.status if self.entry is not None and ended else WAITING

    @property
    def kind(self) -> str | None:
        """The kind of failure that it met, if it met one."""
        lost = self.status in (FAILED, WAITING) and self.missing is not None
        return self.missing.kind.name if self.missing is not None and lost else None

    @property
    def reason(self) -> str | None:
        """Why it is not done."""
        if self.entry is not None and self.entry.reason and self.status != DONE:
            return self.entry.reason
        return self.missing.reason if self.missing is not None and self.kind else None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values: a line of the report's drops."""
        key, size = self.output if self.status == DONE else (None, None)
        return {
            "key": self.drop.key,
            "version_id": self.drop.version_id or None,
            "etag": self.drop.etag,
            "dropped_at": self.drop.dropped_at,
            "bytes": self.drop.size,
            "status": self.status,
            "attempts": None if self.entry is None else self.entry.attempts,
            "output_key": key,
            "output_bytes": size,
            "records_in": self.records.records_in,
            "records_out": self.records.records_out,
            "not_compared": self.records.not_compared or None,
            "kind": self.kind,
            "reason": self.reason,
        }


def totals(fates: Sequence[Fate], jobs: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return the sums of a run; outputs and records are those of drops that are done."""
    done = [fate for fate in fates if fate.status == DONE]
    counted = [fate for fate in done if fate.records.records_out is not None]
    return {
        "drops": len(fates),
        "bytes_in": sum(fate.drop.size for fate in fates),
        "bytes_out": sum(fate.output[1] for fate in done),
        "records_in": sum(fate.records.records_in or 0 for fate in counted),
        "records_out": sum(fate.records.records_out or 0 for fate in counted),
        "drops_counted": len(counted),
        "jobs": len(jobs),
        "retries": len(jobs) - len({job["step"] for job in jobs}),
        "billable_seconds": sum(job["billable_seconds"] or 0 for job in jobs),
    }


def errors(fates: Iterable[Fate]) -> dict[str, dict[str, Any]]:
    """Return by kind how many drops have met a failure, and the reason of the first of them."""
    met = [fate for fate in fates if fate.kind]
    counts = Counter(fate.kind for fate in met)
    examples = {fate.kind: fate.reason for fate in reversed(met)}
    return {
        str(kind): {"drops": count, "example": examples[kind]}
        for kind, count in counts.most_common()
    }


def job_of(job: Job, described: Mapping[str, Any], *, step: str) -> dict[str, Any]:
    """Return what the report says of a job.

    :param described: what DescribeTransformJob tells; empty for one that was not asked for.
    """
    resources = described.get("TransformResources", {})
    started, ended = described.get("TransformStartTime"), described.get("TransformEndTime")
    seconds = None
    if started and ended:
        seconds = round((ended - started).total_seconds()) * resources.get("InstanceCount", 1)
    return {
        "name": job.name,
        "step": step,
        "status": job.status,
        "failure_reason": job.failure_reason or None,
        "created_at": _text(described.get("CreationTime")),
        "started_at": _text(started),
        "ended_at": _text(ended),
        "billable_seconds": seconds,
        "instance_type": resources.get("InstanceType"),
        "instance_count": resources.get("InstanceCount"),
        "model": described.get("ModelName"),
        "settings": {name: described[name] for name in _SETTINGS if name in described},
    }


def model_of(described: Mapping[str, Any] | str) -> dict[str, Any]:
    """Return what the report says of a model: as DescribeModel tells it, or why it does not."""
    unknown = described if isinstance(described, str) else None
    told: Mapping[str, Any] = {} if isinstance(described, str) else described
    containers = told.get("Containers") or [told.get("PrimaryContainer", {})]
    return {
        "arn": told.get("ModelArn"),
        "created_at": _text(told.get("CreationTime")),
        "role": told.get("ExecutionRoleArn"),
        "containers": [
            {"image": each.get("Image"), "model_data_url": each.get("ModelDataUrl")}
            for each in containers
            if each
        ],
        "unknown": unknown,
    }


def _text(moment: Any) -> str | None:
    return None if moment is None else clock.to_text(moment)
