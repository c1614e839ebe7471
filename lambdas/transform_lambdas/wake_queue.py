"""The queue through which everything that may let a run begin or end wakes dispatch."""

import json
import math
from typing import Any


class WakeQueue:
    """Sends wake-ups; each says only that it is worth looking."""

    def __init__(self, sqs: Any, url: str) -> None:
        self._sqs = sqs
        self._url = url

    def wake(self, *, after_s: float = 0) -> None:
        """Have dispatch look after so many seconds, at most 900, rounded up to whole ones."""
        self._sqs.send_message(
            QueueUrl=self._url,
            MessageBody=json.dumps({}),
            DelaySeconds=math.ceil(after_s),
        )
