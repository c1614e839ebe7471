"""The queue through which everything that may let a run begin or end wakes dispatch."""

import json
from typing import Any

_DELAY_LIMIT_S = 900  # SQS delays a message no longer; dispatch then looks and asks again


class WakeQueue:
    """Sends wake-ups; each says only that it is worth looking."""

    def __init__(self, sqs: Any, url: str) -> None:
        self._sqs = sqs
        self._url = url

    def wake(self, *, after_s: float = 0) -> None:
        """Have dispatch look after so many seconds, rounded up to whole ones."""
        self._sqs.send_message(
            QueueUrl=self._url,
            MessageBody=json.dumps({}),
            DelaySeconds=min(-int(-after_s // 1), _DELAY_LIMIT_S),
        )
