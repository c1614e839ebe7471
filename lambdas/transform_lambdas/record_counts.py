"""Counts the records that went into the steps of a run and that came out of them, and compares.

A record is a line that holds something: what the service cuts at, and what it writes behind each
answer. An empty line is no prediction; whether one that goes in is a record, the service's guide
does not say, so none has to be answered.

Objects may be gigabytes, so the work is cut into parts, and a Map of the state machine has each
counted by a call of its own.
"""

import gzip
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from botocore.exceptions import ClientError

from transform_lambdas.drops import Drop
from transform_lambdas.inputs import Inputs
from transform_lambdas.parts import cut, lines_in
from transform_lambdas.run_files import RunFiles, Step

_PART_BYTES = 64 * 1024**2
_GZIP_PART_BYTES = 8 * 1024**2
_GZIP_RATIO = 10  # how much longer it is to read than its bytes say
_PARTS_LIMIT = 200  # each takes eight of the 25,000 events of an execution
_RANGES_LIMIT = 500  # each is a request to S3
_TOTAL_LIMIT_BYTES = 1000 * 1024**3  # 5 GiB a part, which a function reads within its 15 minutes
_UNPACKED_LIMIT_BYTES = 16 * 1024**3  # gzip cannot be cut, so one call has to read it all
_LINE_LIMIT_BYTES = 1024**2  # of a longer line no more is kept in memory
_CHUNK_BYTES = 1024**2
_AT_ONCE = 8

_UNREADABLE = {
    "NoSuchKey": "the object was removed before its records were counted",
    "PreconditionFailed": "the object was replaced before its records were counted",
    "AccessDenied": "the function settle may not read the object",
}
_TOO_MUCH = f"the run has more than {_TOTAL_LIMIT_BYTES / 1024**3:,.0f} GiB to count"
_IN_VAIN = "the executions that were to count them died; the log of settle says of what"
_TOO_LONG = f"the object unpacks to more than {_UNPACKED_LIMIT_BYTES / 1024**3:g} GiB"
_NO_GZIP = "the object could not be decompressed"
_SPANS = "some of its lines end inside quotes, so that lines are not rows"


@dataclass(frozen=True, slots=True)
class Check:
    """How the records of a step are counted.

    :ivar gzip: what it reads is compressed.
    :ivar rows_span_lines: a row with quotes may go on in the next line, and have one answer.
    """

    gzip: bool = False
    rows_span_lines: bool = False


@dataclass(frozen=True, slots=True)
class Compared:
    """What is known of the records of a drop.

    :ivar records_in: that the first step has read; `None`: they were not counted.
    :ivar records_out: that the last step has written; `None`: they were not counted.
    :ivar short: the step that wrote fewer than it has read, and both numbers.
    :ivar not_compared: why a step was not looked at that could have been; else empty.
    """

    records_in: int | None = None
    records_out: int | None = None
    short: tuple[Step, int, int] | None = None
    not_compared: str = ""


@dataclass(frozen=True, slots=True)
class _Object:
    """Something that a step has read or written.

    :ivar key: of the drop.
    :ivar step: whose output it is; 0 is the drop itself.
    :ivar name: its key in S3.
    :ivar quotes: whether lines that end inside quotes are told apart.
    """

    key: str
    step: int
    name: str
    etag: str
    gzip: bool
    quotes: bool


@dataclass(frozen=True, slots=True)
class _Count:
    """Lines of an object: all that hold something, and those of them that end inside quotes.

    :ivar unknown: why nobody knows; empty if they were counted.
    """

    lines: int = 0
    open: int = 0
    unknown: str = ""

    def __add__(self, other: "_Count") -> "_Count":
        return _Count(
            self.lines + other.lines, self.open + other.open, self.unknown or other.unknown
        )


class _TooLong(Exception):
    """There is more to read than one call has time for."""


