"""The day on paper: what must hold of any simulation, and that the page says what it prints."""

from typing import Any

import pytest
from pydantic import ValidationError

from benchmarks.scale import model
from benchmarks.scale.__main__ import PAGE
from benchmarks.scale.inputs import COMMITTED, Inputs
from benchmarks.scale.report import results, tables, ways

INPUTS = Inputs.read(COMMITTED)
UPLOADS = 5_000
WAYS = ways(INPUTS)


def changed(**members: Any) -> Inputs:
    return Inputs.model_validate(INPUTS.model_dump() | members)


@pytest.mark.parametrize("way", WAYS)
def test_each_upload_ends_once_within_the_quota_and_pays_for_its_work(way: str) -> None:
    _, simulate = WAYS[way]

    day = simulate(UPLOADS)

    assert day.ended == UPLOADS
    assert 1 <= day.most_instances <= INPUTS.instance_quota
    instances = INPUTS.windows.instances if way.startswith("windows") else 1
    started_s = day.jobs * instances * INPUTS.billed_start_s
    assert day.instance_s == pytest.approx(UPLOADS * INPUTS.upload_s + started_s)
    shortest_s = INPUTS.job_start_s + INPUTS.billed_start_s + INPUTS.upload_s / instances
    assert min(wait_s for wait_s, _ in day.waits) >= shortest_s - 1e-6


def test_a_job_for_each_upload_waits_for_nothing_but_its_start_when_there_is_no_quota() -> None:
    day = model.job_per_upload(changed(instance_quota=10**6), UPLOADS)

    shortest_s = INPUTS.job_start_s + INPUTS.billed_start_s + INPUTS.upload_s
    assert [day.wait_s(share) for share in (0.01, 0.5, 1.0)] == [pytest.approx(shortest_s)] * 3
    assert day.jobs == UPLOADS


def test_a_job_for_each_upload_takes_as_long_as_the_quota_lets_it() -> None:
    uploads = 400_000
    one_s = INPUTS.job_start_s + INPUTS.billed_start_s + INPUTS.upload_s

    day = model.job_per_upload(INPUTS, uploads)

    # All instances are busy from the first burst on, so the last upload waits for all others.
    assert day.wait_s(1.0) == pytest.approx(uploads * one_s / 100 - model.DAY_S, rel=0.1)


def test_windows_make_one_job_each_and_no_upload_waits_longer_than_a_window_and_a_job() -> None:
    day = model.windows(INPUTS, UPLOADS)

    assert day.jobs <= model.DAY_S / INPUTS.windows.window_s
    work_s = UPLOADS * INPUTS.upload_s
    longest_s = INPUTS.windows.window_s + INPUTS.job_start_s + INPUTS.billed_start_s + work_s
    assert day.wait_s(1.0) <= longest_s


def test_our_runs_are_as_few_as_the_slots_and_hold_no_more_than_a_batch_may() -> None:
    settings = INPUTS.pipelines["default"]

    day = model.ours(INPUTS, settings, UPLOADS)

    assert day.most_instances <= settings.max_concurrent_runs
    assert UPLOADS / settings.max_objects <= day.jobs < UPLOADS


def test_the_uploads_of_a_day_come_within_it_and_mostly_in_bursts() -> None:
    groups = model.arrivals(INPUTS, 10**6, at_most=10**6)

    assert sum(group.uploads for group in groups) == 10**6
    assert all(0 <= group.at_s <= model.DAY_S for group in groups)
    busiest = sorted((group.uploads for group in groups), reverse=True)
    seconds = int(INPUTS.bursts_per_day * INPUTS.burst_s)
    assert sum(busiest[:seconds]) / 10**6 == pytest.approx(
        INPUTS.share_in_bursts + 0.2 * seconds / model.DAY_S, abs=0.02
    )


def test_the_size_of_groups_moves_no_percentile_by_much(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = INPUTS.pipelines["default"]
    grouped = model.ours(INPUTS, settings, 100_000)
    monkeypatch.setattr(model, "_GROUPS_A_BATCH", settings.max_objects)
    single = model.ours(INPUTS, settings, 100_000)

    for share in (0.5, 0.99):
        assert grouped.wait_s(share) == pytest.approx(single.wait_s(share), rel=0.03)
    assert grouped.instance_s == pytest.approx(single.instance_s, rel=0.03)


def test_the_page_has_what_the_command_prints() -> None:
    written = PAGE.read_text().splitlines()

    for line in tables([*results(INPUTS, up_to=1_000)]).splitlines():
        assert line in written


def test_fails_when_more_instances_are_asked_for_than_the_quota_has() -> None:
    with pytest.raises(ValidationError, match=r"pipelines\.large must ask for no more .* got 100"):
        changed(instance_quota=50)


def test_fails_when_a_call_has_no_price() -> None:
    prices = {kind: price for kind, price in INPUTS.prices.items() if kind != "sqs"}

    with pytest.raises(ValidationError, match=r"must have every kind .* \['sqs'\]; add them"):
        changed(prices=prices)
