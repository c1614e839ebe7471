"""What a redrive tries again: failed drops, each in the newest version of its key."""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from batch_transform_cli.errors import BadValue, CommandError
from batch_transform_cli.pipeline_client import Drop

_DROPS_AT_ONCE = 20  # with the longest keys, ten such messages are below SQS's 256 KB a call
_AGO = re.compile(r"(\d+)([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """What is tried again, and which of the keys that were named is not, with its status."""

    drops: list[Drop]
    left: dict[str, str]


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


def choose(
    drops: Sequence[Drop], *, since: datetime | None = None, keys: Collection[str] = ()
) -> Choice:
    """Choose the failed drops that are the newest version of their key.

    :param drops: all that the ledger knows.
    :param since: leaves out what failed before.
    :param keys: leaves out all others; none is all keys.
    :raises CommandError: no drop has one of the keys.
    """
    newest: dict[str, Drop] = {}
    for drop in sorted(drops, key=lambda drop: drop.order):
        newest[drop.key] = drop
    unknown = [key for key in keys if key not in newest]
    if unknown:
        raise CommandError(
            f"--key must be the key of a drop, got {', '.join(map(repr, unknown))}; "
            "see `batch-transform status` for the keys"
        )
    wanted = [newest[key] for key in dict.fromkeys(keys)] if keys else list(newest.values())
    found = [drop for drop in wanted if drop.failed_at and _is_since(drop, since)]
    return Choice(
        drops=sorted(found, key=lambda drop: (drop.failed_at, drop.key)),
        left={drop.key: drop.status for drop in wanted if keys and drop not in found},
    )


def requests(drops: Sequence[Drop]) -> Iterator[dict[str, Any]]:
    """Yield the messages that ask intake for them."""
    for start in range(0, len(drops), _DROPS_AT_ONCE):
        yield {
            "redrive": [
                {"key": drop.key, "order": drop.order, "failed_at": drop.failed_at}
                for drop in drops[start : start + _DROPS_AT_ONCE]
            ]
        }


def _is_since(drop: Drop, since: datetime | None) -> bool:
    return since is None or datetime.fromisoformat(drop.failed_at) >= since