class RecordCounts:
    """Plans, counts and compares; each may be repeated."""

    def __init__(
        self,
        *,
        files: RunFiles,
        inputs: Inputs,
        steps: Sequence[Step],
        checks: Sequence[Check | None],
    ) -> None:
        self._files = files
        self._inputs = inputs
        self._steps = steps
        self._checks = {
            step.number: check
            for step, check in zip(steps, checks, strict=True)
            if check is not None
        }

    def compares(self, step: Step) -> bool:
        """Whether the records of a step are compared."""
        return step.number in self._checks

    def plan(self, run_id: str, drops: Sequence[Drop]) -> int:
        """Write down what there is to count, in parts, and return how many.

        :param drops: those that have predictions.
        """
        plain: list[tuple[_Object, int]] = []
        packed: list[tuple[_Object, int]] = []
        for number in sorted({*self._checks, *(number - 1 for number in self._checks)}):
            writer = self._steps[number - 1] if number else None
            reader = self._checks.get(number + 1, Check())
            sizes = self._files.output_sizes(run_id, writer) if writer else {}
            for drop in drops:
                each = _Object(
                    key=drop.key,
                    step=number,
                    name=writer.output_key(run_id, drop.key) if writer else drop.key,
                    etag="" if writer else drop.etag,
                    gzip=reader.gzip,
                    quotes=reader.rows_span_lines,
                )
                # An empty object has no range, but a count.
                size = max(sizes[drop.key] if writer else drop.size, 1)
                (packed if reader.gzip else plain).append((each, size))
        total = sum(size for _, size in plain) + _GZIP_RATIO * sum(size for _, size in packed)
        if total > _TOTAL_LIMIT_BYTES:
            return 0
        pack = partial(cut, most_parts=_PARTS_LIMIT, most_ranges=_RANGES_LIMIT)
        parts = [
            *pack(plain, part_bytes=_PART_BYTES),
            *pack(packed, part_bytes=_GZIP_PART_BYTES, whole=True),
        ]
        for number, part in enumerate(parts):
            work = [[asdict(each), start, end] for each, start, end in part]
            self._files.write_count_work(run_id, number, work)
        return len(parts)

    def count(self, run_id: str, part: int) -> None:
        """Count the lines of one part, and write them down."""
        work = self._files.read_count_work(run_id, part)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            counts = pool.map(lambda piece: self._count(_Object(**piece[0]), *piece[1:]), work)
            found = [
                [each["key"], each["step"], asdict(count)]
                for (each, _, _), count in zip(work, counts, strict=True)
            ]
        self._files.write_counts(run_id, part, found)

    def _count(self, each: _Object, start: int, end: int) -> _Count:
        try:
            return self._count_lines(each, start, end)
        except ClientError as error:
            why = _UNREADABLE.get(error.response["Error"]["Code"])
            if why is None:
                raise
            return _Count(unknown=why)
        except (gzip.BadGzipFile, EOFError, zlib.error):
            return _Count(unknown=_NO_GZIP)
        except _TooLong:
            return _Count(unknown=_TOO_LONG)

    def _count_lines(self, each: _Object, start: int, end: int) -> _Count:
        owner = self._files if each.step else self._inputs
        if each.gzip:
            end = 1 << 62  # of what it unpacks to
            chunks = _unpacked(owner.open(each.name, etag=each.etag))
        else:
            chunks = owner.chunks(each.name, start=max(start - 1, 0), etag=each.etag)
        lines = open_lines = 0
        for line in lines_in(chunks, start=start, end=end, longest=_LINE_LIMIT_BYTES):
            if line:
                lines += 1
                if each.quotes and (len(line) > _LINE_LIMIT_BYTES or line.count(b'"') % 2):
                    open_lines += 1
        return _Count(lines, open_lines)

    def compare(
        self, run_id: str, keys: Iterable[str], *, parts: int, in_vain: bool = False
    ) -> dict[str, Compared]:
        """Say of each of these drops, which have predictions, what its records are.

        :param parts: that were counted.
        :param in_vain: it was tried and given up.
        """
        counts: dict[tuple[str, int], _Count] = {}
        for part in range(parts):
            for key, step, count in self._files.read_counts(run_id, part):
                counts[key, step] = counts.get((key, step), _Count()) + _Count(**count)
        uncounted = _Count(unknown=_IN_VAIN if in_vain else _TOO_MUCH)
        return {key: self._compared(key, counts, uncounted) for key in keys}

    def _compared(
        self, key: str, counts: Mapping[tuple[str, int], _Count], uncounted: _Count
    ) -> Compared:
        short: tuple[Step, int, int] | None = None
        not_compared = ""
        for number, check in self._checks.items():
            read, written = (counts.get((key, place), uncounted) for place in (number - 1, number))
            why = read.unknown or written.unknown
            if not why and check.rows_span_lines and read.open:
                why = _SPANS
            if why:
                not_compared = not_compared or why
            elif written.lines < read.lines and short is None:
                short = (self._steps[number - 1], read.lines, written.lines)
        return Compared(
            records_in=_known(counts.get((key, 0))),
            records_out=_known(counts.get((key, len(self._steps)))),
            short=short,
            not_compared=not_compared,
        )


def _known(count: _Count | None) -> int | None:
    return None if count is None or count.unknown else count.lines


def _unpacked(body: Any) -> Iterator[bytes]:
    with closing(body), gzip.GzipFile(fileobj=body) as stream:
        for chunk in iter(partial(stream.read, _CHUNK_BYTES), b""):
            if stream.tell() > _UNPACKED_LIMIT_BYTES:
                raise _TooLong
            yield chunk
