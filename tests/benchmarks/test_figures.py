"""Figures from works that cost nothing."""

from collections.abc import Sequence

import pytest

from benchmarks.figures import Figure, measure
from benchmarks.works import Cost, Growth, Limit


def figures_of(cpu_s: dict[str, list[float]], limits: Sequence[Limit]) -> list[Figure]:
    work = Cost(
        title="a work",
        programs={name: iter(seconds).__next__ for name, seconds in cpu_s.items()},
        limits=limits,
    )
    return [*measure("work", work, without=(), rounds=3, judge=True, say=lambda text: None)]


@pytest.mark.parametrize(("at_most", "holds"), [(2.0, True), (1.9, False)])
def test_a_cost_is_held_against_its_limit_by_medians(at_most: float, holds: bool) -> None:
    limit = Limit(name="twice", of=lambda cpu_s: cpu_s["some"] / cpu_s["none"], at_most=at_most)

    (figure,) = figures_of({"none": [1, 9, 1], "some": [2, 2, 50]}, [limit])

    assert (figure.name, figure.reached, figure.holds) == ("work/twice", "2.00 x", holds)
    assert figure.details["cpu_s"] == {"none": 1, "some": 2}


@pytest.mark.parametrize(("calls", "holds"), [(1000, True), (1100, False)])
def test_a_cost_per_unit_is_held_from_the_smallest_to_the_largest_size(
    calls: float, holds: bool
) -> None:
    work = Growth(
        title="a work",
        unit="drop",
        measure=lambda: {
            10: {"calls": 100, "seconds": 1, "bytes": 7},
            100: {"calls": calls, "seconds": 90, "bytes": 5},
        },
        flat={"calls": 1.05, "seconds": None},
        under={"bytes": 7},
    )

    figures = [*measure("work", work, without=(), rounds=3, judge=True, say=lambda text: None)]

    assert [(figure.name, figure.holds) for figure in figures] == [
        ("work/calls", holds),
        ("work/seconds", None),
        ("work/bytes", False),
    ]
    assert figures[1].reached == "9.00 x"
