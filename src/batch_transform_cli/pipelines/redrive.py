"""What a redrive tries again: failed drops, each in the newest version of its key."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from batch_transform_cli.errors import CommandError
from batch_transform_cli.pipelines.records import Drop

_DROPS_AT_ONCE = 20  # with the longest keys, ten such messages are below SQS's 256 KB a call


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """What is tried again, and which of the keys that were named is not, with its status."""

    drops: list[Drop]
    left: dict[str, str]


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
