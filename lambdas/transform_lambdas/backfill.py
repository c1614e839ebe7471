"""A backfill: what lies under a prefix becomes drops, but for what the ledger knows.

It is asked for by a message to intake's queue, and goes on by such messages, so that neither a
function's time nor a crash limits how much it can list. They carry where it is, never what it
found:

    {"backfill": {}}                                 all that the pipeline watches
    {"backfill": {"prefix": "input/2026/a.csv"}}     a part of it, or one object
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, Protocol, Self

from transform_lambdas import clock
from transform_lambdas.clock import Clock, utc_now
from transform_lambdas.drops import Drop, Listed
from transform_lambdas.intake_queue import IntakeQueue
from transform_lambdas.ledger import SUPERSEDED, Ledger
from transform_lambdas.uploads import Uploads
from transform_lambdas.wake_queue import WakeQueue

_PAGE = 1000  # objects; the most that S3 lists at once
_TIME_FOR_A_PAGE_S = 20  # several times what one takes
_AT_ONCE = 16

logger = logging.getLogger(__name__)


class Recorder(Protocol):
    """What writes drops down: intake."""

    def record(self, drop: Drop, *, since: str | None = None) -> Counter[str]:
        """Write a drop down, if it is new, and return what to count of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a backfill has come.

    :ivar after: the last key that was listed.
    :ivar listed: objects that could be drops.
    :ivar entered: those of them that the ledger did not know.
    """

    prefix: str
    started_at: str
    after: str = ""
    listed: int = 0
    entered: int = 0

    @classmethod
    def from_message(cls, asked: Mapping[str, Any], *, uploads: Uploads, now: datetime) -> Self:
        """Read what is asked for, or how far it has come.

        :raises ValueError: it is not of this pipeline's prefix.
        """
        progress = cls(**{"prefix": uploads.prefix, "started_at": clock.to_text(now), **asked})
        if not progress.prefix.startswith(uploads.prefix):
            raise ValueError(
                f"the prefix of a backfill must begin with {uploads.prefix!r}, "
                f"got {progress.prefix!r}; leave it out for all that the pipeline watches"
            )
        return progress


class Backfill:
    """Lists objects, enters those that the ledger does not know, and at its end makes them due."""

    def __init__(
        self,
        *,
        recorder: Recorder,
        ledger: Ledger,
        wake_queue: WakeQueue,
        s3: Any,
        bucket: str,
        intake_queue: IntakeQueue,
        uploads: Uploads,
        now: Clock = utc_now,
    ) -> None:
        self._recorder = recorder
        self._ledger = ledger
        self._wake_queue = wake_queue
        self._s3 = s3
        self._bucket = bucket
        self._intake_queue = intake_queue
        self._uploads = uploads
        self._now = now

    def go_on(self, asked: Mapping[str, Any], *, time_left_s: Callable[[], float]) -> Counter[str]:
        """List for as long as there is time; return what to count of it.

        Cut short and repeated, it lists again what it has listed, and enters nothing twice.
        """
        progress = Progress.from_message(asked, uploads=self._uploads, now=self._now())
        counts: Counter[str] = Counter()
        more = True
        while more and time_left_s() > _TIME_FOR_A_PAGE_S:
            progress, entered, more = self._page(progress)
            counts += entered
        if more:
            self._intake_queue.ask(asdict(progress))
        else:
            # As a marker object does: all that was found is due, whatever else it might wait for.
            self._ledger.mark(progress.started_at)
            logger.info(
                "the backfill of %r has come to its end: %d objects listed, %d of them entered",
                progress.prefix,
                progress.listed,
                progress.entered,
            )
        self._wake_queue.wake()
        return counts

    def _page(self, progress: Progress) -> tuple[Progress, Counter[str], bool]:
        listed_at = self._now()
        page = self._s3.list_objects_v2(
            Bucket=self._bucket, Prefix=progress.prefix, StartAfter=progress.after, MaxKeys=_PAGE
        )
        objects = [Listed.from_s3(entry) for entry in page.get("Contents", [])]
        found = [
            each
            for each in objects
            if self._uploads.is_named_as_drop(each.key) and not each.is_folder_marker
        ]
        enter = partial(self._enter, listed_at=listed_at, since=progress.started_at)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            counts = sum(pool.map(enter, found), Counter[str]())
        progress = replace(
            progress,
            after=objects[-1].key if objects else progress.after,
            listed=progress.listed + len(found),
            entered=progress.entered + counts["DropsReceived"],
        )
        return progress, counts, page["IsTruncated"]

    def _enter(self, found: Listed, *, listed_at: datetime, since: str) -> Counter[str]:
        known = self._ledger.newest_few(found.key)
        newest = known[0] if known else None
        if newest and newest.status != SUPERSEDED and found.is_known(newest.drop, listed_at):
            return Counter()
        drop = found.to_drop(after=newest.drop if newest else None)
        # The event of an older version may have come since, and have put that above this one.
        if any(each.status != SUPERSEDED and each.drop.is_same_upload(drop) for each in known):
            return Counter()
        # It waits from the backfill's start, not from its upload, or a thousand old objects would
        # all be scored before the one that was uploaded just now.
        return self._recorder.record(drop, since=since)
