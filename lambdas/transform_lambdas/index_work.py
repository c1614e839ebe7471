"""Cuts the outputs of a run into parts of about equal bytes, and an output's bytes into records."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

_PART_BYTES = 1024**2
_PARTS_LIMIT = 1000  # an inline Map's history: 25,000 events an execution


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
    outputs = list(outputs)
    part_bytes = max(part_bytes, -(-sum(output.size for output in outputs) // _PARTS_LIMIT))
    done: list[list[Range]] = []
    part: list[Range] = []
    room = part_bytes
    for output in outputs:
        start = 0
        while start < output.size:
            end = min(start + room, output.size)
            part.append(Range(output.key, start, end, output.source_key, output.dropped_at))
            room -= end - start
            start = end
            if not room:
                done.append(part)
                part, room = [], part_bytes
    if part:
        done.append(part)
    return done


def lines_in(chunks: Iterable[bytes], *, start: int, end: int, longest: int) -> Iterator[bytes]:
    """Yield the lines whose first byte lies in [start, end), without their line ends.

    :param chunks: the object's bytes from `max(start - 1, 0)` on, read no further than needed.
    :param longest: of a longer line something longer than this comes, not all of it, so that no
        line needs more memory than that and a chunk.
    """
    position = max(start - 1, 0)
    # The byte before a range tells whether a line begins with it, or further on.
    skipping = start > 0
    rest = b""
    left_out = 0  # bytes of the line that `rest` begins
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if not skipping:
                if position >= end:
                    return
                yield line.removesuffix(b"\r")
            skipping = False
            position += left_out + len(line) + 1
            left_out = 0
        if not skipping and position >= end:
            return
        if len(rest) > longest + 2:  # one that a line end may take off, and one too many
            left_out += len(rest) - longest - 2
            rest = rest[: longest + 2]
    if rest and not skipping and position < end:
        yield rest.removesuffix(b"\r")
