"""Stops what runs when the pipeline is deleted, for CloudFormation deletes no transform job.

Step Functions keeps a deleted state machine until its executions end, which wait for jobs, and
SageMaker bills a job until it ends. So this is asked before the state machine goes, and after all
that could start a run. It never fails a deletion, and holds one up for a minute at most.
"""

import json
import logging
import os
import re
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

_LIMIT_S = 60
_PAUSE_S = 5  # a job that was asked for just before its execution ended shows by then
_QUIET_LOOKS = 2
_ANSWER_TRIES = 3
_ANSWER_LIMIT_S = 10

logger = logging.getLogger(__name__)


class Deletion:
    """Finds and stops the executions and the jobs of one pipeline."""

    def __init__(
        self, *, pipeline_id: str, state_machine_arn: str, states: Any, sagemaker: Any
    ) -> None:
        self._state_machine_arn = state_machine_arn
        self._states = states
        self._sagemaker = sagemaker
        self._prefix = f"{pipeline_id}-"
        # Another pipeline's id may begin like this one's.
        self._job_name = re.compile(
            rf"{re.escape(pipeline_id)}-\d{{8}}t\d{{6}}-[0-9a-f]{{6}}-s\d+-\d+"
        )

    def stop_all(self) -> bool:
        """Stop until nothing new shows any more; return whether that came in time.

        It waits for no job's end: one that is `Stopping` needs nothing more.
        """
        quiet = 0
        deadline = time.monotonic() + _LIMIT_S
        while time.monotonic() < deadline:
            quiet = quiet + 1 if self._look() else 0
            if quiet == _QUIET_LOOKS:
                return True
            time.sleep(_PAUSE_S)
        return False

    def _look(self) -> bool:
        """Stop what runs now; return whether that was nothing."""
        try:
            # Executions first: one whose job was stopped would go on, and might create another.
            executions = list(self._executions())
            for arn in executions:
                _stop(self._states.stop_execution, executionArn=arn)
            jobs = list(self._jobs())
            for name in jobs:
                _stop(self._sagemaker.stop_transform_job, TransformJobName=name)
        except (BotoCoreError, ClientError):
            logger.exception("what runs must be found, and was not; looking again")
            return False
        logger.info("stopped: %s", executions + jobs or "nothing")
        return not (executions or jobs)

    def _executions(self) -> Iterator[str]:
        pages = self._states.get_paginator("list_executions").paginate(
            stateMachineArn=self._state_machine_arn, statusFilter="RUNNING"
        )
        for page in pages:
            for execution in page["executions"]:
                yield execution["executionArn"]

    def _jobs(self) -> Iterator[str]:
        pages = self._sagemaker.get_paginator("list_transform_jobs").paginate(
            NameContains=self._prefix, StatusEquals="InProgress"
        )
        for page in pages:
            for summary in page["TransformJobSummaries"]:
                if self._job_name.fullmatch(summary["TransformJobName"]):
                    yield summary["TransformJobName"]


def _stop(call: Callable[..., Any], **what: str) -> None:
    try:
        call(**what)
    except ClientError as error:
        # It has ended by itself, most likely; if it has not, the next look finds it again.
        logger.warning("%s was not stopped: %s", what, error)


def respond(request: Mapping[str, Any]) -> None:
    """Tell CloudFormation that it may go on, which it waits for.

    :raises OSError: it cannot be told; Lambda then does all of this once more.
    """
    answer = {
        "Status": "SUCCESS",
        # The same for ever: another one would make of an update a deletion of what was before.
        "PhysicalResourceId": request.get("PhysicalResourceId", request["LogicalResourceId"]),
        **{name: request[name] for name in ("StackId", "RequestId", "LogicalResourceId")},
    }
    call = urllib.request.Request(
        request["ResponseURL"],
        data=json.dumps(answer).encode(),
        headers={"Content-Type": ""},  # the URL is signed for none
        method="PUT",
    )
    for attempt in range(1, _ANSWER_TRIES + 1):
        try:
            urllib.request.urlopen(call, timeout=_ANSWER_LIMIT_S).close()
        except OSError:
            if attempt == _ANSWER_TRIES:
                raise
            time.sleep(attempt)
        else:
            return


@cache
def _deletion() -> Deletion:
    return Deletion(
        pipeline_id=os.environ["PIPELINE_ID"],
        state_machine_arn=os.environ["STATE_MACHINE_ARN"],
        states=boto3.client("stepfunctions"),
        sagemaker=boto3.client("sagemaker"),
    )


def handle(event: Mapping[str, Any], context: object) -> None:
    """Lambda entry point: CloudFormation's request for a custom resource."""
    try:
        if event["RequestType"] == "Delete" and not _deletion().stop_all():
            logger.error("what runs must stop within %d s, and did not; look at it", _LIMIT_S)
    except Exception:  # a stack that cannot be deleted is worse than a job that runs on
        logger.exception("what runs must be stopped, and was not; look at it")
    respond(event)
