"""Executions of the pipeline's state machine, by name."""

import json
from collections.abc import Mapping
from typing import Any

ENDED = frozenset({"SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED"})


class Executions:
    """Starts executions at most once a name, and tells how they are."""

    def __init__(self, states: Any, state_machine_arn: str) -> None:
        self._states = states
        self._state_machine_arn = state_machine_arn

    def start(self, name: str, arguments: Mapping[str, Any]) -> None:
        """Start the execution of that name, unless it was started before."""
        try:
            self._states.start_execution(
                stateMachineArn=self._state_machine_arn, name=name, input=json.dumps(arguments)
            )
        except self._states.exceptions.ExecutionAlreadyExists:
            pass  # It was started before, which is all that is asked for.

    def status(self, name: str) -> str | None:
        """Return RUNNING, PENDING_REDRIVE or one of `ENDED`; `None`: it never started."""
        arn = self._state_machine_arn.replace(":stateMachine:", ":execution:") + f":{name}"
        try:
            status: str = self._states.describe_execution(executionArn=arn)["status"]
        except self._states.exceptions.ExecutionDoesNotExist:
            return None
        return status
