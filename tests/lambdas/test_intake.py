from dataclasses import replace
from typing import Any

import pytest

World = Any  # conftest's


def test_the_same_event_delivered_twice_is_one_drop(world: World) -> None:
    event = world.event("input/a.csv")
    assert world.take(event, event) == []
    assert world.take(event) == []
    assert world.statuses() == {"input/a.csv": "waiting"}


def test_a_newer_version_supersedes_the_one_that_waits_in_whatever_order_they_come(
    world: World,
) -> None:
    older, newer = world.event("input/a.csv"), world.event("input/a.csv")
    world.take(newer)
    world.take(older)
    assert world.statuses() == {"input/a.csv": "superseded, waiting"}


def test_every_version_that_waits_is_superseded_though_one_that_ended_lies_between(
    world: World,
) -> None:
    events = [world.event("input/a.csv", body) for body in (b"1\n", b"2\n", b"", b"4\n")]
    for number in (2, 0, 3, 1):
        world.take(events[number])
    assert world.statuses() == {"input/a.csv": "superseded, superseded, failed, waiting"}


def test_an_upload_costs_the_same_however_often_its_key_was_uploaded_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(300):
        world.ledger_table.put_item(
            Item={
                "pk": "key#input/a.csv",
                "sk": f"drop#{number:016X}".ljust(37, "0"),
                "ordering": f"{number:016X}".ljust(32, "0"),
                "object_key": "input/a.csv",
                "drop_status": "done",
                "size": 4,
                "etag": f"etag of {number}",
                "version_id": "",
                "dropped_at": "2026-03-01T11:00:00.000Z",
                "attempts": 1,
            }
        )
    read: list[int] = []
    client = world.ledger_table.meta.client
    query = client.query

    def counted(**arguments: Any) -> Any:
        page = query(**arguments)
        read.append(page["ScannedCount"])
        return page

    monkeypatch.setattr(client, "query", counted)
    for number in (300, 301):
        world.drop("input/a.csv", sequencer=f"{number:016X}")

    assert sum(read) < 100
    assert world.statuses()["input/a.csv"].endswith("done, superseded, waiting")


def test_what_a_newer_version_supersedes_is_counted_once(world: World) -> None:
    older, newer = world.event("input/a.csv"), world.event("input/a.csv")
    assert world.count(older) == {"DropsReceived": 1}
    assert world.count(newer) == {"DropsReceived": 1, "DropsSuperseded": 1}
    assert world.count(newer) == {}
    assert world.count(world.event("input/b.csv", b"")) == {"DropsReceived": 1, "DropsFailed": 1}


def test_an_event_that_comes_again_after_the_drop_has_ended_does_not_score_it_again(
    world: World,
) -> None:
    event = world.event("input/a.csv")
    world.take(event)
    world.pass_time(60)
    (run_id,) = world.dispatch()
    world.execute(run_id)

    world.take(event)
    world.pass_time(60)

    assert world.dispatch() == []
    assert world.statuses() == {"input/a.csv": "done"}


def test_one_bad_message_does_not_hold_up_the_others(world: World) -> None:
    assert world.take({"no": "event"}, world.event("input/a.csv")) == ["0"]
    assert world.statuses() == {"input/a.csv": "waiting"}


def test_a_folder_is_no_drop(world: World) -> None:
    world.take(world.event("input/day=1/", b""))
    assert world.statuses() == {}


def test_an_empty_file_fails_at_once_and_says_what_to_do(world: World) -> None:
    drop = world.drop("input/empty.csv", b"")
    assert world.statuses() == {"input/empty.csv": "failed"}
    assert "got an empty object; drop it again with its records" in world.reason(drop)
    world.pass_time(60)
    assert world.dispatch() == []


def test_a_key_that_is_too_long_fails_at_once_and_says_so(world: World) -> None:
    drop = world.drop("input/" + "x" * 1000)
    assert world.statuses() == {drop.key: "failed"}
    assert "upload it under a shorter key" in world.reason(drop)


def test_every_delivery_wakes_dispatch(world: World) -> None:
    world.take(world.event("input/a.csv"))
    assert world.sqs.receive_message(QueueUrl=world.queue_url)["Messages"][0]["Body"] == "{}"


def test_an_upload_of_a_size_that_is_not_wanted_fails_at_once_and_says_which_is(
    world: World,
) -> None:
    world.uploads = replace(world.uploads, min_bytes=3, max_bytes=5)

    small, fitting, large = (world.drop(f"input/{size}.csv", b"x" * size) for size in (2, 5, 6))

    assert world.statuses() == {small.key: "failed", fitting.key: "waiting", large.key: "failed"}
    assert "at most 5 bytes, got 6; cut it into several objects" in world.reason(large)
    assert "at least 3 bytes, got 2; upload it whole" in world.reason(small)
