"""Figures from works that cost nothing."""

from collections.abc import Sequence

import pytest

from benchmarks.figures import Figure, measure
from benchmarks.works import Cost, Limit


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
