"""What is to be indexed of a run, in parts."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from transform_lambdas.parts import cut

_PART_BYTES = 1024**2
_PARTS_LIMIT = 1000  # an inline Map's history: 25,000 events an execution
_RANGES_LIMIT = 1000  # each is a request to S3


@dataclass(frozen=True, slots=True)
class Output:
    """An output to index: its key and size, and what is written beside each of its records.

    :ivar dropped_at: the sort key of its predictions.
    """

    key: str
    size: int
    source_key: str
    dropped_at: str


@dataclass(frozen=True, slots=True)
class Range:
    """Records of one output: those whose first byte lies in [start, end)."""

    key: str
    start: int
    end: int
    source_key: str
    dropped_at: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def parts(outputs: Iterable[Output], *, part_bytes: int = _PART_BYTES) -> list[list[Range]]:
    """Pack small outputs together and cut big ones, so that no part is much over `part_bytes`."""
    return [
        [
            Range(output.key, start, end, output.source_key, output.dropped_at)
            for output, start, end in part
        ]
        for part in cut(
            ((output, output.size) for output in outputs),
            part_bytes=part_bytes,
            most_parts=_PARTS_LIMIT,
            most_ranges=_RANGES_LIMIT,
        )
    ]
