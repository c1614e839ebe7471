from datetime import UTC, datetime, timedelta

import pytest

from batch_transform_cli.errors import CommandError
from batch_transform_cli.moments import moment

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90m", NOON - timedelta(minutes=90)),
        ("2h", NOON - timedelta(hours=2)),
        ("7d", NOON - timedelta(days=7)),
        ("2026-03-01T09:30", NOON - timedelta(hours=2.5)),
        ("2026-03-01T10:30+01:00", NOON - timedelta(hours=2.5)),
        ("2026-03-01T09:30:00Z", NOON - timedelta(hours=2.5)),
    ],
)
def test_a_moment_is_a_time_or_so_long_ago(text: str, expected: datetime) -> None:
    assert moment(text, now=NOON) == expected


@pytest.mark.parametrize("text", ["yesterday", "2 h", "", "99999999999d"])
def test_fails_when_since_is_no_moment(text: str) -> None:
    with pytest.raises(CommandError, match=r"--since must be a time such as .*; give one of these"):
        moment(text, now=NOON)
