"""The command `status` for several pipelines, and as it watches them."""

import io
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import boto3
import pytest
from rich.console import Console

from batch_transform_cli.cloud import Cloud
from batch_transform_cli.pipelines.client import PipelineClient
from batch_transform_cli.pipelines.records import Load, Status
from batch_transform_cli.pipelines.snapshots import Seen, Snapshot, Unreadable, look_at_all
from batch_transform_cli.pipelines.status_views import follow, lines, summary_line
from batch_transform_cli.pipelines.views import drops_table
from transform_lambdas.ledger import Ledger

from .conftest import make_drop
from .test_views import CLOSED, DROP, FAILED, RUN, text_of

Run = Callable[..., Any]

AT_REST = Load(waiting=0, oldest_waiting_s=0, slots=2, slots_free=2, running_jobs=0)
IDLE = Snapshot(pipeline_id="churn-1", status=Status(drops=[], runs=[]), load=AT_REST, outputs={})
BUSY = replace(
    IDLE,
    status=Status(
        drops=[FAILED, replace(DROP, key="input/b.csv")],
        runs=[CLOSED, replace(RUN, run_id="churn-1-r2")],
    ),
    load=Load(waiting=1, oldest_waiting_s=3663, slots=2, slots_free=1, running_jobs=1),
    outputs={"churn-1-r2": 1},
)
GONE = Unreadable(pipeline_id="old-9", problem="Scan must be allowed, got AccessDenied: no")


@pytest.fixture
def two_pipelines(settled_run: str, make_ledger: Callable[..., Ledger]) -> None:
    """The one of `settled_run`, and one whose run has written one of two outputs."""
    fraud = make_ledger("fraud-2", "ledger-2")
    drops = [make_drop(f"input/{name}.csv") for name in "ab"]
    for drop in drops:
        fraud.record(drop)
    fraud.open_run("fraud-2-r1", slot=0, drops=2, look_again_s=60)
    fraud.claim("fraud-2-r1", drops)
    fraud.end_claiming("fraud-2-r1", drops=2, size_bytes=240)
    fraud.mark_running("fraud-2-r1")
    boto3.client("s3").put_object(
        Bucket="out", Key="runs/fraud-2-r1/step-1-of-1/input/a.csv.out", Body=b"1"
    )


def test_each_of_several_pipelines_has_a_row(
    two_pipelines: None, batch_transform: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "140")

    shown = batch_transform("status")

    assert (shown.code, shown.err) == (0, "")
    rows = [line.strip() for line in shown.out.splitlines()]
    cells = [re.split(r" {2,}", line) for line in rows if line]
    assert cells[0] == [
        "pipeline",
        "waiting",
        "oldest for",
        "outputs",
        "slots",
        "failed",
        "last run",
    ]
    churn, fraud = cells[1:3]
    assert (churn[0], churn[1], churn[3:]) == (
        "churn-1",
        "1",
        ["-", "0 of 2", "1", "PartiallyCompleted"],
    )
    assert fraud == ["fraud-2", "0", "-", "1 of 2", "1 of 2", "0", "-"]
    assert cells[3:] == [
        ["pipeline", "failed last", "why"],
        ["churn-1", "input/bad.csv", "ClientError: 400: row 7 is bad"],
    ]


def test_programs_get_a_list_of_several_and_of_one_as_before(
    two_pipelines: None, batch_transform: Run
) -> None:
    told = batch_transform("status", "--json").document
    one = batch_transform("status", "--pipeline", "fraud-2", "--json").document

    churn, fraud = told["pipelines"]
    assert (churn["pipeline"], churn["failed"], churn["running"]) == ("churn-1", 1, [])
    assert churn["last_failed"]["key"] == "input/bad.csv"
    assert churn["last_run"]["outcome"] == "PartiallyCompleted"
    assert fraud["running"] == [{"run_id": "fraud-2-r1", "drops": 2, "outputs": 1}]
    assert fraud["load"] == one["load"]
    assert one["pipeline"] == "fraud-2"
    assert [drop["status"] for drop in one["drops"]] == ["claimed", "claimed"]


def test_all_makes_a_row_of_the_only_pipeline_too(settled_run: str, batch_transform: Run) -> None:
    (row,) = batch_transform("status", "--all", "--json").document["pipelines"]
    assert row["pipeline"] == "churn-1"


def test_a_pipeline_that_cannot_be_read_hides_no_other(
    two_pipelines: None, batch_transform: Run
) -> None:
    boto3.client("dynamodb").delete_table(TableName="ledger-2")

    shown = batch_transform("status")
    told = batch_transform("status", "--json")

    assert (shown.code, told.code) == (1, 1)
    assert "ClientError: 400: row 7 is bad" in " ".join(shown.out.split())
    assert "got fraud-2, which cannot be read; name one of the others" in shown.err
    churn, fraud = told.document["pipelines"]
    assert (churn["failed"], churn["problem"]) == (1, None)
    assert (fraud["failed"], fraud["load"]) == (None, None)
    assert fraud["problem"].startswith("Scan must be allowed, got ResourceNotFoundException")


