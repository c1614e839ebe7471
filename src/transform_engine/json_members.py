"""Filters that only pick members of JSON objects, without parsing the rest.

Ten times as fast as parsing: msgspec checks that a line is one JSON object and hands out the wanted
members as they are written. What is rare is left to `rows`: `Unusual` says that a line, or a member
of it, must be parsed and written anew.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from transform_engine.rows import parse_json, write_json
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
        self._members = [
            (field, name, write_json(name) + b":")
            for field, name in zip(fields, self._names, strict=True)
        ]

    @classmethod
    def of(cls, path: Path) -> "MemberFilter | None":
        """Return the filter of a path; None if it does more than pick members."""
        match path.steps:
            case (Name(name=name),):
                return cls([name], alone=True)
            case (Names(names=names),) if names:
                return cls(names, alone=False)
        return None

    def read(self, line: bytes) -> Any:
        """Return what the filter needs of a line.

        :raises Unusual: it is no JSON object.
        """
        try:
            return self._decode(line)
        except (msgspec.DecodeError, RecursionError) as error:
            raise Unusual from error

    def read_all(self, lines: Sequence[bytes]) -> list[Any]:
        """Return what the filter needs of each line.

        :raises Unusual: one is no JSON object.
        """
        decode = self._decode
        try:
            return [decode(line) for line in lines]
        except (msgspec.DecodeError, RecursionError) as error:
            raise Unusual from error

    def write(self, row: Any) -> bytes:
        """Return what the filter leaves of a line that was read.

        :raises Unusual: there is nothing.
        """
        if self._alone:
            field, _, _ = self._members[0]
            return _written(getattr(row, field))
        parts = [
            head + _written(value)
            for field, _, head in self._members
            if (value := getattr(row, field)) is not _UNSET
        ]
        return b"{" + b",".join(parts) + b"}"

    def write_joined(self, rows: Sequence[Any], replies: Sequence[bytes]) -> list[bytes]:
        """Return what the filter leaves of records that were read, joined with their replies.

        :raises Unusual: a reply is no JSON, or a record lacks the member.
        """
        value = self._value
        try:
            outputs = [_written(value(reply)) for reply in replies]
        except (msgspec.DecodeError, RecursionError) as error:
            raise Unusual from error
        columns: list[list[bytes]] = []
        for field, name, head in self._members:
            if name == OUTPUT:
                column = outputs
            else:
                column = [
                    # A member that is not there leaves nothing behind, not even its name.
                    b"" if (raw := getattr(row, field)) is _UNSET else _written(raw)
                    for row in rows
                ]
                if b"" in column:
                    raise Unusual
            columns.append(column if self._alone else [head + written for written in column])
        if self._alone:
            return columns[0]
        return [b"{" + b",".join(parts) + b"}" for parts in zip(*columns, strict=True)]


def _written(raw: Any) -> bytes:
    """Return a value as it is written in an output: compact, members in order, nothing escaped."""
    if raw is _UNSET:
        raise Unusual
    written = bytes(raw)
    if written[0] in _CONTAINERS or b"\\" in written:
        return write_json(parse_json(written))
    return written
