"""Rows of CSV and JSON as bytes: parse, filter, join, write (reference §1.7).

JSON is written compact, members in byte order, numbers as they were spelled. CSV is written with
RFC 4180's least quoting.
"""

import json
import re
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, Literal, NoReturn

import orjson

from transform_engine.spec import Readings
from transform_request.jsonpath import Index, Indexes, Name, Names, Path, Slice, Wildcard

Format = Literal["csv", "json"]
DEFAULT_READINGS = Readings()
_DEPTH = 250
# These five stand in JSON only inside of texts.
_GO_ESCAPES = (
    (b"<", b"\\u003c"),
    (b">", b"\\u003e"),
    (b"&", b"\\u0026"),
    ("\u2028".encode(), b"\\u2028"),
    ("\u2029".encode(), b"\\u2029"),
)


class UnreadableRow(ValueError):
    """The bytes are not of the format; the message is the service's where it is known."""


class NothingThere(ValueError):
    """The filter asks for a column, element or member that the row does not have."""


def format_of(media_type: str | None) -> Format | None:
    """Return what a content type's rows are; None is neither CSV nor JSON."""
    match (media_type or "").split(";")[0].strip().lower():
        case "text/csv":
            return "csv"
        case "application/json" | "application/jsonlines":
            return "json"
        case _:
            return None


def parse_csv(row: bytes) -> list[bytes]:
    """Return a row's columns.

    :raises UnreadableRow: quotes are out of place.
    """
    row = row.removesuffix(b"\n").removesuffix(b"\r")
    if b'"' not in row:
        return row.split(b",")
    columns: list[bytes] = []
    at = 0
    while True:
        if row[at : at + 1] == b'"':
            column, at = _quoted_column(row, at + 1)
        else:
            end = row.find(b",", at)
            end = len(row) if end < 0 else end
            column = row[at:end]
            if b'"' in column:
                raise UnreadableRow(f'bare " in non quoted field found near: {_near(row, at)}')
            at = end
        columns.append(column)
        if at == len(row):
            return columns
        at += 1  # the comma


def _quoted_column(row: bytes, at: int) -> tuple[bytes, int]:
    parts: list[bytes] = []
    while True:
        end = row.find(b'"', at)
        if end < 0:
            raise UnreadableRow(f'unterminated " in quoted field found near: {_near(row, at)}')
        parts.append(row[at:end])
        at = end + 1
        if row[at : at + 1] == b'"':
            parts.append(b'"')
            at += 1
        elif at == len(row) or row[at : at + 1] == b",":
            return b"".join(parts), at
        else:
            raise UnreadableRow(f'extraneous " in field found near: {_near(row, at)}')


def _near(row: bytes, at: int) -> str:
    return row[at : at + 80].decode(errors="replace")


def write_csv(columns: list[bytes]) -> bytes:
    """Return a row without its line end."""
    return b",".join(
        b'"' + column.replace(b'"', b'""') + b'"' if _NEEDS_QUOTES.search(column) else column
        for column in columns
    )


_NEEDS_QUOTES = re.compile(rb'[",\r\n]')


def _whole_number(text: str) -> int | orjson.Fragment:
    # orjson writes 64 bits at most, and -0 is no int of its own.
    return int(text) if len(text) < 19 and text != "-0" else orjson.Fragment(text.encode())


def _fraction(text: str) -> orjson.Fragment:
    return orjson.Fragment(text.encode())


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


_DECODER = json.JSONDecoder(
    parse_int=_whole_number, parse_float=_fraction, parse_constant=_no_number
)


def parse_json(row: bytes) -> Any:
    """Return a value whose numbers keep their spelling.

    :raises UnreadableRow: it is no JSON in UTF-8.
    """
    # orjson forgets how a number was spelled. It did no harm if writing gives the same bytes, but
    # for blanks after separators; that is the usual case, and costs half of the other way.
    try:
        value = orjson.loads(row)
        written = orjson.dumps(value)
    except (orjson.JSONDecodeError, TypeError):
        return _parse_value(row)  # It says better what is wrong.
    if written == row or _squeezed(written) == _squeezed(row):
        return value
    return _parse_value(row)


def _squeezed(row: bytes) -> bytes:
    return row.replace(b", ", b",").replace(b'": ', b'":')


def _parse_value(row: bytes) -> Any:
    try:
        return _DECODER.decode(row.decode())
    except (ValueError, RecursionError) as error:
        raise UnreadableRow(f"{error} found near: {_near(row, 0)}") from error


def write_json(value: Any) -> bytes:
    """Return compact JSON, members in byte order.

    :raises UnreadableRow: the value has text that UTF-8 cannot write.
    """
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError as error:
        raise UnreadableRow(str(error)) from error