def test_sagemaker_is_asked_once_for_the_jobs_of_all(
    two_pipelines: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud = Cloud()
    asked: list[str] = []
    cloud.client("sagemaker").meta.events.register(
        "before-call.sagemaker.*", lambda model, **_: asked.append(model.name)
    )

    look_at_all(cloud, PipelineClient.find_all(cloud))

    assert asked == ["ListTransformJobs"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--all", "--pipeline", "churn-1"], "--all must stand without --pipeline, got churn-1"),
        (["--watch", "--json"], "--json must stand without --watch, got both; call"),
    ],
)
def test_fails_when_options_contradict_each_other(
    options: list[str], message: str, batch_transform: Run
) -> None:
    ended = batch_transform("status", *options)
    assert ended.code == 2
    assert message in ended.err


# What is shown


def test_failures_that_are_older_than_what_is_shown_are_shown_with_their_reasons() -> None:
    older = replace(FAILED, key="input/old.csv", reason="input/old.csv: 400: row 1 is bad")
    overtaken = replace(FAILED, key="input/new.csv", order="0")
    newer = [replace(DROP, key=f"input/{name}.csv", status="done") for name in ("new", "b")]

    shown = " ".join(text_of(drops_table([overtaken, older, *newer], 1)).split())

    assert "input/old.csv 7700 B failed 400: row 1 is bad input/b.csv" in shown
    assert "the newest 1 of 4 drops, after 1 of 1 older that failed" in shown
    assert "input/new.csv" not in shown


def test_a_pipeline_in_one_line() -> None:
    assert summary_line(IDLE) == "pipeline churn-1: 0 waiting, 0 of 2 slots used, 0 failed"
    assert summary_line(BUSY) == (
        "pipeline churn-1: 1 waiting (the oldest for 1 h 1 min), 1 of 2 slots used, 1 failed, "
        "1 of 2 outputs written by runs in flight, last run Failed"
    )
    assert summary_line(GONE) == "pipeline old-9: Scan must be allowed, got AccessDenied: no"


def test_lines_tell_how_it_is_at_first_and_then_what_has_changed() -> None:
    later = replace(BUSY, outputs={"churn-1-r2": 2})

    assert list(lines([], [BUSY])) == [
        summary_line(BUSY),
        "drop input/a [1].csv: failed (ClientError: 400: row 7 is bad)",
    ]
    assert list(lines([BUSY], [BUSY])) == []
    assert list(lines([BUSY], [later])) == ["run churn-1-r2: 2 outputs written"]
    assert list(lines([BUSY, GONE], [later, GONE])) == [
        "churn-1: run churn-1-r2: 2 outputs written"
    ]
    assert list(lines([GONE], [IDLE])) == [summary_line(IDLE)]


def test_many_changes_of_one_kind_are_counted() -> None:
    drops = [replace(DROP, key=f"input/{number}.csv", status="claimed") for number in range(1204)]
    many = replace(IDLE, status=Status(drops=drops, runs=[]))

    told = list(lines([IDLE], [many]))

    assert told[0] == "drop input/0.csv: claimed"
    assert told[20:] == ["1,184 more drops: claimed"]


def test_what_stands_on_a_terminal_has_room_there() -> None:
    drops = [replace(FAILED, key=f"input/{number}.csv") for number in range(40)]
    seen = [replace(BUSY, status=Status(drops=drops, runs=[CLOSED] * 40))]
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=90, height=24)

    watched(console, iter([seen]), say=lambda line: None)

    _, first, *_ = screen.getvalue().split("drops waiting")
    assert "input/39.csv" in first
    assert 15 < len(first.splitlines()) < 24


def test_watching_says_only_what_changes_and_reads_a_fifth_of_the_time_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = iter(range(0, 100, 3))  # each look takes 3 seconds
    pauses: list[float] = []
    monkeypatch.setattr(
        "batch_transform_cli.pipelines.status_views.time.monotonic", lambda: next(now)
    )
    monkeypatch.setattr("batch_transform_cli.pipelines.status_views.time.sleep", pauses.append)
    said: list[str] = []

    watched(Console(file=io.StringIO()), iter([[IDLE], [IDLE], [IDLE]]), say=said.append)

    assert said == [summary_line(IDLE)]
    assert pauses == [12, 12, 12]


def test_ctrl_c_ends_watching_with_130_and_one_line(
    settled_run: str, batch_transform: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("batch_transform_cli.pipelines.status_views.time.sleep", ended)

    watched = batch_transform("status", "--watch")

    assert watched.code == 130
    assert watched.err == "batch-transform: no longer watching; the pipelines go on\n"
    first, failure = (line.partition(" ")[2] for line in watched.out.splitlines())
    assert first.startswith("pipeline churn-1: 1 waiting")
    assert failure == "drop input/bad.csv: failed (ClientError: 400: row 7 is bad)"


def watched(console: Console, looks: Iterator[Seen], *, say: Callable[[str], None]) -> None:
    """Watch until there is nothing more to look at."""
    with pytest.raises(StopIteration):
        follow(lambda: next(looks), console, rows=False, newest=20, interval_s=1, say=say)
