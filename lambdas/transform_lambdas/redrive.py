"""A redrive: failed drops are tried again, as if they had just come.

It is asked for by messages to intake's queue, each of some drops, which say when they failed:

    {"redrive": [{"key": "input/a.csv", "order": "0062…", "failed_at": "2026-03-01T12:00:00.250Z"}]}

So a message that comes twice, or late, changes nothing more: what it speaks of has happened.
"""

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from transform_lambdas.drops import Drop
from transform_lambdas.ledger import Ledger
from transform_lambdas.uploads import Uploads
from transform_lambdas.wake_queue import WakeQueue

_AT_ONCE = 16  # calls to S3 and DynamoDB, each on a connection of its own

logger = logging.getLogger(__name__)


class Redrive:
    """Has failed drops wait again."""

    def __init__(
        self, *, ledger: Ledger, wake_queue: WakeQueue, s3: Any, bucket: str, uploads: Uploads
    ) -> None:
        self._ledger = ledger
        self._wake_queue = wake_queue
        self._s3 = s3
        self._bucket = bucket
        self._uploads = uploads

    def retry(self, asked: Sequence[Mapping[str, str]]) -> None:
        """Have each drop that is asked for wait again, unless that makes no sense any more.

        It may be cut short anywhere and repeated.
        """
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(self._retry_one, asked))
        self._wake_queue.wake()

    def _retry_one(self, asked: Mapping[str, str]) -> None:
        key, order, failed_at = asked["key"], asked["order"], asked["failed_at"]
        newest = self._ledger.newest(key)
        if newest is None:
            raise ValueError(f"a redrive must be of drops in the ledger, got {key!r}; correct it")
        drop = newest.drop
        if drop.order == order and not (why_not := self._why_not(drop)):
            self._ledger.retry(drop, failed_at=failed_at)
        elif drop.order == order:
            logger.warning("%s stays failed: %s", key, why_not)
        # Also when it is not the newest: it was, if this call is the repetition of another one.
        self._ledger.supersede(drop)

    def _why_not(self, drop: Drop) -> str | None:
        problem = self._uploads.problem(drop)
        if problem:
            return problem
        page = self._s3.list_objects_v2(Bucket=self._bucket, Prefix=drop.key, MaxKeys=1)
        if [entry["Key"] for entry in page.get("Contents", [])] != [drop.key]:
            return "its object is gone"
        return None
