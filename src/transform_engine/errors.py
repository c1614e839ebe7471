"""Errors of a run.

EngineError
├── ObjectFailed            one object has no output; the others go on
│   ├── BadInput            the object or a filter is at fault: ClientError
│   ├── ModelRefused        the model answered 4xx: ClientError
│   ├── ModelFailed         the model answered 5xx or another status: AlgorithmError
│   ├── NoAnswer            the model answered nothing, in time and retries: AlgorithmError
│   └── BadReply            the answer cannot be filtered or joined: AlgorithmError
└── InstanceFailed          no object can be transformed; says why in AWS's words and in ours

`ObjectFailed.lines` are what the service writes to the data-log about it (reference §4); its
`records` say which records of the object were in the request that failed, where that is known.
"""

from typing import ClassVar

_BODY_LINES = 200
_BODY_BYTES = 64 * 1024


class EngineError(Exception):
    """Base of every error that a run raises on purpose."""


class ObjectFailed(EngineError):
    """One object cannot be transformed."""

    fault: ClassVar[str] = "AlgorithmError"

    def __init__(self, *lines: str) -> None:
        super().__init__(" ".join(line for line in lines if line))
        self.lines = lines
        self.records = ""

    @property
    def reason(self) -> str:
        """All that a person needs to know, in one line: which records, and what was said."""
        return ": ".join(filter(None, (self.records, str(self))))

    @property
    def failure_reason(self) -> str:
        """The job's FailureReason."""
        return f"{self.fault}: See job logs for more information"


class BadInput(ObjectFailed):
    """The object's bytes, or a filter on them, are at fault."""

    fault = "ClientError"

    def __init__(self, message: str) -> None:
        super().__init__("ClientError: 400", "", "Message:", *message.splitlines())


class ModelRefused(ObjectFailed):
    """The model answered 4xx."""

    fault = "ClientError"

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"ClientError: {status}", "", "Message:", *_lines(body))


class ModelFailed(ObjectFailed):
    """The model answered neither 2xx nor 4xx."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(
            f"Bad HTTP status received from algorithm: {status}", "", "Message:", *_lines(body)
        )


class NoAnswer(ObjectFailed):
    """No answer in time, or the connection was lost, in every attempt."""

    def __init__(self, why: str = "") -> None:
        super().__init__("Unable to get response from algorithm")
        self.why = why


class BadReply(ObjectFailed):
    """The answer cannot be read as the filter or the join needs."""

    def __init__(self, message: str) -> None:
        super().__init__(*message.splitlines())


class InstanceFailed(EngineError):
    """The instance cannot work at all."""

    def __init__(self, failure_reason: str, detail: str) -> None:
        super().__init__(detail)
        self.failure_reason = failure_reason
        self.detail = detail


NO_PING = (
    "AlgorithmError: Model container failed to respond to ping. Please ensure /ping endpoint is "
    "implemented and responds with an HTTP 200 status code"
)
INTERNAL_ERROR = "InternalServerError: We encountered an internal error. Please try again."
SEE_LOGS = "ClientError: See job logs for more information"


def _lines(body: bytes) -> list[str]:
    # A model may answer an error with a page, or with what it was sent.
    return body[:_BODY_BYTES].decode(errors="replace").splitlines()[:_BODY_LINES]
