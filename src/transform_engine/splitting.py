"""Bytes to records, without I/O: feed pieces of any size, get the records that are whole.

Three framings (reference §6): lines, RecordIO and TFRecord. `framed` keeps what separates records
(MultiRecord: the body is a valid stream again), else only each record's data comes out.
"""

import struct
from collections.abc import Iterable
from typing import Protocol

import google_crc32c

from transform_engine.errors import BadInput

_RECORDIO_MAGIC = 0xCED7230A
_RECORDIO_MAGIC_BYTES = struct.pack("<I", _RECORDIO_MAGIC)


class Splitter(Protocol):
    """Cuts a stream into records."""

    def feed(self, data: bytes) -> Iterable[bytes]:
        """Take more bytes and give the records that are whole by now."""

    def end(self) -> Iterable[bytes]:
        """Give what is left; raises BadInput if the stream ends inside a record."""

    @property
    def pending(self) -> int:
        """How many bytes the record that is not whole yet has, or says that it will have."""


def splitter(split: str, *, framed: bool) -> Splitter:
    """Return the splitter of a SplitType other than None."""
    if split == "Line":
        return LineSplitter(framed=framed)
    return RecordIOSplitter(framed=framed) if split == "RecordIO" else TFRecordSplitter(framed)


class LineSplitter:
    """Cuts after each LF; a last line needs none.

    :param framed: keep the LF.
    :param strip_carriage_return: take a CR before the LF off; else it is part of the record.
    :param skip_blank: an empty line is no record.
    """

    def __init__(
        self, *, framed: bool, strip_carriage_return: bool = False, skip_blank: bool = False
    ) -> None:
        self._line_end = b"\n" if framed else b""
        self._strip = strip_carriage_return
        self._skip = skip_blank
        self._rest: list[bytes] = []
        self._pending = 0

    def feed(self, data: bytes) -> Iterable[bytes]:
        """Take more bytes and give the lines that are whole by now."""
        lines = data.split(b"\n")
        rest = lines.pop()
        if not lines:
            # Pieces are gathered, so that a line of many pieces is copied once.
            self._rest.append(rest)
            self._pending += len(rest)
            return ()
        if self._rest:
            lines[0] = b"".join((*self._rest, lines[0]))
        self._rest = [rest] if rest else []
        self._pending = len(rest)
        return self._finish(lines)

    def end(self) -> Iterable[bytes]:
        """Give the last line if it has no LF."""
        rest = b"".join(self._rest)
        self._rest, self._pending = [], 0
        if not rest:
            return ()
        if self._skip and rest == b"\r":
            return ()
        # It has no line end of its own, so none is added.
        return (rest.removesuffix(b"\r") if self._strip else rest,)

    def _finish(self, lines: list[bytes]) -> list[bytes]:
        if self._strip:
            lines = [line.removesuffix(b"\r") for line in lines]
        if self._skip:
            lines = [line for line in lines if line not in (b"", b"\r")]
        if self._line_end:
            lines = [line + b"\n" for line in lines]
        return lines

    @property
    def pending(self) -> int:
        """How many bytes the line that is not whole yet has."""
        return self._pending


class _FramedSplitter:
    """Cuts records whose header tells their length."""

    name = ""

    def __init__(self, framed: bool) -> None:
        self._framed = framed
        self._buffer = bytearray()
        self._position = 0

    def feed(self, data: bytes) -> Iterable[bytes]:
        """Take more bytes and give the records that are whole by now."""
        self._buffer += data
        at = 0
        try:
            while (cut := self._cut(at)) is not None:
                at, record = cut
                if record is not None:
                    self._position += 1
                    yield record
        finally:
            del self._buffer[:at]

    def end(self) -> Iterable[bytes]:
        """Refuse what is left: it is a record cut short."""
        if self._buffer or self._in_parts:
            raise self._bad("is cut short")
        return ()

    @property
    def pending(self) -> int:
        """How many bytes the record that is not whole yet has, or says that it will have."""
        return self._announced()

    @property
    def _in_parts(self) -> bool:
        return False

    def _announced(self) -> int:
        raise NotImplementedError

    def _cut(self, at: int) -> tuple[int, bytes | None] | None:
        raise NotImplementedError

    def _bad(self, why: str) -> BadInput:
        return BadInput(f"Failed to parse input as {self.name}: record {self._position} {why}")


class RecordIOSplitter(_FramedSplitter):
    """MXNet's RecordIO; a record in parts had the magic number between them, as MXNet reads it."""

    name = "RecordIO"

    def __init__(self, *, framed: bool) -> None:
        super().__init__(framed)
        self._parts: list[bytes] = []

    @property
    def _in_parts(self) -> bool:
        return bool(self._parts)

    def _announced(self) -> int:
        parts = sum(map(len, self._parts))
        if len(self._buffer) < 8:
            return parts
        (word,) = struct.unpack_from("<I", self._buffer, 4)
        return parts + int(word & 0x1FFFFFFF)

    def _cut(self, at: int) -> tuple[int, bytes | None] | None:
        if len(self._buffer) - at < 4:
            return None
        (magic,) = struct.unpack_from("<I", self._buffer, at)
        if magic != _RECORDIO_MAGIC:
            raise self._bad(f"must start with magic number 0xCED7230A, got 0x{magic:08X}")
        if len(self._buffer) - at < 8:
            return None
        (word,) = struct.unpack_from("<I", self._buffer, at + 4)
        flag, length = word >> 29, word & 0x1FFFFFFF
        end = at + 8 + length + (-length % 4)
        if len(self._buffer) < end:
            return None
        if flag > 3 or (flag in (2, 3)) != bool(self._parts):
            raise self._bad(f"has the continuation flag {flag} out of order")
        if self._framed:
            part = bytes(self._buffer[at:end])
        else:
            part = bytes(self._buffer[at + 8 : at + 8 + length])
        if flag == 0:
            return end, part
        self._parts.append(part)
        if flag != 3:
            return end, None
        record = (b"" if self._framed else _RECORDIO_MAGIC_BYTES).join(self._parts)
        self._parts = []
        return end, record


class TFRecordSplitter(_FramedSplitter):
    """TensorFlow's TFRecord, both checksums checked."""

    name = "TFRecord"

    def _announced(self) -> int:
        # A whole header has passed its checksum by now.
        return int(struct.unpack_from("<Q", self._buffer)[0]) if len(self._buffer) >= 12 else 0

    def _cut(self, at: int) -> tuple[int, bytes | None] | None:
        if len(self._buffer) - at < 12:
            return None
        length, checksum = struct.unpack_from("<QI", self._buffer, at)
        if masked_crc32c(bytes(self._buffer[at : at + 8])) != checksum:
            raise self._bad("has a length that does not match its checksum")
        end = at + 12 + length + 4
        if len(self._buffer) < end:
            return None
        data = bytes(self._buffer[at + 12 : end - 4])
        if masked_crc32c(data) != struct.unpack_from("<I", self._buffer, end - 4)[0]:
            raise self._bad("has data that does not match its checksum")
        return end, bytes(self._buffer[at:end]) if self._framed else data


def masked_crc32c(data: bytes) -> int:
    """Return TFRecord's checksum."""
    crc = int(google_crc32c.value(data))
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
