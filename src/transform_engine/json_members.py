"""Filters that only pick members of JSON objects, without parsing the rest.

Ten times as fast as parsing: msgspec checks that a line is one JSON object and hands out the wanted
members as they are written. What is rare is left to `rows`: `Unusual` says that a line, or a member
of it, must be parsed and written anew.
"""

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any

import msgspec

from transform_engine.rows import UnreadableRow, parse_json, write_json
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
        self._value = msgspec.json.Decoder(msgspec.Raw).decode
        self._members = [attrgetter(field) for field in fields]
        self._heads = [write_json(name) + b":" for name in self._names]
        # All members at once, as bytes.__mod__ fills them in.
        whole = b",".join(head.replace(b"%", b"%%") + b"%b" for head in self._heads)
        self._fill: Callable[[tuple[bytes, ...]], bytes] = (b"{%b}" % whole).__mod__

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

    def write_joined(self, rows: Sequence[Any], replies: Sequence[bytes]) -> list[bytes]:
        """Return what the filter leaves of records that were read, joined with their replies.

        :raises Unusual: a reply is no JSON, or a record lacks a member.
        """
        try:
            outputs = map(self._value, replies)
            columns = [
                _column(outputs if name == OUTPUT else map(member, rows))
                for member, name in zip(self._members, self._names, strict=True)
            ]
            for _ in outputs:
                pass  # Replies must be JSON, also if the filter leaves them out.
        except (msgspec.DecodeError, RecursionError, TypeError, UnreadableRow) as error:
            raise Unusual from error
        return columns[0] if self._alone else [*map(self._fill, zip(*columns, strict=True))]


def _column(values: Iterable[Any]) -> list[bytes]:
    """Return values as they are written in an output.

    :raises TypeError: one is not there.
    """
    column = [*map(bytes, values)]
    together = b"".join(column)
    if b"\\" in together or b"{" in together or b"[" in together:
        return [*map(_written, column)]
    return column


def _written(raw: Any) -> bytes:
    """Return a value as it is written in an output: compact, members in order, nothing escaped."""
    if raw is _UNSET:
        raise Unusual
    written = bytes(raw)
    if written[0] in _CONTAINERS or b"\\" in written:
        return write_json(parse_json(written))
    return written
