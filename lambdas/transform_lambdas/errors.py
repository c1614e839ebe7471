"""Errors the state machine can tell apart.

PermanentError      repeating the call cannot help; the state machine never retries it
└── UnknownRun      the run is not in the ledger: its execution was started by hand

Step Functions matches `ErrorEquals` against the class name alone, so every permanent error is
named in the state machine: rename both in one commit.
"""


class PermanentError(Exception):
    """Repeating the call cannot help."""


class UnknownRun(PermanentError):
    """The run is not in the ledger."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"the run must be in the ledger, got {run_id!r}; let dispatch start runs")
        self.run_id = run_id
