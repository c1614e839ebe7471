"""The state machine's task `sagemaker:createTransformJob`, with and without `.sync`."""

import json
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from local_cloud import api_input, emulator
from local_cloud.refusals import MODELLED, Refusal
from local_cloud.transform_jobs import TransformJobs

RESOURCE = "arn:aws:states:::sagemaker:createTransformJob"
_LOOK_S = 1.0
_TIMES = ("CreationTime", "TransformStartTime", "TransformEndTime")
_MARK = {"Key": "MANAGED_BY_AWS", "Value": "STARTED_BY_STEP_FUNCTIONS"}

abandoned: ContextVar[Callable[[], bool]] = ContextVar("abandoned", default=lambda: False)
"""Tells whether nobody waits for this task any more: its execution was stopped, or it timed out."""


def plug_in(jobs: TransformJobs) -> None:
    """Let state machines run transform jobs of that service."""

    def run(resource: str, arguments: dict[str, Any]) -> dict[str, Any]:
        # SageMaker itself ignores what it does not know; Step Functions does not (reference §8).
        unknown = api_input.unknown_member("CreateTransformJob", arguments)
        if unknown is not None:
            raise emulator.task_error(
                "States.Runtime", f'The field "{unknown}" is not supported by Step Functions'
            )
        request = {**arguments, "Tags": [*arguments.get("Tags", []), _MARK]}
        status, answer = emulator.call("sagemaker", "SageMaker.CreateTransformJob", request)
        if status != 200:
            raise emulator.task_error(_error_name(answer["__type"]), answer["message"])
        if not resource.endswith(".sync"):
            return answer
        return _wait(jobs, arguments["TransformJobName"])

    emulator.add_task(RESOURCE, run)


def _wait(jobs: TransformJobs, name: str) -> dict[str, Any]:
    nobody_waits = abandoned.get()
    while (status := jobs.wait(name, limit_s=_LOOK_S)) in ("InProgress", "Stopping"):
        if nobody_waits() and status == "InProgress":
            _stop(jobs, name)
    job = jobs.describe({"TransformJobName": name})
    # Step Functions writes the times of its results as milliseconds.
    described = job | {member: round(job[member] * 1000) for member in _TIMES if member in job}
    if status != "Completed":
        raise emulator.task_error("States.TaskFailed", json.dumps(described))
    return described


def _stop(jobs: TransformJobs, name: str) -> None:
    try:
        jobs.stop({"TransformJobName": name})
    except Refusal:
        pass  # It ended by itself in this moment.


def _error_name(code: str) -> str:
    """Name a refusal as Step Functions does: the Java class of the error (reference §8)."""
    return (
        f"SageMaker.{code}Exception" if code in MODELLED else "SageMaker.AmazonSageMakerException"
    )
