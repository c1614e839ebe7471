"""What the functions write for CloudWatch: the line, and the numbers in it."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from transform_lambdas import metrics
from transform_lambdas.ledger import Ledger, WaitingDrops

from .conftest import World


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith('{"_aws"')]


def values(text: str) -> dict[str, Any]:
    """Every metric that was written, the last value of each."""
    return {
        metric["Name"]: line[metric["Name"]]
        for line in lines(text)
        for definition in line["_aws"]["CloudWatchMetrics"]
        for metric in definition["Metrics"]
    }


def test_a_line_is_in_the_embedded_metric_format(capsys: pytest.CaptureFixture[str]) -> None:
    metrics.emit("churn", {"OldestWaitingSeconds": 7}, unit="Seconds")

    (line,) = lines(capsys.readouterr().out)
    assert line["_aws"]["CloudWatchMetrics"] == [
        {
            "Namespace": "BatchTransform",
            "Dimensions": [["Pipeline"]],
            "Metrics": [{"Name": "OldestWaitingSeconds", "Unit": "Seconds"}],
        }
    ]
    assert (line["Pipeline"], line["OldestWaitingSeconds"]) == ("churn", 7)


def test_dispatch_tells_how_many_wait_for_how_long_and_how_many_runs_could_begin(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "abc":
        world.drop(f"input/{name}.csv")
    world.pass_time(59)
    capsys.readouterr()

    world.dispatch()
    assert values(capsys.readouterr().out) == {
        "DropsWaiting": 3,
        "SlotsFree": 2,
        "OldestWaitingSeconds": 59,
    }

    world.pass_time(2)
    (run_id,) = world.dispatch()
    told = values(capsys.readouterr().out)
    assert (told["DropsWaiting"], told["DropsClaimed"], told["RunsStarted"]) == (3, 3, 1)

    world.dispatch()
    assert values(capsys.readouterr().out) == {
        "DropsWaiting": 0,
        "SlotsFree": 1,
        "OldestWaitingSeconds": 0,
    }

    world.execute(run_id)
    told = values(capsys.readouterr().out)
    assert (told["DropsDone"], told["DropsFailed"], told["RunsCompleted"]) == (3, 0, 1)
    assert (told["RecordsIn"], told["RecordsOut"]) == (3, 3)


def test_the_oldest_is_told_of_all_that_wait_whatever_is_tried_next(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    returned = world.drop("input/returned.csv")
    world.ledger.open_run("run-0", slot=0, drops=1, look_again_s=60)
    world.ledger.claim("run-0", [returned])
    world.drop("input/oldest.csv")
    world.pass_time(30)
    world.ledger.give_back("run-0", returned, reason="model failed", ages=False, group="01#run-0a")
    world.pass_time(20)
    world.slots = 1
    capsys.readouterr()

    world.dispatch()

    told = values(capsys.readouterr().out)
    assert (told["DropsWaiting"], told["OldestWaitingSeconds"]) == (2, 50)


def test_without_a_slot_what_waits_is_read_for_a_report_alone(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    world.drop("input/a.csv")
    world.pass_time(61)
    world.slots = 0
    looks: list[Ledger] = []
    waiting = Ledger.waiting

    def look(ledger: Ledger) -> WaitingDrops:
        looks.append(ledger)
        return waiting(ledger)

    monkeypatch.setattr(Ledger, "waiting", look)
    capsys.readouterr()

    assert world.dispatcher.wake_up([{}, {}], time_left_s=lambda: 600) == []
    assert (len(looks), values(capsys.readouterr().out)) == (0, {})

    assert world.dispatcher.wake_up([{}, {"report": True}], time_left_s=lambda: 600) == []
    assert (len(looks), values(capsys.readouterr().out)["DropsWaiting"]) == (1, 1)


def test_records_that_nobody_counts_are_no_metric(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.checks = [None]
    world.drop("input/a.csv")
    world.pass_time(60)
    (run_id,) = world.dispatch()
    capsys.readouterr()

    world.execute(run_id)

    told = values(capsys.readouterr().out)
    assert told["DropsDone"] == 1
    assert not told.keys() & {"RecordsIn", "RecordsOut"}


def test_fewer_slots_than_runs_in_flight_are_none_that_is_free(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (0, 1):
        world.ledger.open_run(f"run-{number}", slot=number, drops=1, look_again_s=60)
        world.ledger.end_claiming(f"run-{number}", drops=1, size_bytes=0)
    world.slots = 1

    world.dispatch()

    assert values(capsys.readouterr().out)["SlotsFree"] == 0


def test_waiting_drops_are_counted_by_the_pages_that_are_read_anyway() -> None:
    read: list[int] = []

    def pages(shard: int) -> Iterator[list[dict[str, Any]]]:
        for page in range(3):
            read.append(shard)
            yield [item(f"input/{shard}-{page}-{number}.csv", due=page) for number in range(10)]

    waiting = WaitingDrops(pages(shard) for shard in range(2))
    entries = iter(waiting)

    next(entries)
    assert (waiting.seen, read) == (20, [0, 1])
    assert len(list(entries)) == 59
    assert waiting.seen == 60


def item(key: str, *, due: int) -> dict[str, Any]:
    return {
        "object_key": key,
        "ordering": "0",
        "size": 1,
        "etag": "",
        "version_id": "",
        "dropped_at": "2026-03-01T12:00:00.000Z",
        "due": f"2026-03-01T12:00:0{due}.000Z",
    }
