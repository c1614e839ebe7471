"""Follows what was dropped until it has ended."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from rich.console import RenderableType

from batch_transform_cli.drop.upload import Version
from batch_transform_cli.errors import CommandError
from batch_transform_cli.job.progress import bar, clock_time
from batch_transform_cli.pipelines.records import Drop
from batch_transform_cli.screen import counted, printable

_PAUSE_S = 0.5
_SAME_UPLOAD = timedelta(seconds=5)  # S3 dates an answer and an event in whole seconds, each
_NOT_TAKEN = "not taken yet"


class Ledger(Protocol):
    """What knows the drops of a key, the oldest first."""

    def versions(self, key: str) -> Sequence[Drop]:
        """Return them."""


class Following:
    """What became of each upload so far, by key; `None` for one that was not taken yet."""

    def __init__(
        self, sent: Mapping[str, Version], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.clock = clock
        self.drops: dict[str, Drop | None] = dict.fromkeys(sent)
        self._sent = sent
        self._begun = clock()

    @property
    def open_keys(self) -> list[str]:
        """The keys whose drops have not ended."""
        return [key for key, drop in self.drops.items() if drop is None or drop.is_open]

    @property
    def line(self) -> str:
        """How far it is, in a line."""
        counts = Counter(
            _NOT_TAKEN if drop is None else drop.status for drop in self.drops.values()
        )
        ended = len(self.drops) - len(self.open_keys)
        said = [f"{ended:,} of {counted(len(self.drops), 'drop')} ended"]
        said += [f"{count:,} {status}" for status, count in sorted(counts.items())]
        return ", ".join([*said, clock_time(self.clock() - self._begun)])

    @property
    def picture(self) -> RenderableType:
        """How far it is, for a terminal."""
        ended = len(self.drops) - len(self.open_keys)
        fraction = ended / len(self.drops) if ended else None
        return bar("scoring", fraction, self.line, at=self.clock())

    def look(self, ledger: Ledger) -> list[str]:
        """Look at what is open, and return a line for each that is not as it was."""
        lines = []
        for key in self.open_keys:
            now, before = find(ledger.versions(key), self._sent[key]), self.drops[key]
            if now is not None and (before is None or before.status != now.status):
                reason = f" ({now.reason})" if now.reason else ""
                lines.append(printable(f"drop {key}: {now.status}{reason}"))
            self.drops[key] = now
        return lines


def find(versions: Sequence[Drop], sent: Version) -> Drop | None:
    """Return the drop of an upload, if it is known already.

    :param versions: of its key, the oldest first.
    """
    for drop in reversed(versions):
        if drop.etag != sent.etag:
            continue
        # A backfill lists no versions, and a bucket may keep none; then the time has to tell.
        if drop.version_id and drop.version_id == sent.version_id:
            return drop
        is_recent = datetime.fromisoformat(drop.dropped_at) >= sent.at - _SAME_UPLOAD
        if not (drop.version_id and sent.version_id) and is_recent:
            return drop
    return None


def follow(
    following: Following,
    ledger: Ledger,
    *,
    limit_s: float,
    show: Callable[[], None],
    say: Callable[[str], None],
) -> None:
    """Look until every drop has ended, and say what changes.

    :raises CommandError: they have not within `limit_s`.
    """
    deadline = following.clock() + limit_s
    while True:
        begun = following.clock()
        for line in following.look(ledger):
            say(line)
        show()
        left = following.open_keys
        if not left:
            return
        if following.clock() > deadline:
            raise CommandError(_too_late(following, left, limit_s))
        # A round of many keys takes its time; let it be half of it.
        time.sleep(max(_PAUSE_S, following.clock() - begun))


def _too_late(following: Following, left: Sequence[str], limit_s: float) -> str:
    untaken = [key for key in left if following.drops[key] is None]
    remedy = (
        f"intake has not taken {untaken[0]!r}: see `batch-transform status`, and that 'Amazon "
        "EventBridge' is on in the input bucket's properties"
        if untaken
        else "they go on without this command; see `batch-transform status`, or give a longer "
        "--wait-s"
    )
    return f"every drop must end within {limit_s:g} s, got {len(left)} still open; {remedy}"
