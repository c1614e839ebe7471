"""Of which steps the records that come out are compared with those that went in."""

import json
from collections.abc import Iterable

from batch_transform.settings import (
    AssembleWith,
    BatchStrategy,
    JoinSource,
    SplitType,
    TransformSettings,
)
from batch_transform.tokens import is_token

# One value a line, whatever the model is: answers in these formats can be told apart by lines.
_LINES = ("text/csv", "application/jsonlines")


def record_checks(settings: Iterable[TransformSettings], *, wanted: bool) -> str:
    """Return as JSON how settle compares the records of each step; null: it does not."""
    checks = [_check(each) if wanted else None for each in settings]
    return json.dumps(checks, separators=(",", ":"))


def _check(settings: TransformSettings) -> dict[str, bool] | None:
    """Return how to compare, where fewer lines than were read can only be a loss.

    That is so where the service writes a line for each record: with a join, or of requests of one
    record each. Of a request of several it writes the answer as it is, and the format says whether
    that has a line for each.
    """
    request = settings.to_request()
    read, written = request["TransformInput"], request["TransformOutput"]
    if read["SplitType"] != SplitType.LINE or written.get("AssembleWith") != AssembleWith.LINE:
        return None
    joins = request.get("DataProcessing", {}).get("JoinSource") == JoinSource.INPUT
    single = request.get("BatchStrategy") == BatchStrategy.SINGLE_RECORD
    line_by_line = joins or single
    rows = media_type(read["ContentType"]) in (None, "text/csv")
    if not line_by_line and media_type(written.get("Accept")) not in _LINES:
        return None
    return {
        "gzip": read.get("CompressionType") == "Gzip",
        # A server that gets both lines of such a row in one request reads one row of them.
        "rows_span_lines": rows and not line_by_line,
    }


def media_type(value: str | None) -> str | None:
    """Return a content type without its parameters; `None`: nobody knows it at synth."""
    if value is None or is_token(value):
        return None
    return value.partition(";")[0].strip().lower()
