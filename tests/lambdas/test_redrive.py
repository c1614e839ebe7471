"""Failed drops that are asked for again."""

from dataclasses import replace
from typing import Any

from transform_lambdas.drops import Drop
from transform_lambdas.uploads import Uploads

World = Any  # conftest's

BAD_ROW = "ClientError: 400: row 7 is bad"


def item(world: World, drop: Drop) -> dict[str, Any]:
    """Return the ledger's item of a drop."""
    key = {"pk": f"key#{drop.key}", "sk": f"drop#{drop.order}"}
    found: dict[str, Any] = world.ledger_table.get_item(Key=key)["Item"]
    return found


def request(world: World, *drops: Drop) -> dict[str, Any]:
    """Return the message that asks for failed drops again."""
    return {
        "redrive": [
            {"key": drop.key, "order": drop.order, "failed_at": item(world, drop)["ended_at"]}
            for drop in drops
        ]
    }


def run(world: World) -> list[str]:
    """Let time pass and what is due be run; return the keys that were in it."""
    world.pass_time(61)
    tried = []
    for run_id in world.dispatch():
        world.execute(run_id)
        world.execution_ended(run_id)
        tried += [drop.key for drop in world.files.read_plan(run_id)]
    return sorted(tried)


def failed(world: World, *keys: str) -> list[Drop]:
    """Upload objects that the model refuses, and have them fail."""
    drops = [world.drop(key) for key in keys]
    world.jobs.said.update(dict.fromkeys(keys, BAD_ROW))
    assert run(world) == sorted(keys)
    assert world.statuses() == dict.fromkeys(keys, "failed")
    return drops


def test_a_failed_drop_is_scored_when_the_model_is_mended_and_another_one_is_left(
    world: World,
) -> None:
    first, second = failed(world, "input/a.csv", "input/b.csv")
    world.jobs.said.clear()

    assert not world.take(request(world, first))

    assert world.wake_ups()
    assert run(world) == ["input/a.csv"]
    assert world.statuses() == {"input/a.csv": "done", "input/b.csv": "failed"}
    assert world.prediction("input/a.csv") == b"1,2\n"
    assert "reason" not in item(world, first)
    assert item(world, second)["reason"].endswith(BAD_ROW)
    assert world.permits_held() == []


def test_it_has_all_its_attempts_again_and_no_group(world: World) -> None:
    (drop,) = failed(world, "input/a.csv")
    key = {"pk": f"key#{drop.key}", "sk": f"drop#{drop.order}"}
    world.ledger_table.update_item(
        Key=key,
        UpdateExpression="SET attempts = :a, tried_with = :g, first_returned_at = :t",
        ExpressionAttributeValues={":a": 3, ":g": "02#run-a", ":t": "2026-03-01T12:00:00.000Z"},
    )
    world.pass_time(3600)

    world.take(request(world, drop))

    found = item(world, drop)
    assert (found["drop_status"], found["attempts"]) == ("waiting", 0)
    assert found["due"].startswith("2026-03-01T13:01")
    assert not {"ended_at", "tried_with", "first_returned_at"} & set(found)


def test_a_request_that_comes_again_changes_nothing(world: World) -> None:
    (drop,) = failed(world, "input/a.csv")
    asked = request(world, drop)

    assert not world.take(asked, asked)
    assert world.statuses() == {"input/a.csv": "waiting"}
    assert run(world) == ["input/a.csv"]
    assert world.statuses() == {"input/a.csv": "failed"}

    assert not world.take(asked)
    assert world.statuses() == {"input/a.csv": "failed"}


def test_only_what_has_failed_is_tried_again(world: World) -> None:
    drop = world.drop("input/a.csv")
    asked = {"redrive": [{"key": drop.key, "order": drop.order, "failed_at": "2026"}]}

    assert not world.take(asked)
    assert world.statuses() == {"input/a.csv": "waiting"}
    assert run(world) == ["input/a.csv"]
    assert not world.take(asked)
    assert world.statuses() == {"input/a.csv": "done"}


def test_an_older_version_of_its_key_is_not(world: World) -> None:
    (old,) = failed(world, "input/a.csv")
    asked = request(world, old)
    world.drop("input/a.csv", b"3,4\n")

    assert not world.take(asked)

    assert world.statuses() == {"input/a.csv": "failed, waiting"}


def test_one_that_was_overtaken_while_it_was_asked_for_is_superseded(world: World) -> None:
    """A newer version may come between any two calls, and the function may die after any."""
    (old,) = failed(world, "input/a.csv")
    asked = request(world, old)
    world.ledger.retry(old, failed_at=asked["redrive"][0]["failed_at"])
    world.ledger.record(replace(old, order="9"))

    assert not world.take(asked)

    assert world.statuses() == {"input/a.csv": "superseded, waiting"}


def test_one_whose_object_is_gone_stays_failed(world: World) -> None:
    (drop,) = failed(world, "input/a.csv")
    world.s3.put_object(Bucket="input-bucket", Key="input/a.csv.gz", Body=b"1")
    world.s3.delete_object(Bucket="input-bucket", Key="input/a.csv")

    assert not world.take(request(world, drop))

    assert world.statuses() == {"input/a.csv": "failed"}


def test_one_that_was_too_large_is_tried_again_when_it_is_no_more(world: World) -> None:
    world.uploads = Uploads(prefix="input/", max_bytes=1)
    drop = world.drop("input/a.csv")
    assert world.statuses() == {"input/a.csv": "failed"}

    world.take(request(world, drop))
    assert world.statuses() == {"input/a.csv": "failed"}

    world.uploads = Uploads(prefix="input/")
    world.take(request(world, drop))
    assert run(world) == ["input/a.csv"]


def test_a_request_that_makes_no_sense_comes_again_and_holds_up_no_other(world: World) -> None:
    (drop,) = failed(world, "input/a.csv")
    unknown = {"redrive": [{"key": "input/b.csv", "order": "1", "failed_at": "2026"}]}

    assert world.take(unknown, {"redrive": [{}]}, request(world, drop)) == ["0", "1"]

    assert world.statuses() == {"input/a.csv": "waiting"}
