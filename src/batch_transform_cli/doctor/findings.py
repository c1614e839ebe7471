"""What a check says: good, doubtful, bad or not looked at, and what to do."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "fail", "skipped"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """An account and region."""

    account: str
    region: str

    @property
    def partition(self) -> str:
        """AWS's own, or that of China or of the US government."""
        for start, partition in (("cn-", "aws-cn"), ("us-gov-", "aws-us-gov")):
            if self.region.startswith(start):
                return partition
        return "aws"

    def __str__(self) -> str:
        """Return it for a person."""
        return f"account {self.account}, region {self.region}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What one check has found.

    :ivar topic: what kind of thing it is about: `quota`, `key`.
    :ivar found: the thing and how it is.
    :ivar fix: what to do; empty if there is nothing to do. A command stands on its own line.
    """

    level: Level
    topic: str
    found: str
    fix: str = ""


def ok(topic: str, found: str) -> Finding:
    """Say that it is as it must be."""
    return Finding(level="ok", topic=topic, found=found)


def warn(topic: str, found: str, fix: str) -> Finding:
    """Say that it may go wrong."""
    return Finding(level="warn", topic=topic, found=found, fix=fix)


def fail(topic: str, found: str, fix: str) -> Finding:
    """Say that it goes wrong."""
    return Finding(level="fail", topic=topic, found=found, fix=fix)


def skipped(topic: str, found: str, fix: str = "") -> Finding:
    """Say that it was not looked at, and why."""
    return Finding(level="skipped", topic=topic, found=found, fix=fix)
