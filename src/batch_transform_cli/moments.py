"""Moments as people write them: a time, or how long ago."""

import re
from datetime import UTC, datetime, timedelta

from batch_transform_cli.errors import BadValue

_AGO = re.compile(r"(\d+)([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def moment(text: str, *, now: datetime, option: str = "--since") -> datetime:
    """Read `2h`, `30m` or `7d` as so long ago, or a time of ISO 8601, which is UTC without a zone.

    :param option: that has the text.
    :raises BadValue: it is neither.
    """
    ago = _AGO.fullmatch(text)
    try:
        if ago is not None:
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        found = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise BadValue(
            f"{option} must be a time such as 2026-03-01T14:00Z, or 30m, 2h, 7d ago, got {text!r}; "
            "give one of these"
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
