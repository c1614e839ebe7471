import io
import re
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from batch_transform_cli.errors import CommandError
from batch_transform_cli.pipelines.client import PipelineClient
from batch_transform_cli.pipelines.records import Drop, Load, Run, Status
from batch_transform_cli.pipelines.views import changes, overview, watch
from batch_transform_cli.screen import duration

DROP = Drop(
    key="input/a [1].csv",
    status="waiting",
    size=7_700,
    attempts=0,
    run_id="",
    dropped_at="2026-03-01T12:00:00.000Z",
    reason="",
    order="1",
    waiting_since="2026-03-01T12:00:00.000Z",
    failed_at="",
)
RUN = Run(
    run_id="churn-1-r1",
    status="running",
    drops=2,
    outcome="",
    done=0,
    failed=0,
    waiting=0,
    opened_at="2026-03-01T12:00:03.000Z",
    ended_at="",
)
FAILED = replace(
    DROP,
    status="failed",
    reason="input/a [1].csv: ClientError: 400: row 7 is bad",
    failed_at="2026-03-01T12:01:00.000Z",
)
CLOSED = replace(RUN, status="closed", outcome="Failed", failed=2)


def text_of(picture: Any, *, width: int = 110) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(picture)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_failed_drop_shows_its_reason_without_saying_its_key_twice() -> None:
    shown = text_of(overview(Status(drops=[FAILED], runs=[]), {}))
    assert "input/a [1].csv   7700 B   failed   ClientError: 400: row 7 is bad" in shown


@pytest.mark.parametrize(
    ("load", "row"),
    [
        (
            Load(waiting=1204, oldest_waiting_s=11520, slots=2, slots_free=0, running_jobs=1),
            "1,204 3 h 12 min 0 of 2 1",
        ),
        (
            Load(waiting=0, oldest_waiting_s=0, slots=5, slots_free=5, running_jobs=0),
            "0 - 5 of 5 0",
        ),
    ],
    ids=["behind", "at rest"],
)
def test_the_first_row_says_how_far_behind_it_is(load: Load, row: str) -> None:
    shown = text_of(overview(Status(drops=[], runs=[]), {}, load=load)).splitlines()

    assert re.split(r" {2,}", shown[1].strip()) == [
        "drops waiting",
        "the oldest for",
        "slots free",
        "jobs running",
    ]
    assert shown[2].split() == row.split()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (45, "45 s"), (185, "3 min 5 s"), (3600, "1 h 0 min"), (187_200, "2 d 4 h")],
)
def test_a_duration_is_told_by_its_two_largest_units(seconds: int, text: str) -> None:
    assert duration(seconds) == text


def test_a_narrow_terminal_folds_names_and_loses_no_column() -> None:
    long_run = replace(CLOSED, run_id="breast-cancer-69e87564-20261122t101912-13eca7")
    shown = text_of(overview(Status(drops=[FAILED], runs=[long_run]), {}), width=80)
    for word in ("drops", "done", "failed", "again", "status", "Failed", "row 7"):
        assert word in shown


def test_a_running_job_shows_how_many_of_its_outputs_are_there() -> None:
    shown = text_of(overview(Status(drops=[DROP], runs=[RUN]), {"churn-1-r1": 1}))
    assert "1 of 2 outputs" in shown


def test_only_the_newest_drops_are_shown_and_the_others_counted() -> None:
    drops = [replace(DROP, key=f"input/{number:02}.csv") for number in range(30)]
    shown = text_of(overview(Status(drops=drops, runs=[]), {}, newest=2))
    assert "input/29.csv" in shown
    assert "input/27.csv" not in shown
    assert "the newest 2 of 30 drops" in " ".join(shown.split())


def test_each_change_is_one_line_and_what_stays_is_none() -> None:
    before = Status(drops=[DROP, replace(DROP, key="input/b.csv")], runs=[RUN])
    after = Status(drops=[FAILED, replace(DROP, key="input/b.csv")], runs=[CLOSED])
    assert changes(before, after) == [
        "drop input/a [1].csv: failed (input/a [1].csv: ClientError: 400: row 7 is bad)",
        "run churn-1-r1: closed Failed (2 drops, 0 done, 2 failed)",
    ]
    assert changes(after, after) == []


def test_what_users_uploaded_cannot_steer_the_terminal() -> None:
    evil = replace(FAILED, key="input/\x1b[2J.csv", reason="found near: \x1b]0;mine\x07\n")
    status = Status(drops=[evil], runs=[])
    shown = text_of(overview(status, {})) + "".join(changes(Status(drops=[], runs=[]), status))
    assert "\x1b" not in shown
    assert "input/·[2J.csv" in shown


class FakePipeline(PipelineClient):
    """A pipeline that goes through the given statuses, one a look, and stays at the last."""

    def __init__(self, *statuses: Status) -> None:
        self._statuses = list(statuses)

    def status(self) -> Status:
        return self._statuses.pop(0) if len(self._statuses) > 1 else self._statuses[0]

    def outputs_of(self, run: Run) -> int:
        return 1


def test_watching_ends_when_it_is_as_wanted_and_says_each_change_once() -> None:
    waiting = Status(drops=[DROP], runs=[])
    running = Status(drops=[replace(DROP, status="claimed")], runs=[RUN])
    ended = Status(drops=[FAILED], runs=[CLOSED])
    lines: list[str] = []

    status, _ = watch(
        FakePipeline(waiting, waiting, running, ended),
        Console(file=io.StringIO()),
        until=lambda status: not any(drop.is_open for drop in status.drops),
        limit_s=10,
        say=lines.append,
    )

    assert status is ended
    assert [line.split(" (")[0] for line in lines] == [
        "drop input/a [1].csv: waiting",
        "run churn-1-r1: 1 output written",
        "drop input/a [1].csv: claimed",
        "run churn-1-r1: running",
        "drop input/a [1].csv: failed",
        "run churn-1-r1: closed Failed",
    ]


def test_watching_does_not_wait_for_ever_and_names_what_is_still_open() -> None:
    with pytest.raises(CommandError, match=r"within 0 s, got 1 still open \(input/a \[1\]\.csv\)"):
        watch(
            FakePipeline(Status(drops=[DROP], runs=[])),
            Console(file=io.StringIO()),
            until=lambda status: False,
            limit_s=0,
            say=lambda line: None,
        )
