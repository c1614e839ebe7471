"""Time as the ledger writes it: UTC text of fixed width, so that its order is the order of time."""

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """Return the present moment, aware of its zone."""
    return datetime.now(UTC)


def to_text(moment: datetime) -> str:
    """Return e.g. `2026-03-01T12:00:00.250Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def from_text(text: str) -> datetime:
    """Read what `to_text`, S3 and EventBridge write."""
    return datetime.fromisoformat(text)
