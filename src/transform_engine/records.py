"""One object's way from bytes to payloads, and of replies to its output (reference §1.7, §5.3)."""

import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from transform_engine.capture import utc
from transform_engine.errors import BadInput, BadReply
from transform_engine.json_members import MemberFilter, Unusual
from transform_engine.packing import LinePacker, Packer, Payload, RecordPacker, WholePacker
from transform_engine.rows import (
    NothingThere,
    Rows,
    UnreadableRow,
    column_picker,
    format_of,
    join_csv,
    join_json,
    lines,
)
from transform_engine.settings import Settings
from transform_engine.splitting import LineSplitter, Splitter, splitter
from transform_request.jsonpath import InvalidJsonPath, Path, parse

_ROWS_AT_ONCE = 4096


class Recipe:
    """What a job does to each record before the model and to each reply after it.

    :ivar can_stream: an object's bytes go out as they come in: in chunks, and nothing reads them.
    :ivar keeps_bodies: `output` needs the body of a payload again.
    :ivar pack_whole: makes the payload of an object that is not split and was read whole.

    Made once a job; a filter that cannot work is told by `check`, since it fails each object.
    """

    def __init__(self, settings: Settings, *, started_at: float) -> None:
        self._settings = settings
        self._problem: str | None = None
        self._input = self._path(settings.input_filter)
        self._output = self._path(settings.output_filter)
        self._input_rows = self._rows(settings.content_type)
        self._output_rows = self._rows(settings.accept or settings.content_type)
        self._time = utc(started_at)
        self.filters_input = not self._input.is_root
        self.reads_replies = settings.join or settings.inference_id or not self._output.is_root
        if self._problem is None:
            self._problem = self._format_problem()
        lines_as_they_are = (
            settings.split == "Line"
            and not (settings.single or self.filters_input)
            and settings.readings.lines_as_they_are
        )
        self._packs_lines = lines_as_they_are and settings.limit_bytes is not None
        self.keeps_bodies = settings.join and self._packs_lines
        self.can_stream = (
            settings.limit_bytes is None
            and not (self.filters_input or settings.join)
            and (settings.split == "None" or lines_as_they_are)
        )
        # Only picking members is done without parsing, where nothing else is asked for.
        plain = not (settings.inference_id or settings.readings.changes_json)
        self._input_members = self._members(self._input, self._input_rows) if plain else None
        self._output_members = self._members(self._output, self._output_rows) if plain else None
        self.pack_whole = self._whole_packer().pack

    def _path(self, expression: str) -> Path:
        try:
            return parse(expression)
        except InvalidJsonPath as error:
            self._problem = self._problem or str(error)
            return Path("$", ())

    def _rows(self, media_type: str | None) -> Rows | None:
        kind = format_of(media_type)
        return Rows(kind, self._settings.readings) if kind else None

    def _members(self, path: Path, rows: Rows | None) -> MemberFilter | None:
        return MemberFilter.of(path) if rows is not None and rows.kind == "json" else None

    def _format_problem(self) -> str | None:
        settings = self._settings
        if (self.filters_input or settings.join) and self._input_rows is None:
            return (
                "ContentType must be text/csv, application/json or application/jsonlines for a "
                f"filter or a join, got {settings.content_type or 'none'}; change it"
            )
        framed = settings.split in ("RecordIO", "TFRecord")
        if framed and not settings.single and (self.filters_input or settings.join):
            return (
                f"BatchStrategy must be SingleRecord for a filter on {settings.split}, "
                "got MultiRecord; set it"
            )
        if self.reads_replies and self._output_rows is None:
            return (
                "Accept must be text/csv, application/json or application/jsonlines for a filter, "
                f"a join or inference ids, got {settings.accept or 'none'}; change it"
            )
        return None

    def check(self) -> None:
        """Refuse to transform an object with filters that cannot work.

        :raises BadInput: with the service's words where they are known.
        """
        if self._problem is not None:
            raise BadInput(self._problem)

    def packer(self) -> Packer:
        """Return what cuts and packs one object."""
        settings, readings = self._settings, self._settings.readings
        if settings.split == "None":
            return self._whole_packer()
        if self._packs_lines:
            assert settings.limit_bytes is not None
            read = self._read_lines if settings.join else None
            return LinePacker(limit=settings.limit_bytes, read=read)
        return RecordPacker(
            self._splitter(),
            prepare=self._prepare if self.filters_input or settings.join else None,
            single=settings.single,
            keep=settings.join,
            limit=settings.limit_bytes,
            filtered=self.filters_input,
            trim=settings.split == "Line" and not readings.line_feed_after_last_record,
        )

    def _whole_packer(self) -> WholePacker:
        settings = self._settings
        return WholePacker(
            prepare=self._prepare_whole if self.filters_input or settings.join else None,
            keep=settings.join,
            limit=settings.limit_bytes,
            filtered=self.filters_input,
        )

    def _splitter(self) -> Splitter:
        settings, readings = self._settings, self._settings.readings
        if settings.split != "Line":
            return splitter(settings.split, framed=not settings.single)
        return LineSplitter(
            framed=not settings.single or readings.line_feed_in_single_record,
            strip_carriage_return=not readings.carriage_return_in_record,
            skip_blank=not readings.blank_line_is_record,
        )

    def _read_lines(self, body: bytes) -> Any:
        """Look at what a join will need of a body that is sent as it is.

        Returns what the output's filter reads of the lines, or None when they must be parsed.
        """
        rows, members = self._input_rows, self._output_members
        assert rows is not None
        records = lines(body)
        if members is not None and self._settings.assemble_lines and is_text(body):
            try:
                return members.read(records)
            except Unusual:
                pass  # Then it is told below, or parsed later.
        if rows.kind == "json" or b'"' in body:
            for record in records:
                self._check(rows, record)
        return None

    def _prepare(self, record: bytes) -> bytes:
        rows = self._input_rows
        assert rows is not None
        if not self.filters_input:
            self._check(rows, record)
            return record
        filtered = self._filter_input(rows, record)
        keeps_end = not self._settings.single or self._settings.readings.line_feed_in_single_record
        return filtered + b"\n" if keeps_end and self._settings.split == "Line" else filtered

    def _prepare_whole(self, body: bytes) -> bytes:
        rows = self._input_rows
        assert rows is not None
        if not self.filters_input:
            for row in self._cut_whole(body):
                self._check(rows, row)
            return body
        filtered = [self._filter_input(rows, row) for row in self._cut_whole(body)]
        return b"\n".join(filtered) + (b"\n" if body.endswith(b"\n") else b"")

    def _check(self, rows: Rows, record: bytes) -> None:
        # What cannot be joined is not sent (reference §4).
        try:
            rows.check(record)
        except UnreadableRow as error:
            raise _unreadable(rows, error) from error

    def _cut_whole(self, body: bytes) -> list[bytes]:
        # Without a split, CSV and JSON Lines still have rows; application/json is one value.
        return [body] if _is_document(self._settings.content_type) else lines(body)

    def _filter_input(self, rows: Rows, record: bytes) -> bytes:
        members = self._input_members
        if members is not None and is_text(record):
            try:
                return members.filter(record)
            except Unusual:
                pass  # Parsing says what is wrong, if anything is.
        value = self._read_input(rows, record)
        try:
            return rows.write(rows.select(self._input, value))
        except (NothingThere, UnreadableRow) as error:
            raise BadInput(f"Failed to apply InputFilter: {error}") from error

    def _read_input(self, rows: Rows, record: bytes) -> Any:
        try:
            return rows.parse(record)
        except UnreadableRow as error:
            raise _unreadable(rows, error) from error

    def plain_output(self, replies: Sequence[bytes]) -> bytes:
        """Return what the output has of replies that nothing reads."""
        settings = self._settings
        if not settings.assemble_lines:
            return b"".join(replies)
        if settings.readings.line_feed_only_where_missing:
            return b"".join(r if r.endswith(b"\n") else r + b"\n" for r in replies)
        return b"\n".join((*replies, b""))

    def output(self, payload: Payload, reply: bytes) -> Iterator[bytes]:
        """Give what the output has of one reply that is filtered or joined, in pieces.

        :raises BadReply, BadInput: it cannot be joined or filtered.
        """
        rows: Iterable[bytes] | None = None
        if self.keeps_bodies:
            joined = self._joined_members(payload, reply)
            if joined is not None:
                yield joined
                return
            rows = self._joined_columns(payload, reply)
        if rows is None:
            rows = self._reply_rows(payload, reply)
        lines_end, between = self._settings.assemble_lines, b""
        if lines_end or self._settings.split == "None":
            between = b"\n"
        rows, is_first = iter(rows), True
        # A large payload's rows would take several times its memory if they were all there.
        while some := [*islice(rows, _ROWS_AT_ONCE)]:
            if not (lines_end or is_first):
                yield between
            yield between.join((*some, b"")) if lines_end else between.join(some)
            is_first = False

    def _joined_members(self, payload: Payload, reply: bytes) -> bytes | None:
        """Join JSON without parsing where that comes to the same; None where it does not."""
        members = self._output_members
        if payload.kept is None or members is None or not is_text(reply):
            return None
        try:
            return members.write_joined(payload.kept, reply)
        except Unusual:
            return None  # Parsing says what is wrong, if anything is.

    def _joined_columns(self, payload: Payload, reply: bytes) -> Iterable[bytes] | None:
        """Join CSV without parsing where that comes to the same; None where it does not."""
        rows = self._output_rows
        if rows is None or rows.kind != "csv" or self._settings.inference_id:
            return None
        if any(mark in text for mark in (b'"', b"\r") for text in (payload.body, reply)):
            return None  # Columns may be written otherwise than they were.
        records, replies = lines(payload.body), lines(reply)
        if len(records) != len(replies):
            return None
        joined = map(b",".join, zip(records, replies, strict=True))
        return joined if self._output.is_root else self._pick_columns(rows, joined)

    def _pick_columns(self, rows: Rows, joined: Iterable[bytes]) -> Iterator[bytes]:
        pick = column_picker(self._output, self._settings.readings)
        for row in joined:
            columns = row.split(b",")
            try:
                picked = pick(columns) if pick is not None else None
            except IndexError:
                picked = None
            # What cannot be picked is told by the way that takes every path.
            yield self._finish(rows, columns) if picked is None else b",".join(picked)

    def _reply_rows(self, payload: Payload, reply: bytes) -> Iterator[bytes]:
        settings, rows = self._settings, self._output_rows
        assert rows is not None
        one_document = rows.kind == "json" and (
            (settings.single and settings.split != "None")
            or (settings.split == "None" and _is_document(settings.accept or settings.content_type))
        )
        document = [reply] if reply.strip() else []
        replies = document if one_document else lines(reply)
        if not settings.join:
            for answer in replies:
                yield self._finish(rows, self._read_reply(rows, answer))
            return
        records = lines(payload.body) if self.keeps_bodies else payload.kept
        if settings.split == "None":
            records = self._cut_whole(records[0])
        if len(replies) != len(records):
            raise BadReply(
                "Failed to join the output of the algorithm with the input: the reply must have "
                f"one line for each of the {len(records)} records of the request, "
                f"got {len(replies)}; let the model answer every record with one line"
            )
        join: Callable[[Any, Any], Any] = join_csv if rows.kind == "csv" else join_json
        for record, answer in zip(records, replies, strict=True):
            value = self._read_input(rows, record)
            yield self._finish(rows, join(value, self._read_reply(rows, answer)))

    def _read_reply(self, rows: Rows, answer: bytes) -> Any:
        try:
            return rows.parse(answer)
        except UnreadableRow as error:
            raise BadReply(
                f"Failed to parse output from the algorithm as {rows.kind.upper()}: {error}"
            ) from error

    def _finish(self, rows: Rows, value: Any) -> bytes:
        try:
            value = rows.select(self._output, value)
            if self._settings.inference_id:
                value = self._identify(rows, value)
            return rows.write(value)
        except (NothingThere, UnreadableRow) as error:
            raise BadInput(f"Failed to apply OutputFilter: {error}") from error

    def _identify(self, rows: Rows, value: Any) -> Any:
        identity = str(uuid.uuid4())
        if rows.kind == "csv":
            return [*value, identity.encode(), self._time.encode()]
        members = value if isinstance(value, dict) else {"SageMakerOutput": value}
        return {
            **members,
            "SageMakerInferenceId": identity,
            "SageMakerInferenceTime": self._time,
        }


