"""Records to payloads: as many as fit, in order (reference §6)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from transform_engine.errors import BadInput
from transform_engine.splitting import Splitter

# A filter may make a record that is too long to send short enough, but it must fit into memory.
_LONGEST_BEFORE_FILTER = 100 * 2**20


@dataclass(frozen=True, slots=True)
class Payload:
    """One request's body, and the original records in it when a join will ask for them."""

    body: bytes
    records: tuple[bytes, ...] = ()


class RecordPacker:
    """Packs records one by one; needed for single records, filters and joins.

    :param prepare: makes the bytes to send of a record: the input filter.
    :param limit: None is no limit.
    :param filtered: `prepare` makes records shorter, so that only what it makes must fit.
    """

    def __init__(
        self,
        splitter: Splitter,
        *,
        prepare: Callable[[bytes], bytes],
        single: bool,
        keep: bool,
        limit: int | None,
        filtered: bool = False,
    ) -> None:
        self._splitter = splitter
        self._prepare = prepare
        self._single = single
        self._keep = keep
        self._limit = limit
        self._longest = _longest(limit, filtered=filtered)
        self._sent: list[bytes] = []
        self._kept: list[bytes] = []
        self._size = 0
        self._position = 0

    def feed(self, data: bytes) -> Iterator[Payload]:
        """Take more of the object and give the payloads that are full by now."""
        for record in self._splitter.feed(data):
            yield from self._add(record)
        # Before all of it is read: it may be far larger than memory, or say so in its header.
        if self._longest is not None and self._splitter.pending > self._longest:
            raise _too_long(
                f"record {self._position}", self._splitter.pending, self._longest, self._limit
            )

    def end(self) -> Iterator[Payload]:
        """Give what is left."""
        for record in self._splitter.end():
            yield from self._add(record)
        if self._sent:
            yield self._flush()

    def _add(self, record: bytes) -> Iterator[Payload]:
        sent = self._prepare(record)
        if self._limit is not None and len(sent) > self._limit:
            raise too_large(f"record {self._position}", len(sent), self._limit)
        self._position += 1
        if self._single:
            yield Payload(sent, (record,) if self._keep else ())
            return
        if self._sent and self._limit is not None and self._size + len(sent) > self._limit:
            yield self._flush()
        self._sent.append(sent)
        self._size += len(sent)
        if self._keep:
            self._kept.append(record)

    def _flush(self) -> Payload:
        payload = Payload(b"".join(self._sent), tuple(self._kept))
        self._sent, self._kept, self._size = [], [], 0
        return payload


class LinePacker:
    """Packs lines without cutting them: looks only for the last LF that still fits."""

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._pieces = bytearray()

    def feed(self, data: bytes) -> Iterator[Payload]:
        """Take more of the object and give the payloads that are full by now."""
        buffer = self._pieces
        buffer += data
        at = 0
        while len(buffer) - at > self._limit:
            end = buffer.rfind(b"\n", at, at + self._limit) + 1
            if not end:
                del buffer[:at]
                raise too_large("a line", len(buffer), self._limit, at_least=True)
            yield Payload(bytes(buffer[at:end]))
            at = end
        del buffer[:at]

    def end(self) -> Iterator[Payload]:
        """Give what is left."""
        if self._pieces:
            yield Payload(bytes(self._pieces))


class WholePacker:
    """One payload of the whole object: SplitType None."""

    def __init__(
        self,
        *,
        prepare: Callable[[bytes], bytes],
        keep: bool,
        limit: int | None,
        filtered: bool = False,
    ) -> None:
        self._prepare = prepare
        self._keep = keep
        self._limit = limit
        self._longest = _longest(limit, filtered=filtered)
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> Iterator[Payload]:
        """Take more of the object."""
        self._pieces.append(data)
        self._size += len(data)
        if self._longest is not None and self._size > self._longest:
            raise _too_long("the object", self._size, self._longest, self._limit)
        yield from ()

    def end(self) -> Iterator[Payload]:
        """Give the object."""
        body = b"".join(self._pieces)
        if not body:
            return
        sent = self._prepare(body)
        if self._limit is not None and len(sent) > self._limit:
            raise too_large("the object", len(sent), self._limit)
        yield Payload(sent, (body,) if self._keep else ())


def _longest(limit: int | None, *, filtered: bool) -> int | None:
    """How long a record may be before it is prepared."""
    return max(limit, _LONGEST_BEFORE_FILTER) if limit is not None and filtered else limit


def _too_long(what: str, size: int, longest: int, limit: int | None) -> BadInput:
    if longest == limit:
        return too_large(what, size, limit, at_least=True)
    return BadInput(
        f"{what} must have at most {longest} bytes before its filter, got at least {size}; "
        "split the data into smaller records"
    )


def too_large(what: str, size: int, limit: int, *, at_least: bool = False) -> BadInput:
    """Return the error for a payload that no packing can make small enough."""
    return BadInput(
        f"{what} must have at most MaxPayloadInMB = {limit} bytes, "
        f"got {'at least ' if at_least else ''}{size}; "
        "split the data into smaller records or raise MaxPayloadInMB (at most 100)"
    )
