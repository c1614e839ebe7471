"""The queue through which intake learns of uploads, and is asked to look for them."""

import json
from collections.abc import Mapping
from typing import Any


class IntakeQueue:
    """Asks intake for backfills; see `backfill` for what is asked."""

    def __init__(self, sqs: Any, url: str) -> None:
        self._sqs = sqs
        self._url = url

    def ask(self, backfill: Mapping[str, Any], *, after_s: int = 0) -> None:
        """Have intake begin a backfill, or go on with one, after so many seconds."""
        self._sqs.send_message(
            QueueUrl=self._url,
            MessageBody=json.dumps({"backfill": backfill}),
            DelaySeconds=after_s,
        )