def _unreadable(rows: Rows, error: UnreadableRow) -> BadInput:
    return BadInput(f"Failed to parse input as {rows.kind.upper()}: {error}")


def _is_document(media_type: str | None) -> bool:
    return (media_type or "").split(";")[0].strip().lower() == "application/json"


class Gunzip:
    """Decompresses a gzip stream of one or more members, in pieces of at most a mebibyte."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)
        self._started = False

    def feed(self, data: bytes) -> Iterable[bytes]:
        """Take more of the stream and give what it unpacks to.

        :raises BadInput: it is no gzip.
        """
        while data:
            if self._inflate.eof:
                self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)
            try:
                # Bounded pieces: a small object may unpack to a very large one.
                inflated = self._inflate.decompress(data, 1 << 20)
            except zlib.error as error:
                raise BadInput(f"Failed to decompress input as Gzip: {error}") from error
            self._started = True
            if inflated:
                yield inflated
            data = self._inflate.unconsumed_tail or self._inflate.unused_data

    def end(self) -> None:
        """Refuse a stream that is cut short.

        :raises BadInput: it is.
        """
        if self._started and not self._inflate.eof:
            raise BadInput("Failed to decompress input as Gzip: the stream is cut short")


def is_text(data: bytes) -> bool:
    """Tell whether bytes are UTF-8."""
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
