from typing import Any

World = Any  # conftest's


def test_a_drop_has_at_most_one_live_claim(world: World) -> None:
    drops = [world.drop(f"input/{number}.csv") for number in range(120)]
    assert world.ledger.open_run("one", slot=0, drops=120, look_again_s=60)
    assert len(world.ledger.claim("one", drops[:70])) == 70
    world.ledger.end_claiming("one", drops=70, size_bytes=0)
    assert world.ledger.open_run("two", slot=1, drops=120, look_again_s=60)

    assert world.ledger.claim("two", drops) == drops[70:]
    assert not world.ledger.finish_drop("two", drops[0], output="x")
    assert world.ledger.finish_drop("one", drops[0], output="x")
    assert not world.ledger.finish_drop("one", drops[0], output="x")


def test_a_claim_cut_short_can_be_repeated(world: World) -> None:
    drops = [world.drop(f"input/{number}.csv") for number in range(3)]
    world.ledger.open_run("one", slot=0, drops=3, look_again_s=60)
    assert world.ledger.claim("one", drops[:2]) == drops[:2]
    assert world.ledger.claim("one", drops) == drops


def test_a_run_that_has_gone_on_claims_nothing_more(world: World) -> None:
    drop = world.drop("input/a.csv")
    world.ledger.open_run("one", slot=0, drops=1, look_again_s=60)
    world.ledger.end_claiming("one", drops=0, size_bytes=0)
    assert world.ledger.claim("one", [drop]) is None
    assert world.statuses() == {"input/a.csv": "waiting"}


def test_a_taken_slot_or_a_gathering_run_keeps_another_from_opening(world: World) -> None:
    assert world.ledger.open_run("one", slot=0, drops=1, look_again_s=60)
    assert not world.ledger.open_run("two", slot=0, drops=1, look_again_s=60)
    assert not world.ledger.open_run("two", slot=1, drops=1, look_again_s=60)
    world.ledger.end_claiming("one", drops=1, size_bytes=0)
    assert not world.ledger.open_run("two", slot=0, drops=1, look_again_s=60)
    assert world.ledger.run("two") is None
    assert world.ledger.open_run("two", slot=1, drops=1, look_again_s=60)


def test_a_run_that_could_claim_nothing_leaves_no_trace(world: World) -> None:
    world.ledger.open_run("one", slot=0, drops=1, look_again_s=60)
    world.ledger.abandon(world.ledger.run("one"))
    assert world.ledger.run("one") is None
    assert world.permits_held() == []


def test_a_run_is_not_abandoned_by_one_who_claimed_nothing_when_another_did(world: World) -> None:
    drop = world.drop("input/a.csv")
    world.ledger.open_run("one", slot=0, drops=1, look_again_s=60)
    slow = world.ledger.run("one")
    assert world.ledger.claim("one", [drop]) == [drop]

    assert not world.ledger.abandon(slow)

    assert world.ledger.run("one").status == "claiming"
    assert world.ledger.end_claiming("one", drops=1, size_bytes=0)


def test_fewer_slots_than_are_taken_let_no_run_begin(world: World) -> None:
    for number in (0, 1, 2):
        world.ledger.open_run(f"run-{number}", slot=number, drops=1, look_again_s=60)
        world.ledger.end_claiming(f"run-{number}", drops=1, size_bytes=0)
    world.ledger.settle_run(world.ledger.run("run-0"), {})

    assert world.ledger.free_slot(2) is None
    assert world.ledger.free_slot(3) == 0


def test_of_two_who_look_at_a_run_one_takes_it_on(world: World) -> None:
    world.ledger.open_run("one", slot=0, drops=1, look_again_s=60)
    assert world.ledger.runs_to_look_at() == []
    world.pass_time(60)
    (run,) = world.ledger.runs_to_look_at()
    assert world.ledger.look_later(run, 60)
    assert not world.ledger.look_later(run, 60)


def test_waiting_drops_come_oldest_first_whatever_their_shard(world: World) -> None:
    for number in range(20):
        world.drop(f"input/{number}.csv")
        world.pass_time(1)
    assert [entry.drop.key for entry in world.ledger.waiting()] == [
        f"input/{number}.csv" for number in range(20)
    ]
