from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transform_lambdas.parts import cut, lines_in


@given(st.lists(st.integers(1, 300), max_size=20), st.integers(1, 100), st.integers(1, 5))
def test_what_must_stay_whole_is_cut_nowhere(
    sizes: list[int], part_bytes: int, most_ranges: int
) -> None:
    work = cut(
        list(enumerate(sizes)),
        part_bytes=part_bytes,
        most_parts=10**9,
        most_ranges=most_ranges,
        whole=True,
    )

    assert [piece for part in work for piece in part] == [
        (number, 0, size) for number, size in enumerate(sizes)
    ]
    for part in work:
        assert len(part) <= most_ranges
        assert sum(size for _, _, size in part[:-1]) < part_bytes


def read(data: bytes, start: int, end: int, chunk: int, longest: int = 99) -> list[bytes]:
    def chunks() -> Iterator[bytes]:
        for at in range(max(start - 1, 0), len(data), chunk):
            yield data[at : at + chunk]

    return list(lines_in(chunks(), start=start, end=end, longest=longest))


@given(
    st.lists(
        st.binary(max_size=6).filter(lambda line: b"\n" not in line and not line.endswith(b"\r"))
    ),
    st.booleans(),
    st.integers(1, 9),
    st.integers(1, 5),
)
def test_ranges_cut_anywhere_give_every_line_exactly_once(
    lines: list[bytes], last_newline: bool, range_size: int, chunk: int
) -> None:
    data = b"\n".join(lines) + (b"\n" if last_newline and lines else b"")
    expected = data.split(b"\n")
    if expected[-1] == b"":
        expected.pop()
    found = [
        line
        for start in range(0, len(data), range_size)
        for line in read(data, start, min(start + range_size, len(data)), chunk)
    ]
    assert found == expected


@pytest.mark.parametrize("data", [b"a\r\nb\r\n", b"a\r\nb"])
def test_a_windows_line_end_is_no_part_of_a_line(data: bytes) -> None:
    assert read(data, 0, len(data), 3) == [b"a", b"b"]


@given(
    st.lists(st.integers(0, 30).map(lambda size: b"x" * size)), st.integers(1, 9), st.integers(1, 5)
)
def test_of_a_line_that_is_too_long_comes_only_so_much_that_it_is_seen(
    lines: list[bytes], range_size: int, chunk: int
) -> None:
    longest = 7
    data = b"".join(line + b"\n" for line in lines)
    found = [
        line
        for start in range(0, len(data), range_size)
        for line in read(data, start, min(start + range_size, len(data)), chunk, longest)
    ]

    assert [line for line in found if len(line) <= longest] == [
        line for line in lines if len(line) <= longest
    ]
    assert [len(line) > longest for line in found] == [len(line) > longest for line in lines]
    assert all(len(line) <= longest + 2 + chunk for line in found)
