"""Times and sizes: CDK's, or plain ones.

The value objects take both, and need no more of them than is here. CDK takes a second to import
and starts Node, which a check of a YAML file does not wait for.
"""

from dataclasses import dataclass
from typing import Protocol

_MINUTE_S = 60
_HOUR_S = 3600
DAY_S = 86_400


class Duration(Protocol):
    """What is needed of an `aws_cdk.Duration`."""

    def to_seconds(self) -> float:
        """Return it in seconds."""

    def to_human_string(self) -> str:
        """Return it as a person writes it."""


class Size(Protocol):
    """What is needed of an `aws_cdk.Size`."""

    def to_bytes(self) -> float:
        """Return it in bytes."""


@dataclass(frozen=True, slots=True)
class Seconds:
    """A time that is no CDK object."""

    value: int

    def to_seconds(self) -> int:
        """Return it in seconds."""
        return self.value

    def to_human_string(self) -> str:
        """Return it in the largest units, as CDK does."""
        units = (("day", DAY_S), ("hour", _HOUR_S), ("minute", _MINUTE_S), ("second", 1))
        parts = []
        rest = self.value
        for name, length in units:
            count, rest = divmod(rest, length)
            if count:
                parts.append(f"{count} {name}{'s' * (count > 1)}")
        return " ".join(parts) or "0 seconds"


@dataclass(frozen=True, slots=True)
class Bytes:
    """A size that is no CDK object."""

    value: int

    def to_bytes(self) -> int:
        """Return it in bytes."""
        return self.value


def minutes(count: int) -> Seconds:
    """Return so many minutes."""
    return Seconds(count * _MINUTE_S)


def days(count: int) -> Seconds:
    """Return so many days."""
    return Seconds(count * DAY_S)


def gibibytes(count: int) -> Bytes:
    """Return so many GiB."""
    return Bytes(count * 2**30)
