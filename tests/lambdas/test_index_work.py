from hypothesis import given
from hypothesis import strategies as st

from transform_lambdas.index_work import Output, parts


def outputs(*sizes: int) -> list[Output]:
    return [Output(f"out/{n}", size, f"in/{n}", "t") for n, size in enumerate(sizes)]


@given(st.lists(st.integers(0, 300), max_size=20), st.integers(1, 100))
def test_parts_hold_every_byte_once_and_about_as_much_each(sizes: list[int], limit: int) -> None:
    work = parts(outputs(*sizes), part_bytes=limit)
    sizes_of_parts = [sum(entry.end - entry.start for entry in part) for part in work]
    covered = [
        (entry.key, n) for part in work for entry in part for n in range(entry.start, entry.end)
    ]
    assert covered == [(f"out/{n}", byte) for n, size in enumerate(sizes) for byte in range(size)]
    assert all(size >= limit for size in sizes_of_parts[:-1])
    assert len(set(sizes_of_parts[:-1])) <= 1


def test_there_are_never_more_parts_than_an_execution_can_hold() -> None:
    assert len(parts(outputs(10**15))) == 1000


def test_a_part_of_small_outputs_has_no_more_of_them_than_a_call_can_ask_for() -> None:
    work = parts(outputs(*[1] * 2500))

    assert [len(part) for part in work] == [1000, 1000, 500]
