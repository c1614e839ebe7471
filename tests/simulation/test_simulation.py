"""No schedule of deaths, delays, doubles and throttles breaks an invariant of the ledger."""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from math import log2
from typing import Any

import pytest

from tests.simulation.aws import Faults
from tests.simulation.mutations import (
    MUTATIONS,
    each_execution_counts_anew,
    each_settlement_decides_anew_what_was_overtaken,
)
from tests.simulation.world import Broken, Plan, World, simulated

SEEDS, GROUPS = 2000, 4
FOUND_WITHIN = 200
CALM = Plan(
    faults=Faults(),
    uploads=3,
    keys=10**9,
    steps=1,
    slots=1,
    max_attempts=3,
    max_objects=100,
    poison=0,
    killer=None,
    quota=5,
    trouble_s=60,
)


@pytest.fixture(autouse=True)
def without_threads_and_logs() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    with simulated():
        yield
    logging.disable(logging.NOTSET)


def drops(world: World) -> list[dict[str, Any]]:
    return [item for item in world.ledger_table.items.values() if "drop_status" in item]


@pytest.mark.parametrize("group", range(GROUPS))
def test_no_schedule_breaks_an_invariant(group: int) -> None:
    for seed in range(group, SEEDS, GROUPS):
        try:
            World(seed).run()
        except Broken as problem:
            pytest.fail(f"{problem}; see it again: python -m tests.simulation {seed}")


def test_a_seed_is_the_same_history_again() -> None:
    def history(seed: int) -> tuple[int, float, object]:
        world = World(seed)
        world.run()
        return world.account.calls, world.scheduler.now_s, world.ledger_table.items

    assert history(12) == history(12)


def test_what_is_planned_to_go_wrong_does() -> None:
    """Else the other tests show nothing: over some seeds every kind of end and trouble occurs."""
    statuses: set[str] = set()
    jobs: set[str] = set()
    executions: set[str] = set()
    finished = lost = given_up = 0
    for seed in range(60):
        world = World(seed)
        world.run()
        statuses |= {drop["drop_status"] for drop in drops(world)}
        lost += sum("records went in" in drop.get("reason", "") for drop in drops(world))
        jobs |= {job.status for job in world.sagemaker.jobs.values()}
        executions |= {each.status for each in world.states.executions.values()}
        finished += sum("-f" in name for name in world.states.executions)
        given_up += world.uploads.given_up

    assert statuses == {"done", "failed", "superseded"}
    assert jobs >= {"Completed", "Failed", "Stopped"}
    assert executions == {"SUCCEEDED", "FAILED", "ABORTED"}
    assert finished > 10
    assert given_up > 10
    assert lost > 10


def test_an_upload_is_one_drop_though_events_and_backfills_tell_of_it_late_and_twice() -> None:
    plan = replace(
        CALM,
        faults=Faults(doubled=0.5, late=0.5),
        uploads=12,
        slots=2,
        trouble_s=3600,
        untold=0.3,
    )
    for seed in range(60):
        world = World(seed, plan)
        world.run()
        drops = [item["etag"] for item in world.ledger_table.items.values() if "etag" in item]
        assert len(drops) == len(set(drops)) == 12, f"seed {seed}"


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_a_planted_bug_is_found(mutation: Callable[[], AbstractContextManager[Any]]) -> None:
    with mutation():
        for seed in range(FOUND_WITHIN):
            try:
                World(seed).run()
            except Broken:
                return
    pytest.fail(f"a bug must be found within {FOUND_WITHIN} seeds, got none: {mutation.__name__}")


@pytest.mark.parametrize("after", [False, True], ids=["before the call", "after the call"])
@pytest.mark.parametrize("steps", [1, 2])
def test_a_function_that_dies_at_any_call_loses_nothing_and_scores_nothing_twice(
    steps: int, after: bool
) -> None:
    """The heart of the product: every call to AWS is once the last that its caller makes."""
    plan = replace(CALM, steps=steps, poison=0.4)
    dies_at = 0
    while True:
        dies_at += 1
        world = World(4, plan)
        world.account.dies_at, world.account.dies_after = dies_at, after
        try:
            world.run()
        except Broken as problem:
            pytest.fail(f"{problem}; died at call {dies_at}")
        assert sorted(drop["drop_status"] for drop in drops(world)) == ["done", "done", "failed"]
        assert {drop["attempts"] for drop in drops(world)} == {1}, f"died at call {dies_at}"
        if world.account.calls < dies_at:
            return  # the whole way takes fewer calls: each has been the last one once


def overwritten_at_each_call(*, after: bool, lossy: float) -> None:
    plan = replace(CALM, uploads=1, keys=1, lossy=lossy)
    dies_at = 0
    while True:
        dies_at += 1
        world = World(4, plan)
        account = world.account
        account.dies_at, account.dies_after = dies_at, after
        account.at_death = partial(world.overwrite, "input/0.csv", b"newer,bad\nnewerb,bad\n")
        world.run()
        if account.calls < dies_at:
            return


@pytest.mark.parametrize("after", [False, True], ids=["before the call", "after the call"])
@pytest.mark.parametrize("lossy", [0.0, 1.0])
def test_what_is_overwritten_when_a_function_dies_ends_as_was_decided(
    lossy: float, after: bool
) -> None:
    overwritten_at_each_call(after=after, lossy=lossy)


@pytest.mark.parametrize(
    ("bug", "lossy"),
    [(each_settlement_decides_anew_what_was_overtaken, 0.0), (each_execution_counts_anew, 1.0)],
)
def test_a_planted_bug_in_what_is_decided_once_is_found(
    bug: Callable[[], AbstractContextManager[Any]], lossy: float
) -> None:
    with bug(), pytest.raises(Broken):
        overwritten_at_each_call(after=True, lossy=lossy)


@pytest.mark.parametrize("after", [False, True], ids=["before the call", "after the call"])
def test_a_redrive_that_dies_at_any_call_is_done_once(after: bool) -> None:
    plan = replace(CALM, poison=1, redrives=1)
    calls = World(4, plan)
    calls.run()
    assert len(calls.states.executions) == 2
    for dies_at in range(1, calls.account.calls + 1):
        world = World(4, plan)
        world.account.dies_at, world.account.dies_after = dies_at, after
        try:
            world.run()
        except Broken as problem:
            pytest.fail(f"{problem}; died at call {dies_at}")
        assert {drop["drop_status"] for drop in drops(world)} == {"failed"}
        assert {drop["attempts"] for drop in drops(world)} == {1}, f"died at call {dies_at}"


@pytest.mark.parametrize("max_attempts", [2, 3])
@pytest.mark.parametrize("killer", range(0, 64, 7))
def test_an_object_that_kills_the_model_server_takes_no_other_one_down(
    killer: int, max_attempts: int
) -> None:
    uploads = 64
    plan = replace(CALM, uploads=uploads, max_attempts=max_attempts, killer=killer, slots=2)
    world = World(killer, plan)

    world.run()

    statuses = sorted(drop["drop_status"] for drop in drops(world))
    assert statuses == ["done"] * (uploads - 1) + ["failed"]
    # The batch, two halves of it and of each bad half, and the attempts of the one that is left.
    assert len(world.sagemaker.jobs) <= 2 * log2(uploads) + max_attempts + 1


def test_a_model_that_never_works_costs_a_batch_seven_jobs() -> None:
    world = World(1, replace(CALM, uploads=64, model_works=False, slots=2))

    world.run()

    assert {drop["drop_status"] for drop in drops(world)} == {"failed"}
    assert len(world.sagemaker.jobs) == 1 + 2 + 4
