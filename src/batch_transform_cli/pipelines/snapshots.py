"""How pipelines are at one moment: one of them, or all that there are beside each other."""

import dataclasses
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from batch_transform_cli.cloud import Cloud
from batch_transform_cli.errors import CommandError
from batch_transform_cli.outside import AWS_ERRORS, one_line
from batch_transform_cli.pipelines.client import PipelineClient, jobs_in_progress
from batch_transform_cli.pipelines.records import Drop, Load, Run, Status
from batch_transform_cli.pipelines.redrive import choose

_AT_ONCE = 8


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One pipeline at one moment.

    :ivar outputs: how many objects the newest step of each run in flight has written, by run id.
    """

    pipeline_id: str
    status: Status
    load: Load
    outputs: Mapping[str, int]

    @classmethod
    def of(cls, client: PipelineClient, *, jobs: Sequence[str] | None = None) -> "Snapshot":
        """Look at a pipeline now.

        :param jobs: the names of transform jobs in progress. Default: SageMaker is asked.
        """
        status = client.status()
        return cls(
            pipeline_id=client.pipeline_id,
            status=status,
            load=client.load(status, now=datetime.now(UTC), jobs=jobs),
            outputs={run.run_id: client.outputs_of(run) for run in status.runs if run.is_running},
        )

    @property
    def running(self) -> list[Run]:
        """The runs whose jobs have begun, the oldest first."""
        return [run for run in self.status.runs if run.is_running]

    @cached_property  # a sort of the whole ledger, which several parts of a picture ask for
    def failures(self) -> list[Drop]:
        """What was given up and has no newer version, in the order in which it failed."""
        return choose(self.status.drops).drops

    @property
    def last_run(self) -> Run | None:
        """The newest run that has an outcome."""
        return next((run for run in reversed(self.status.runs) if run.outcome), None)

    @property
    def progress(self) -> list[dict[str, Any]]:
        """How far each run in flight is, for programs."""
        return [
            {"run_id": run.run_id, "drops": run.drops, "outputs": self.outputs[run.run_id]}
            for run in self.running
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return all of it for programs."""
        return {
            "pipeline": self.pipeline_id,
            "load": dataclasses.asdict(self.load),
            "running": self.progress,
            **dataclasses.asdict(self.status),
        }

    def summary(self) -> dict[str, Any]:
        """Return a row of the table of all pipelines, for programs."""
        failures, last_run = self.failures, self.last_run
        return {
            "pipeline": self.pipeline_id,
            "load": dataclasses.asdict(self.load),
            "running": self.progress,
            "failed": len(failures),
            "last_failed": dataclasses.asdict(failures[-1]) if failures else None,
            "last_run": dataclasses.asdict(last_run) if last_run else None,
            "problem": None,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Unreadable:
    """A pipeline that could not be looked at, and why."""

    pipeline_id: str
    problem: str

    def summary(self) -> dict[str, Any]:
        """Return a row of the table of all pipelines, for programs: with nothing but the reason."""
        nothing = dict.fromkeys(("load", "running", "failed", "last_failed", "last_run"))
        return {"pipeline": self.pipeline_id, **nothing, "problem": self.problem}


Seen = Sequence[Snapshot | Unreadable]


def look_at_all(cloud: Cloud, clients: Sequence[PipelineClient]) -> Seen:
    """Look at several pipelines, some at once; SageMaker is asked once for the jobs of all."""
    jobs = jobs_in_progress(cloud)

    def look_at(client: PipelineClient) -> Snapshot | Unreadable:
        try:
            return Snapshot.of(client, jobs=jobs)
        except CommandError as error:
            return Unreadable(pipeline_id=client.pipeline_id, problem=str(error))
        except AWS_ERRORS as error:
            # One of fifty that is being deleted, or is not for this role, hides no other.
            return Unreadable(pipeline_id=client.pipeline_id, problem=one_line(error))

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return list(threads.map(look_at, clients))


def document(seen: Seen, *, rows: bool) -> dict[str, Any]:
    """Return it for programs: a row for each pipeline, or all of the one that was looked at."""
    if rows:
        return {"pipelines": [each.summary() for each in seen]}
    return next(each.to_dict() for each in seen if isinstance(each, Snapshot))
