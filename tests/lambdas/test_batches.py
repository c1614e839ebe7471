from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transform_lambdas.batches import BatchPolicy, Waiting
from transform_lambdas.drops import Drop

NOW = datetime(2026, 3, 1, 12, 1, 0, tzinfo=UTC)


def waiting(
    key: str, *, size: int = 1, since: str = "2026-03-01T12:00:30.000Z", order: str = "1"
) -> Waiting:
    return Waiting(Drop(key, order, size, "etag", "", since), since)


def policy(*, max_wait_s: float = 60, max_objects: int = 3, max_bytes: int = 100) -> BatchPolicy:
    return BatchPolicy(max_wait_s=max_wait_s, max_objects=max_objects, max_bytes=max_bytes)


@pytest.mark.parametrize(
    ("entries", "marked_at", "left"),
    [
        pytest.param([waiting("a")], None, 30, id="young and small: not yet"),
        pytest.param([waiting("a", since="2026-03-01T12:00:00.000Z")], None, 0, id="old enough"),
        pytest.param([waiting(key) for key in "abc"], None, 0, id="enough objects"),
        pytest.param([waiting("a", size=100)], None, 0, id="enough bytes"),
        pytest.param([waiting("a", size=60), waiting("b", size=60)], None, 0, id="no room left"),
        pytest.param([waiting("a")], "2026-03-01T12:00:30.000Z", 0, id="marked after it came"),
        pytest.param([waiting("a")], "2026-03-01T12:00:29.000Z", 30, id="marked before it came"),
    ],
)
def test_a_batch_is_due_by_age_count_bytes_or_marker(
    entries: list[Waiting], marked_at: str | None, left: float
) -> None:
    batch = policy().cut(entries)
    assert policy().wait_left_s(batch, now=NOW, marked_at=marked_at) == left


def test_a_drop_larger_than_a_batch_is_one_of_its_own() -> None:
    batch = policy().cut([waiting("a", size=1000), waiting("b")])
    assert [drop.key for drop in batch.drops] == ["a"]


def test_two_versions_of_a_key_are_never_in_one_batch() -> None:
    batch = policy().cut([waiting("a", order="1", size=10), waiting("a", order="2", size=20)])
    assert [(drop.order, batch.size_bytes) for drop in batch.drops] == [("2", 20)]


def test_fails_when_nothing_is_asked_about() -> None:
    with pytest.raises(ValueError, match="must hold a drop"):
        policy().wait_left_s(policy().cut([]), now=NOW, marked_at=None)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 150)), max_size=20))
def test_a_batch_keeps_its_limits_and_takes_the_oldest_first(drops: list[tuple[str, int]]) -> None:
    entries = [waiting(key, size=size, order=str(n)) for n, (key, size) in enumerate(drops)]
    batch = policy().cut(entries)
    keys = [drop.key for drop in batch.drops]
    assert len(keys) == len(set(keys)) <= 3
    assert keys == list(dict.fromkeys(key for key, _ in drops))[: len(keys)]
    assert batch.size_bytes == sum(drop.size for drop in batch.drops)
