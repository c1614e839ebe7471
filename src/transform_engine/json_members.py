"""Filters that only pick members of JSON objects, without parsing the rest.

Ten times as fast as parsing: msgspec checks that a line is one JSON object and hands out the wanted
members as they are written. What is rare is left to `rows`: `Unusual` says that a line, or a member
of it, must be parsed and written anew.
"""

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any

import msgspec

from transform_engine.rows import UnreadableRow, lines, parse_json, write_json
from transform_request.jsonpath import Name, Names, Path

OUTPUT = "SageMakerOutput"
_UNSET = msgspec.UNSET
_CONTAINERS = b"{["


class Unusual(Exception):
    """Picking cannot tell what the line has: parse it."""


class MemberFilter:
    """A filter `$.name` or `$['a','b']`, on lines or on records joined with replies."""

    def __init__(self, names: Sequence[str], *, alone: bool) -> None:
        # Members are written in the order of their bytes, once each.
        self._names = sorted({*names}, key=str.encode)
        self._alone = alone
        fields = [f"member_{number}" for number in range(len(self._names))]
        row = msgspec.defstruct(
            "Row",
            [(field, msgspec.Raw | msgspec.UnsetType, _UNSET) for field in fields],
            rename=dict(zip(fields, self._names, strict=True)),
            gc=False,
        )
        self._decode = msgspec.json.Decoder(row).decode
        self._values = msgspec.json.Decoder(msgspec.Raw)
        self._members = [attrgetter(field) for field in fields]
        self._heads = [write_json(name) + b":" for name in self._names]
        # A line of the output in parts, with room for each value.
        self._line = [b"", b"", b"\n"]
        if not alone:
            self._line = [part for head in self._heads for part in (b"," + head, b"")] + [b"}\n"]
            self._line[0] = b"{" + self._heads[0]

    @classmethod
    def of(cls, path: Path) -> "MemberFilter | None":
        """Return the filter of a path; None if it does more than pick members."""
        match path.steps:
            case (Name(name=name),):
                return cls([name], alone=True)
            case (Names(names=names),) if names:
                return cls(names, alone=False)
        return None

    def filter(self, line: bytes) -> bytes:
        """Return what the filter leaves of a line.

        :raises Unusual: it is no JSON object, or there is nothing.
        """
        (row,) = self.read((line,))
        if self._alone:
            return _written(self._members[0](row))
        parts = [
            head + _written(value)
            for member, head in zip(self._members, self._heads, strict=True)
            if (value := member(row)) is not _UNSET
        ]
        return b"{" + b",".join(parts) + b"}"

    def read(self, lines: Iterable[bytes]) -> list[Any]:
        """Return what the filter needs of each line.

        :raises Unusual: one is no JSON object.
        """
        try:
            return [*map(self._decode, lines)]
        except (msgspec.DecodeError, RecursionError) as error:
            raise Unusual from error

    def write_joined(self, rows: Sequence[Any], reply: bytes) -> bytes:
        """Return what the filter leaves of records that were read, joined with the reply's lines.

        :raises Unusual: a line of the reply is no JSON, there is not one for each record, or a
            record lacks a member.
        """
        try:
            outputs = self._read_values(reply)
            if len(outputs) != len(rows):
                raise Unusual
            parts = self._line * len(rows)
            for number, (name, member) in enumerate(zip(self._names, self._members, strict=True)):
                values = outputs if name == OUTPUT else [*map(member, rows)]
                parts[2 * number + 1 :: len(self._line)] = _column(values)
        except (msgspec.DecodeError, RecursionError, TypeError, UnreadableRow) as error:
            raise Unusual from error
        return b"".join(parts)

    def _read_values(self, reply: bytes) -> list[Any]:
        values = self._values.decode_lines(reply)
        # It takes no account of where lines end: there may be two values in one, or one in two.
        body = reply.removesuffix(b"\n")
        if b"\n".join(values) == body and body.count(b"\n") == len(values) - 1:
            return values
        return [*map(self._values.decode, lines(reply))]


def _column(values: Sequence[Any]) -> Sequence[Any]:
    """Return values as they are written in an output, as what `bytes.join` takes.

    :raises TypeError: one is not there.
    """
    together = b"".join(values)
    if b"\\" in together or b"{" in together or b"[" in together:
        return [*map(_written, values)]
    return values


def _written(raw: Any) -> bytes:
    """Return a value as it is written in an output: compact, members in order, nothing escaped."""
    if raw is _UNSET:
        raise Unusual
    written = bytes(raw)
    if written[0] in _CONTAINERS or b"\\" in written:
        return write_json(parse_json(written))
    return written
