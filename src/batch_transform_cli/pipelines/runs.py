"""Which runs somebody asks for."""

from collections.abc import Collection, Iterable
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command's options need the outcomes, and no boto3
    from batch_transform_cli.pipelines.records import Run


class Outcome(StrEnum):
    """What runs can be narrowed by."""

    COMPLETED = "Completed"
    PARTIALLY_COMPLETED = "PartiallyCompleted"
    FAILED = "Failed"
    NONE = "none"


def narrowed(
    runs: "Iterable[Run]", *, outcomes: Collection[Outcome], since: datetime | None
) -> "list[Run]":
    """Return those that ended so, and began since.

    :param outcomes: none is all; `NONE` is of those that are not settled.
    """
    return [
        run
        for run in runs
        if (not outcomes or (run.outcome or Outcome.NONE) in outcomes)
        and (since is None or datetime.fromisoformat(run.opened_at) >= since)
    ]
