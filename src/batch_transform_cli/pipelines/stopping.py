"""Stops a run in flight: its execution is aborted, and all else follows from that.

Step Functions stops the transform job that the execution waits for. The execution's end wakes
dispatch, which has settle look at what is there, as after any other run that died.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from batch_transform_cli.cloud import Cloud
from batch_transform_cli.errors import CommandError
from batch_transform_cli.pipelines.client import PipelineClient
from batch_transform_cli.pipelines.details import jobs_of, run_named
from batch_transform_cli.pipelines.records import Run
from batch_transform_cli.screen import counted

_CAUSE = "batch-transform stop"
_ENDED_JOBS = ("Completed", "Failed", "Stopped")


@dataclass(frozen=True, kw_only=True, slots=True)
class Stop:
    """What a stop of a run does.

    :ivar outputs: how many objects the run's newest step has written so far.
    :ivar jobs: the names of its transform jobs that have not ended.
    """

    pipeline_id: str
    run: Run
    execution_arn: str
    outputs: int
    jobs: Sequence[str]

    def to_dict(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "pipeline": self.pipeline_id,
            "run_id": self.run.run_id,
            "execution": self.execution_arn,
            "drops": self.run.drops,
            "outputs": self.outputs,
            "jobs": list(self.jobs),
        }

    def lines(self) -> Iterator[str]:
        """Yield what it does, for somebody who is to confirm it."""
        jobs = f"in progress: {', '.join(self.jobs)}" if self.jobs else "no job in progress"
        yield (
            f"run {self.run.run_id} of pipeline {self.pipeline_id}: "
            f"{counted(self.run.drops, 'drop')}, {counted(self.outputs, 'output')} so far, {jobs}"
        )
        yield (
            "- its execution is aborted, and its job with it, whose time so far is billed; "
            "a stopped job leaves no output"
        )
        yield (
            "- its drops wait again, for a run that may begin at once: it costs another job, and "
            "one of their attempts; a drop without any left fails"
        )


def plan(cloud: Cloud, client: PipelineClient, run_id: str) -> Stop:
    """Return what a stop of the run would do.

    :raises CommandError: there is no such run, or nothing of it can be stopped.
    """
    run = run_named(client, run_id)
    if run.outcome:
        raise CommandError(
            f"the run must be in flight, got {run_id}, which is settled: {run.outcome}; "
            "there is nothing to stop"
        )
    if run.finishes or (run.is_running and not _is_running(cloud, client, run_id)):
        raise CommandError(
            f"the run must be in flight, got {run_id}, whose execution has ended and which is "
            "being settled; there is nothing to stop"
        )
    if not run.is_running:
        raise CommandError(
            f"the run's execution must have begun, got {run_id}, which is {run.status}; "
            "try again in a moment"
        )
    return Stop(
        pipeline_id=client.pipeline_id,
        run=run,
        execution_arn=client.execution_arn(run_id),
        outputs=client.outputs_of(run),
        jobs=[job.name for job in jobs_of(cloud, run) if job.status not in _ENDED_JOBS],
    )


def _is_running(cloud: Cloud, client: PipelineClient, run_id: str) -> bool:
    told = cloud.client("stepfunctions").describe_execution(
        executionArn=client.execution_arn(run_id)
    )
    return bool(told["status"] == "RUNNING")


def stop(cloud: Cloud, planned: Stop) -> None:
    """Abort the run's execution."""
    cloud.client("stepfunctions").stop_execution(
        executionArn=planned.execution_arn, error="Stopped", cause=_CAUSE
    )
