"""One object's way from bytes to payloads, and of replies to its output (reference §1.7, §5.3)."""

import uuid
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from transform_engine.capture import utc
from transform_engine.errors import BadInput, BadReply
from transform_engine.http_client import Reply
from transform_engine.packing import LinePacker, Payload, RecordPacker, WholePacker
from transform_engine.rows import (
    NothingThere,
    Rows,
    UnreadableRow,
    format_of,
    join_csv,
    join_json,
    lines,
)
from transform_engine.settings import Settings
from transform_engine.splitting import splitter
from transform_request.jsonpath import InvalidJsonPath, Path, parse

Packer = LinePacker | RecordPacker | WholePacker


class Recipe:
    """What a job does to each record before the model and to each reply after it.

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

    def _path(self, expression: str) -> Path:
        try:
            return parse(expression)
        except InvalidJsonPath as error:
            self._problem = self._problem or str(error)
            return Path("$", ())

    def _rows(self, media_type: str | None) -> Rows | None:
        kind = format_of(media_type)
        included = self._settings.readings.slice_end_included
        return Rows(kind, slice_end_included=included) if kind else None

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
        settings = self._settings
        if settings.split == "None":
            return WholePacker(
                prepare=self._prepare_whole,
                keep=settings.join,
                limit=settings.limit_bytes,
                filtered=self.filters_input,
            )
        by_record = settings.single or self.filters_input or settings.join
        if settings.split == "Line" and not by_record and settings.limit_bytes is not None:
            return LinePacker(limit=settings.limit_bytes)
        return RecordPacker(
            splitter(settings.split, framed=not settings.single),
            prepare=self._prepare,
            single=settings.single,
            keep=settings.join,
            limit=settings.limit_bytes,
            filtered=self.filters_input,
        )

    @property
    def can_stream(self) -> bool:
        """Whether an object's bytes go out as they come in: chunked, and nothing reads them."""
        settings = self._settings
        return (
            settings.limit_bytes is None
            and not (self.filters_input or settings.join)
            and (settings.split == "None" or (settings.split == "Line" and not settings.single))
        )

    def _prepare(self, record: bytes) -> bytes:
        if not self.filters_input:
            self._check_for_join(record)
            return record
        filtered = self._filter_input(record)
        return filtered + b"\n" if not self._settings.single else filtered

    def _prepare_whole(self, body: bytes) -> bytes:
        if not self.filters_input:
            for row in self._cut_whole(body) if self._settings.join else ():
                self._check_for_join(row)
            return body
        rows = [self._filter_input(row) for row in self._cut_whole(body)]
        return b"\n".join(rows) + (b"\n" if body.endswith(b"\n") else b"")

    def _check_for_join(self, record: bytes) -> None:
        # What cannot be joined is not sent (reference §4).
        if self._settings.join and self._input_rows is not None:
            try:
                self._input_rows.check(record)
            except UnreadableRow as error:
                raise _unreadable(self._input_rows, error) from error

    def _cut_whole(self, body: bytes) -> list[bytes]:
        # Without a split, CSV and JSON Lines still have rows; application/json is one value.
        return [body] if _is_document(self._settings.content_type) else lines(body)

    def _filter_input(self, record: bytes) -> bytes:
        rows = self._input_rows
        assert rows is not None
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

    def output(self, payload: Payload, reply: Reply) -> bytes:
        """Return what the output has of one reply.

        :raises BadReply, BadInput: it cannot be joined or filtered.
        """
        settings = self._settings
        if not self.reads_replies:
            return self._end_line(reply.body) if settings.assemble_lines else reply.body
        rows = self._reply_rows(payload, reply)
        if settings.assemble_lines:
            return b"".join(row + b"\n" for row in rows)
        return (b"\n" if settings.split == "None" else b"").join(rows)

    def _end_line(self, body: bytes) -> bytes:
        if self._settings.readings.line_feed_only_where_missing and body.endswith(b"\n"):
            return body
        return body + b"\n"

    def _reply_rows(self, payload: Payload, reply: Reply) -> Iterator[bytes]:
        settings, rows = self._settings, self._output_rows
        assert rows is not None
        one_document = rows.kind == "json" and (
            (settings.single and settings.split != "None")
            or (settings.split == "None" and _is_document(settings.accept or settings.content_type))
        )
        if one_document:
            replies = [reply.body] if reply.body.strip() else []
        else:
            replies = lines(reply.body)
        if not settings.join:
            for answer in replies:
                yield self._finish(rows, self._read_reply(rows, answer))
            return
        records = payload.records
        if settings.split == "None":
            records = tuple(self._cut_whole(records[0]))
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


async def gunzip(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Decompress a gzip stream of one or more members.

    :raises BadInput: it is none, or is cut short.
    """
    inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)
    started = False
    async for piece in pieces:
        data = piece
        while data:
            if inflate.eof:
                inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)
                started = False
            try:
                # Bounded pieces: a small object may unpack to a very large one.
                inflated = inflate.decompress(data, 1 << 20)
            except zlib.error as error:
                raise BadInput(f"Failed to decompress input as Gzip: {error}") from error
            started = True
            if inflated:
                yield inflated
            data = inflate.unconsumed_tail or inflate.unused_data
    if started and not inflate.eof:
        raise BadInput("Failed to decompress input as Gzip: the stream is cut short")
