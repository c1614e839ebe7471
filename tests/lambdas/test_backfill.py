import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from transform_lambdas import backfill
from transform_lambdas.drops import Drop, Listed

World = Any  # conftest's

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def world(world: World) -> World:
    """One whose clock is that of the bucket, which dates uploads by the real time."""
    world.time = datetime.now(UTC)
    return world


def put(world: World, *keys: str, body: bytes = b"1,2\n") -> None:
    """Upload objects of which no event tells."""
    for key in keys:
        world.s3.put_object(Bucket="input-bucket", Key=key, Body=body)


def score_all(world: World) -> list[str]:
    """Let time pass and every run be done; return the keys that were scored, sorted."""
    scored: list[str] = []
    while True:
        world.pass_time(61)
        started = world.dispatch()
        if not started:
            return sorted(scored)
        for run_id in started:
            world.execute(run_id)
            world.execution_ended(run_id)
            scored += [drop.key for drop in world.files.read_plan(run_id)]


def test_what_lay_there_before_the_pipeline_is_scored(world: World) -> None:
    put(world, "input/a.csv", "input/deep/b.csv", "other/c.csv")

    assert world.backfill() == {"DropsReceived": 2}

    assert score_all(world) == ["input/a.csv", "input/deep/b.csv"]
    assert world.statuses() == {"input/a.csv": "done", "input/deep/b.csv": "done"}


def test_what_was_scored_is_not_scored_again_whether_an_event_or_a_backfill_told_of_it(
    world: World,
) -> None:
    put(world, "input/old.csv")
    world.take(world.event("input/new.csv"))
    world.backfill()
    assert score_all(world) == ["input/new.csv", "input/old.csv"]

    for _ in range(2):
        assert world.backfill() == {}
    assert score_all(world) == []


def test_an_event_that_comes_after_the_backfill_has_found_its_upload_is_known(
    world: World,
) -> None:
    late = world.event("input/a.csv")
    world.backfill()
    assert score_all(world) == ["input/a.csv"]

    assert world.count(late) == {}
    assert score_all(world) == []


def test_an_event_of_an_older_version_that_comes_after_the_backfill_is_not_the_newest(
    world: World,
) -> None:
    world.time -= timedelta(hours=1)
    late = world.event("input/a.csv")
    put(world, "input/a.csv", body=b"3,4\n")
    world.time += timedelta(hours=1)
    world.backfill()

    for _ in range(2):
        world.take(late)

    assert world.statuses() == {"input/a.csv": "superseded, waiting"}
    assert score_all(world) == ["input/a.csv"]
    assert world.prediction("input/a.csv") == b"3,4\n"


def test_a_listed_version_is_scored_once_though_an_older_one_s_event_comes_late_and_above_it(
    world: World,
) -> None:
    late, event = world.event("input/a.csv"), world.event("input/a.csv", body=b"3,4\n")
    world.backfill()
    assert score_all(world) == ["input/a.csv"]
    world.take(late)  # of the same second, so that nobody knows which version is the newer one

    assert world.backfill() == {}
    assert world.count(event) == {}

    score_all(world)
    assert sorted(world.statuses()["input/a.csv"].split(", ")) == ["done", "superseded"]
    assert world.prediction("input/a.csv") == b"3,4\n"


def test_the_same_bytes_uploaded_again_later_are_scored_again(world: World) -> None:
    put(world, "input/a.csv")
    world.backfill()
    score_all(world)

    world.take(world.event("input/a.csv"))

    assert score_all(world) == ["input/a.csv"]
    assert world.statuses() == {"input/a.csv": "done, done"}


def test_a_version_whose_event_was_lost_is_found_and_is_the_newest(world: World) -> None:
    world.time -= timedelta(hours=1)
    world.take(world.event("input/a.csv"))
    put(world, "input/a.csv", body=b"3,4\n")
    world.time += timedelta(hours=1)

    world.backfill()

    assert world.statuses() == {"input/a.csv": "superseded, waiting"}
    assert score_all(world) == ["input/a.csv"]
    assert world.prediction("input/a.csv") == b"3,4\n"


def test_the_same_bytes_uploaded_at_once_again_are_found_when_nobody_knows_which_was_scored(
    world: World,
) -> None:
    world.take(world.event("input/a.csv"))
    world.pass_time(61)
    (run_id,) = world.dispatch()
    put(world, "input/a.csv")  # its event is lost, and the job may have read either
    world.execute(run_id)
    world.execution_ended(run_id)
    assert world.statuses() == {"input/a.csv": "superseded"}

    world.backfill()

    assert score_all(world) == ["input/a.csv"]
    assert world.statuses() == {"input/a.csv": "superseded, done"}


def test_a_version_that_comes_after_the_backfill_supersedes_what_it_found(world: World) -> None:
    put(world, "input/a.csv")
    world.backfill()

    world.pass_time(3600)
    world.take(world.event("input/a.csv", b"3,4\n"))

    assert world.statuses() == {"input/a.csv": "superseded, waiting"}


def test_only_what_is_named_as_a_drop_is_entered(world: World) -> None:
    world.uploads = replace(world.uploads, suffixes=[".csv", ".csv.gz"])
    put(world, "input/a.csv", "input/b.csv.gz", "input/c.txt", "input/_SUCCESS")
    put(world, "input/folder.csv/", body=b"")

    assert world.backfill() == {"DropsReceived": 2}
    assert sorted(world.statuses()) == ["input/a.csv", "input/b.csv.gz"]


