"""The command `stop`; that the job stops and the drops go back, tests/journeys shows."""

import io
from collections.abc import Callable
from typing import Any

import boto3
import pytest

from transform_lambdas.ledger import Ledger

from .conftest import MACHINE

Command = Callable[..., Any]


def executions(status: str) -> list[str]:
    found = boto3.client("stepfunctions").list_executions(
        stateMachineArn=MACHINE, statusFilter=status
    )
    return [execution["name"] for execution in found["executions"]]


def test_a_run_is_stopped_by_its_execution(run_in_flight: str, batch_transform: Command) -> None:
    stopped = batch_transform("stop", run_in_flight, "--yes", "--json")

    assert stopped.code == 0
    assert stopped.document == {
        "pipeline": "churn-1",
        "run_id": run_in_flight,
        "execution": f"{MACHINE.replace(':stateMachine:', ':execution:')}:{run_in_flight}",
        "drops": 2,
        "outputs": 1,
        "jobs": [f"{run_in_flight}-s1-0"],
    }
    assert executions("ABORTED") == [run_in_flight]


def test_nothing_is_stopped_where_nobody_can_be_asked(
    run_in_flight: str, batch_transform: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)

    ended = batch_transform("stop", run_in_flight)

    assert (ended.code, ended.out) == (2, "")
    first, *does, last = ended.err.splitlines()
    assert first == (
        f"run {run_in_flight} of pipeline churn-1: 2 drops, 1 output so far, "
        f"in progress: {run_in_flight}-s1-0"
    )
    assert "a stopped job leaves no output" in does[0]
    assert "wait again" in does[1]
    assert last.startswith("batch-transform: --yes must be given where nobody can be asked")
    assert executions("RUNNING") == [run_in_flight]


@pytest.mark.parametrize(
    ("answer", "code"),
    [("y\n", 0), ("n\n", 1), ("\n", 1), ("", 130)],
    ids=["yes", "no", "nothing said", "ended"],
)
def test_somebody_is_asked_on_a_terminal(
    answer: str,
    code: int,
    run_in_flight: str,
    batch_transform: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(answer))

    ended = batch_transform("stop", run_in_flight)

    assert ended.code == code
    assert executions("ABORTED" if code == 0 else "RUNNING") == [run_in_flight]
    assert ("nothing was stopped" in ended.err) == (code != 0)


class Terminal(io.StringIO):
    """A person who types this, and then Ctrl-D."""

    def isatty(self) -> bool:
        return True


def test_fails_when_the_run_is_settled_or_has_not_begun(
    settled_run: str, ledger: Ledger, batch_transform: Command
) -> None:
    ledger.open_run("churn-1-r2", slot=0, drops=1, look_again_s=60)

    settled = batch_transform("stop", settled_run, "--yes")
    claiming = batch_transform("stop", "churn-1-r2", "--yes")
    unknown = batch_transform("stop", "churn-1-r3", "--yes")

    assert (settled.code, claiming.code, unknown.code) == (1, 1, 1)
    assert f"got {settled_run}, which is settled: PartiallyCompleted; there is" in settled.err
    assert "must have begun, got churn-1-r2, which is claiming; try again" in claiming.err
    assert "must be that of a run, got 'churn-1-r3'; did you mean 'churn-1-r2' or" in unknown.err


def test_fails_when_the_run_is_stopped_already(
    run_in_flight: str, ledger: Ledger, batch_transform: Command
) -> None:
    batch_transform("stop", run_in_flight, "--yes")

    again = batch_transform("stop", run_in_flight, "--yes")
    run = ledger.run(run_in_flight)
    assert run is not None
    ledger.begin_finish(run, f"{run_in_flight}-f1")
    later = batch_transform("stop", run_in_flight, "--yes")

    assert (again.code, later.code) == (1, 1)
    assert "whose execution has ended and which is being settled" in again.err
    assert again.err == later.err
