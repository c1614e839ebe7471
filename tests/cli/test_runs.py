"""The command `runs`."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from batch_transform_cli.pipelines.records import Run
from batch_transform_cli.pipelines.runs import Outcome, narrowed
from batch_transform_cli.pipelines.views import runs_view

from .test_views import CLOSED, RUN, text_of

Command = Callable[..., Any]


def test_each_run_tells_its_outcome_its_drops_when_it_began_and_how_long_it_took() -> None:
    ended = Run(
        run_id="churn-1-r0",
        status="closed",
        drops=5,
        outcome="PartiallyCompleted",
        done=2,
        failed=1,
        waiting=2,
        opened_at="2026-03-01T11:00:00.000Z",
        ended_at="2026-03-01T11:03:05.000Z",
    )

    now = datetime(2026, 3, 1, 12, 1, tzinfo=UTC)
    shown = text_of(runs_view([ended, RUN], 20, now=now)).splitlines()

    cells = [re.split(r" {2,}", line.strip()) for line in shown]
    assert shown[1].split() == [
        *["churn-1-r0", "5", "2", "1", "2", "PartiallyCompleted", "03-01", "11:00"],
        *["3", "min", "5", "s"],
    ]
    assert cells[2] == ["churn-1-r1", "2", "running", "03-01 12:00 57 s so far"]


def test_only_the_newest_are_shown_and_none_is_said() -> None:
    now = datetime(2026, 3, 1, 12, 1, tzinfo=UTC)
    assert "the newest 1 of 3 runs" in text_of(runs_view([CLOSED, CLOSED, RUN], 1, now=now))
    assert text_of(runs_view([], 1, now=now)) == "no run is so\n"


@pytest.mark.parametrize(
    ("outcomes", "since", "found"),
    [
        ([], None, [CLOSED, RUN]),
        ([Outcome.FAILED], None, [CLOSED]),
        ([Outcome.COMPLETED, Outcome.NONE], None, [RUN]),
        ([], datetime(2026, 3, 1, 12, 0, 3, tzinfo=UTC), [CLOSED, RUN]),
        ([], datetime(2026, 3, 1, 12, 0, 4, tzinfo=UTC), []),
    ],
)
def test_runs_are_narrowed_by_outcome_and_by_when_they_began(
    outcomes: list[Outcome], since: datetime | None, found: list[Run]
) -> None:
    assert narrowed([CLOSED, RUN], outcomes=outcomes, since=since) == found


def test_programs_get_the_newest_runs_that_are_so(
    settled_run: str, run_in_flight: str, batch_transform: Command
) -> None:
    told = batch_transform("runs", "--json", "--newest", 1).document
    done = batch_transform(
        "runs", "--json", "--outcome", "partiallycompleted", "--since", "2026-03-01"
    ).document

    assert told["pipeline"] == "churn-1"
    assert [(run["run_id"], run["took_s"]) for run in told["runs"]] == [(run_in_flight, None)]
    assert [(run["run_id"], run["took_s"]) for run in done["runs"]] == [(settled_run, 0)]


def test_fails_when_the_outcome_is_none_that_there_is(
    settled_run: str, batch_transform: Command
) -> None:
    ended = batch_transform("runs", "--outcome", "bad")
    assert ended.code == 2
    assert "'failed'" in ended.err