def test_an_object_of_a_size_that_is_not_wanted_ends_as_failed(world: World) -> None:
    world.uploads = replace(world.uploads, max_bytes=3)
    put(world, "input/a.csv")

    assert world.backfill() == {"DropsReceived": 1, "DropsFailed": 1}
    assert world.backfill() == {}
    assert world.statuses() == {"input/a.csv": "failed"}


def test_a_prefix_or_one_object_can_be_asked_for(world: World) -> None:
    put(world, "input/2025/a.csv", "input/2026/b.csv", "input/2026/c.csv")

    assert world.backfill(prefix="input/2026/b.csv") == {"DropsReceived": 1}
    assert world.backfill(prefix="input/2026/") == {"DropsReceived": 1}
    assert sorted(world.statuses()) == ["input/2026/b.csv", "input/2026/c.csv"]


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param({"prefix": "other/"}, id="another prefix"),
        pytest.param({"prefx": "input/"}, id="another member"),
        pytest.param("input/", id="no object"),
    ],
)
def test_a_request_that_makes_no_sense_comes_again_until_it_is_a_dead_letter(
    world: World, asked: Any
) -> None:
    put(world, "other/a.csv")

    assert world.take({"backfill": asked}, world.event("input/b.csv")) == ["0"]
    assert world.statuses() == {"input/b.csv": "waiting"}


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backfill, "_PAGE", 2)


def times(*seconds: float) -> Callable[[], float]:
    """Tell these in turn, again and again, as what is left of a function's time."""
    left: Iterator[float] = itertools.cycle(seconds)
    return lambda: next(left)


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("seconds", [(60,), (60, 10), (60, 60, 10), (10, 60)], ids=str)
def test_it_goes_on_by_a_message_when_its_time_is_over(
    world: World, seconds: tuple[float, ...]
) -> None:
    keys = [f"input/{number}.csv" for number in range(7)]
    put(world, *keys)
    world.backfill_time = times(*seconds)

    assert world.backfill() == {"DropsReceived": 7}
    assert sorted(world.statuses()) == keys


@pytest.mark.usefixtures("small_pages")
def test_a_message_that_goes_on_carries_where_it_is_and_no_keys_but_one(world: World) -> None:
    put(world, *(f"input/{number}.csv" for number in range(7)))

    body = {"messageId": "0", "body": json.dumps({"backfill": {}})}
    world.receiver.receive([body], time_left_s=times(60, 60, 10))

    (message,) = world.sqs.receive_message(QueueUrl=world.intake_queue_url)["Messages"]
    progress = json.loads(message["Body"])["backfill"]
    assert progress.pop("started_at").startswith(f"{world.time:%Y-%m-%dT%H:%M:%S}")
    assert progress == {"prefix": "input/", "after": "input/3.csv", "listed": 4, "entered": 4}


def test_what_it_finds_is_due_when_it_has_come_to_its_end(world: World) -> None:
    world.policy = replace(world.policy, max_wait_s=86_400)
    put(world, "input/a.csv", "input/b.csv")

    world.backfill()

    (run_id,) = world.dispatch()
    assert len(world.files.read_plan(run_id)) == 2


def test_what_is_uploaded_after_it_began_is_not_made_due(world: World) -> None:
    world.policy = replace(world.policy, max_wait_s=86_400)
    world.backfill()

    world.pass_time(1)
    world.take(world.event("input/a.csv"))

    assert world.dispatch() == []


def known(at: datetime, etag: str = "e") -> Drop:
    text = f"{at:%Y-%m-%dT%H:%M:%S}.000Z"
    return Drop("input/a.csv", "7" * 32, 4, etag, "", text)


LISTED = Listed(key="input/a.csv", size=4, etag="e", modified_at=NOON)


@pytest.mark.parametrize(
    ("newest", "is_known"),
    [
        pytest.param(known(NOON), True, id="the same"),
        pytest.param(known(NOON + timedelta(hours=1)), True, id="a long multipart upload"),
        pytest.param(known(NOON - timedelta(seconds=2)), True, id="clocks that differ"),
        pytest.param(known(NOON - timedelta(hours=1)), False, id="the same bytes before"),
        pytest.param(known(NOON - timedelta(hours=1), "f"), False, id="another before"),
        pytest.param(
            known(NOON + timedelta(minutes=30), "f"),
            False,
            id="another while a multipart upload went on",
        ),
        pytest.param(known(NOON + timedelta(hours=2), "f"), True, id="newer than the listing"),
    ],
)
def test_a_listed_object_is_known_by_content_and_time(newest: Drop, is_known: bool) -> None:
    assert LISTED.is_known(newest, NOON + timedelta(hours=2)) is is_known


def test_the_order_of_a_listed_object_is_above_what_is_known_and_below_what_comes() -> None:
    first = LISTED.to_drop(after=None)
    event = known(NOON)
    second = LISTED.to_drop(after=event)
    third = LISTED.to_drop(after=second)
    coming = "7" * 31 + "8"

    assert first.order < event.order < second.order < third.order < coming
    assert len(third.order) == len(first.order)
    assert [each.was_listed for each in (first, event, second, third)] == [True, False, True, True]
