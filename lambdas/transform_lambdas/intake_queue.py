"""The queue through which intake learns of uploads."""

import json
from typing import Any

# By then whoever asks has written down why.
_DELAY_S = 60


class IntakeQueue:
    """Asks intake to look at what lies under a key."""

    def __init__(self, sqs: Any, url: str) -> None:
        self._sqs = sqs
        self._url = url

    def look_for(self, key: str) -> None:
        """Have intake enter the version that a key holds, if the ledger does not know it."""
        self._sqs.send_message(
            QueueUrl=self._url,
            MessageBody=json.dumps({"backfill": {"prefix": key}}),
            DelaySeconds=_DELAY_S,
        )