class Rows:
    """What filters and joins need of one format."""

    def __init__(self, kind: Format, readings: Readings = DEFAULT_READINGS) -> None:
        self.kind = kind
        self.parse: Callable[[bytes], Any] = parse_csv if kind == "csv" else parse_json
        self.write: Callable[[Any], bytes] = write_csv if kind == "csv" else write_json
        if kind == "json" and readings.changes_json:
            self.write = self._write_changed
        self._readings = readings

    def _write_changed(self, value: Any) -> bytes:
        if self._readings.scalar_as_text and isinstance(value, str):
            return value.encode(errors="replace")
        written = write_json(value)
        if self._readings.json_escapes_html:
            for character, escape in _GO_ESCAPES:
                written = written.replace(character, escape)
        return written

    def check(self, row: bytes) -> None:
        """Refuse a row that cannot be read; costs less than reading it.

        :raises UnreadableRow: as `parse` does.
        """
        if self.kind == "json":
            try:
                orjson.loads(row)
            except orjson.JSONDecodeError:
                parse_json(row)  # It reads more, and says better what is wrong.
            else:
                # Values that are nested deeper than orjson writes may be too deep for us.
                deep = len(row) > 2 * _DEPTH and row.count(b"[") + row.count(b"{") > _DEPTH
                if deep:
                    parse_json(row)
        elif b'"' in row:
            parse_csv(row)

    def select(self, path: Path, value: Any) -> Any:
        """Return what the path selects of a parsed row.

        :raises NothingThere: a single name or an index is not in the row.
        """
        if self.kind == "csv" and len(path.steps) > 1:
            raise NothingThere(f"{path.text}: a CSV row has only columns, got more than one step")
        values, several = [value], False
        for step in path.steps:
            if isinstance(step, Slice | Wildcard | Indexes):
                values = [each for value in values for each in self._many(path, step, value)]
                several = True
            else:
                values = [self._one(path, step, value) for value in values]
        if self.kind == "csv" and not several and path.steps:
            return values
        return values if several else values[0]

    def _one(self, path: Path, step: Name | Names | Index, value: Any) -> Any:
        match step:
            case Name(name=name):
                if not isinstance(value, dict) or name not in value:
                    raise NothingThere(f"{path.text}: no member '{name}' in {_shown(value)}")
                return value[name]
            case Names(names=names):
                if not isinstance(value, dict):
                    raise NothingThere(f"{path.text}: no members in {_shown(value)}")
                return {name: value[name] for name in names if name in value}
            case Index(index=index):
                return _element(path, value, index)

    def _many(self, path: Path, step: Slice | Wildcard | Indexes, value: Any) -> list[Any]:
        if isinstance(step, Wildcard) and isinstance(value, dict):
            return [*value.values()]
        if not isinstance(value, list):
            raise NothingThere(f"{path.text}: no elements in {_shown(value)}")
        match step:
            case Indexes(indexes=indexes):
                return [_element(path, value, index) for index in indexes]
            case Slice(start=start, end=end):
                if end is not None and self._readings.slice_end_included:
                    end = end + 1 if end != -1 else None
                return value[start:end]
            case Wildcard():
                return value


def column_picker(
    path: Path, readings: Readings
) -> Callable[[list[bytes]], Sequence[bytes]] | None:
    """Return what picks a path's columns, and raises IndexError where one is not there.

    None is a path that does more than that.
    """
    match path.steps:
        case (Index(index=index),):
            return lambda columns: (columns[index],)
        case (Indexes(indexes=(_, _, *_) as indexes),):
            return itemgetter(*indexes)
        case (Slice(start=start, end=end),) if not readings.slice_end_included:
            return itemgetter(slice(start, end))
    return None


def _element(path: Path, value: Any, index: int) -> Any:
    if not isinstance(value, list):
        raise NothingThere(f"{path.text}: no elements in {_shown(value)}")
    if not -len(value) <= index < len(value):
        raise NothingThere(f"{path.text}: index {index} is outside a row of {len(value)} columns")
    return value[index]


def _shown(value: Any) -> str:
    return write_json(value)[:80].decode(errors="replace")


def join_csv(row: list[bytes], reply: list[bytes]) -> list[bytes]:
    """Append the reply's columns."""
    return row + reply


def join_json(value: Any, reply: Any) -> dict[str, Any]:
    """Put the reply beside the input's members, or beside the input if it has none."""
    if isinstance(value, dict):
        return {**value, "SageMakerOutput": reply}
    return {"SageMakerInput": value, "SageMakerOutput": reply}


def lines(body: bytes) -> list[bytes]:
    """Return a body's lines, without their ends."""
    if not body:
        return []
    cut = body.removesuffix(b"\n").split(b"\n")
    return [line.removesuffix(b"\r") for line in cut] if b"\r" in body else cut
