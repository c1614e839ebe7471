"""Records to payloads: as many as fit, in order (reference §6).

A packer takes an object in pieces of any size: `feed` gives the payloads that are full by now,
`end` those that are left.
"""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import msgspec

from transform_engine.errors import BadInput, ObjectFailed
from transform_engine.splitting import LineSplitter, Splitter

# A filter may make a record that is too long to send short enough, but it must fit into memory.
_LONGEST_BEFORE_FILTER = 100 * 2**20


class Payload(msgspec.Struct, eq=False, gc=False):
    """One request's body, what a join will ask for, and later its reply.

    A struct because there may be a hundred thousand a second.

    :param kept: the original records, or what was read of them; None without a join.
    :param records: how many records it has; 0 if nobody has counted.
    :param size: of lines that nobody has counted, in bytes.
    """

    body: bytes
    kept: Any = None
    records: int = 1
    size: int = 0
    reply: bytes | None = None
    failure: ObjectFailed | None = None


class Packer(Protocol):
    """Makes payloads of one object."""

    def feed(self, data: bytes) -> Iterable[Payload]:
        """Take more of the object and give the payloads that are full by now."""

    def end(self) -> Iterable[Payload]:
        """Give what is left."""


class RecordPacker:
    """Packs records one by one; needed for single records, filters and joins.

    :param prepare: makes the bytes to send of a record; None sends it as it is.
    :param limit: None is no limit.
    :param filtered: `prepare` makes records shorter, so that only what it makes must fit.
    :param trim: takes the line end off a whole payload.
    """

    def __init__(
        self,
        splitter: Splitter,
        *,
        prepare: Callable[[bytes], bytes] | None,
        single: bool,
        keep: bool,
        limit: int | None,
        filtered: bool = False,
        trim: bool = False,
    ) -> None:
        self._splitter = splitter
        self._prepare = prepare
        self._single = single
        self._keep = keep
        self._limit = limit
        self._longest = _longest(limit, filtered=filtered)
        self._trim = trim
        self._plain = single and prepare is None and not keep and isinstance(splitter, LineSplitter)
        self._sent: list[bytes] = []
        self._kept: list[bytes] = []
        self._size = 0
        self._position = 0

    def feed(self, data: bytes) -> Iterable[Payload]:
        """Take more of the object and give the payloads that are full by now."""
        if self._plain and (
            self._limit is None or self._splitter.pending + len(data) <= self._limit
        ):
            # No record can be too large: each is a payload as it is, at no more cost than that.
            made = [*map(Payload, self._splitter.feed(data))]
            self._position += len(made)
            return made
        return self._feed(data)

    def _feed(self, data: bytes) -> Iterable[Payload]:
        yield from self._pack(self._splitter.feed(data))
        self._check_pending()

    def _check_pending(self) -> None:
        # Before all of it is read: it may be far larger than memory, or say so in its header.
        if self._longest is not None and self._splitter.pending > self._longest:
            raise _too_long(
                f"record {self._position}", self._splitter.pending, self._longest, self._limit
            )

    def end(self) -> Iterable[Payload]:
        """Give what is left."""
        yield from self._pack(self._splitter.end())
        if self._sent:
            yield self._flush()

    def _pack(self, records: Iterable[bytes]) -> Iterable[Payload]:
        prepare, limit, keep = self._prepare, self._limit, self._keep
        if not self._single:
            yield from self._pack_several(records)
            return
        for record in records:
            sent = record if prepare is None else prepare(record)
            if limit is not None and len(sent) > limit:
                raise too_large(f"record {self._position}", len(sent), limit)
            self._position += 1
            yield Payload(sent, (record,) if keep else None)

    def _pack_several(self, records: Iterable[bytes]) -> Iterable[Payload]:
        prepare, limit = self._prepare, self._limit
        for record in records:
            sent = record if prepare is None else prepare(record)
            if limit is not None:
                if len(sent) > limit:
                    raise too_large(f"record {self._position}", len(sent), limit)
                if self._sent and self._size + len(sent) > limit:
                    yield self._flush()
            self._position += 1
            self._sent.append(sent)
            self._size += len(sent)
            if self._keep:
                self._kept.append(record)

    def _flush(self) -> Payload:
        body = b"".join(self._sent)
        if self._trim:
            body = body.removesuffix(b"\n")
        kept = tuple(self._kept) if self._keep else None
        payload = Payload(body, kept, records=len(self._sent))
        self._sent, self._kept, self._size = [], [], 0
        return payload


class LinePacker:
    """Packs lines without cutting them: looks only for the last LF that still fits.

    :param read: looks at a whole body before it is sent, and gives what a join will ask for.
    """

    def __init__(self, *, limit: int, read: Callable[[bytes], Any] | None = None) -> None:
        self.limit = limit
        self._read = read
        self._pieces = bytearray()

    def feed(self, data: bytes) -> Iterable[Payload]:
        """Take more of the object and give the payloads that are full by now."""
        buffer = self._pieces
        buffer += data
        at = 0
        while len(buffer) - at > self.limit:
            end = buffer.rfind(b"\n", at, at + self.limit) + 1
            if not end:
                del buffer[:at]
                raise too_large("a line", len(buffer), self.limit, at_least=True)
            yield self.payload(bytes(buffer[at:end]))
            at = end
        del buffer[:at]

    def end(self) -> Iterable[Payload]:
        """Give what is left."""
        if self._pieces:
            yield self.payload(bytes(self._pieces))

    def payload(self, body: bytes) -> Payload:
        """Return the payload of whole lines that somebody else has cut off."""
        read = self._read(body) if self._read is not None else None
        return Payload(body, read, records=0, size=len(body))


class WholePacker:
    """One payload of the whole object: SplitType None."""

    def __init__(
        self,
        *,
        prepare: Callable[[bytes], bytes] | None,
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

    def feed(self, data: bytes) -> Iterable[Payload]:
        """Take more of the object."""
        self._pieces.append(data)
        self._size += len(data)
        if self._longest is not None and self._size > self._longest:
            raise _too_long("the object", self._size, self._longest, self._limit)
        return ()

    def end(self) -> Iterable[Payload]:
        """Give the object."""
        payload = self.pack(b"".join(self._pieces))
        return () if payload is None else (payload,)

    def pack(self, body: bytes) -> Payload | None:
        """Return the payload of an object that was read whole; None if it is empty."""
        if not body:
            return None
        sent = body if self._prepare is None else self._prepare(body)
        if self._limit is not None and len(sent) > self._limit:
            raise too_large("the object", len(sent), self._limit)
        return Payload(sent, (body,) if self._keep else None)


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
