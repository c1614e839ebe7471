"""Predictions by record id: what a record of an output is, and the table they are looked up in.

    record_id   dropped_at                 prediction    source_key   run_id   expires_at
    842302      <drop time>#<its order>    JSON text     <key>        <run>    <epoch seconds>

The sort key is the drop's time, not the run's: an older run that ends late hides nothing newer.
"""

import csv
import itertools
import json
import random
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from boto3.dynamodb.conditions import Attr, Key
from botocore.exceptions import ClientError

RECORD_LIMIT_BYTES = 8 * 1024**2  # eight are in memory at once, each a few times
ID_LIMIT_BYTES = 1024
_PREDICTION_LIMIT_BYTES = 350 * 1024  # an item may have 400 KB
_WRITES_AT_ONCE = 25  # BatchWriteItem takes no more
_WRITE_TRIES = 10
_LONGEST_WAIT_S = 1.0
_THROTTLED = frozenset(
    {"ProvisionedThroughputExceededException", "RequestLimitExceeded", "ThrottlingException"}
)
_JSON_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")

csv.field_size_limit(RECORD_LIMIT_BYTES)  # Python's own is 128 KB


class UnreadableRecord(Exception):
    """A record of an output cannot be indexed."""


class Throttled(Exception):
    """DynamoDB refused to answer for as long as there was time to ask."""


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")  # Python takes NaN and Infinity for it


@dataclass(frozen=True, slots=True)
class Prediction:
    """One record's id, and what is kept of the record as JSON text."""

    record_id: str
    value: str


class RecordFormat(ABC):
    """What a record is, where it has its id, and what of it is kept."""

    def read(self, line: bytes) -> Prediction:
        """Return the prediction that a record holds.

        :raises UnreadableRecord: it has no id, or DynamoDB cannot hold it.
        """
        if len(line) > RECORD_LIMIT_BYTES:
            raise UnreadableRecord(f"a record must have at most {RECORD_LIMIT_BYTES} bytes")
        try:
            prediction = self._parse(line.decode())
            id_bytes = len(prediction.record_id.encode())
            value_bytes = len(prediction.value.encode())
        except UnicodeError as error:  # JSON can spell half a character
            raise UnreadableRecord("a record must be UTF-8") from error
        if not 0 < id_bytes <= ID_LIMIT_BYTES:
            raise UnreadableRecord(f"a record's id must have 1 to {ID_LIMIT_BYTES} bytes")
        if value_bytes > _PREDICTION_LIMIT_BYTES:
            raise UnreadableRecord(
                f"what is kept of a record must have at most {_PREDICTION_LIMIT_BYTES} bytes"
            )
        return prediction

    @abstractmethod
    def _parse(self, text: str) -> Prediction: ...


@dataclass(frozen=True, slots=True)
class CsvRecords(RecordFormat):
    """Rows, whose numbers become numbers and whose other values become texts.

    :ivar record_id: the id's column, counted from 0 (negative: from the end).
    :ivar value: the column that is kept, or several as a list. None: all but the id's.
    """

    record_id: int
    value: int | tuple[int, ...] | None = None

    def _parse(self, text: str) -> Prediction:
        try:
            columns = next(csv.reader([text]), [])
        except csv.Error as error:
            raise UnreadableRecord(f"a record must be CSV, got: {error}") from error
        record_id = _column(columns, self.record_id)
        if isinstance(self.value, int):
            return Prediction(record_id, _json_of(_column(columns, self.value)))
        if self.value is None:
            del columns[self.record_id]
            kept = columns
        else:
            kept = [_column(columns, number) for number in self.value]
        return Prediction(record_id, f"[{','.join(map(_json_of, kept))}]")


def _column(columns: list[str], number: int) -> str:
    try:
        return columns[number]
    except IndexError as error:
        raise UnreadableRecord(
            f"a record must have a column {number}, got {len(columns)} columns"
        ) from error


def _json_of(column: str) -> str:
    return column if _JSON_NUMBER.fullmatch(column) else json.dumps(column, ensure_ascii=False)


Path = tuple[str | int, ...]
"""Names of members and positions in arrays, from the record inwards."""


@dataclass(frozen=True, slots=True)
class JsonRecords(RecordFormat):
    """JSON values, one a line.

    :ivar record_id: where the id is.
    :ivar value: where that is which is kept. None: the record, to the letter.
    """

    record_id: Path
    value: Path | None = None

    def _parse(self, text: str) -> Prediction:
        try:
            record = json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise UnreadableRecord("a record must be JSON") from error
        record_id = _at(record, self.record_id)
        if not isinstance(record_id, str | int) or isinstance(record_id, bool):
            raise UnreadableRecord(
                f"a record must have a text or whole number at {_spelled(self.record_id)}"
            )
        if self.value is None:
            return Prediction(str(record_id), text)
        try:
            kept = json.dumps(
                _at(record, self.value),
                ensure_ascii=False,
                allow_nan=False,
                separators=(",", ":"),
            )
        except (ValueError, RecursionError) as error:
            raise UnreadableRecord("a record's numbers must be those of a double") from error
        return Prediction(str(record_id), kept)


def _at(record: Any, path: Path) -> Any:
    found = record
    for step in path:
        if isinstance(step, str):
            is_there = isinstance(found, dict) and step in found
        else:
            is_there = isinstance(found, list) and -len(found) <= step < len(found)
        if not is_there:
            raise UnreadableRecord(f"a record must have a value at {_spelled(path)}")
        found = found[step]
    return found


def _spelled(path: Path) -> str:
    return "$" + "".join(f"[{step!r}]" for step in path)


def record_format(name: str, record_id: str, value: str) -> RecordFormat:
    """Make a format of the JSON texts that the index function has in its environment.

    :param name: `csv` or `jsonlines`.
    :param record_id: a column number, or a path as the list of its steps.
    :param value: likewise, or a list of column numbers; `null` for the default.
    """
    id_place, value_place = json.loads(record_id), json.loads(value)
    if isinstance(value_place, list):
        value_place = tuple(value_place)
    if name == "csv":
        return CsvRecords(id_place, value_place)
    return JsonRecords(tuple(id_place), value_place)


class PredictionTable:
    """The table behind the lookup."""

    def __init__(self, table: Any) -> None:
        self._name = table.name
        self._client = table.meta.client  # a client may be shared among threads, a table may not

    def write(
        self,
        predictions: Iterable[Prediction],
        *,
        dropped_at: str,
        source_key: str,
        run_id: str,
        expires_at: int | None,
    ) -> int:
        """Write predictions of one drop and return how many; of two with one id the later stays."""
        written = 0
        common: dict[str, Any] = {
            "dropped_at": dropped_at,
            "source_key": source_key,
            "run_id": run_id,
        }
        if expires_at is not None:
            common["expires_at"] = expires_at
        for group in _groups(predictions):
            self._write_group(
                [
                    {"record_id": record_id, "prediction": value, **common}
                    for record_id, value in group.items()
                ]
            )
            written += len(group)
        return written

    def newest(
        self, record_id: str, *, now_s: int, limit: int, give_up_at: float
    ) -> list[dict[str, Any]]:
        """Return up to `limit` items of an id, the newest first; what has expired is left out.

        :param give_up_at: by the monotonic clock.
        :raises Throttled: DynamoDB had too much to do until then.
        """
        # DynamoDB deletes an expired item days later; a filter applies after Limit, so page on.
        query: dict[str, Any] = {
            "KeyConditionExpression": Key("record_id").eq(record_id),
            "FilterExpression": Attr("expires_at").not_exists() | Attr("expires_at").gt(now_s),
            "ScanIndexForward": False,
            "Limit": limit,
        }
        found: list[dict[str, Any]] = []
        while len(found) < limit:
            page = self._query(query, give_up_at=give_up_at)
            found += page["Items"]
            if "LastEvaluatedKey" not in page:
                break
            query["ExclusiveStartKey"] = page["LastEvaluatedKey"]
        return found[:limit]

    def _query(self, query: dict[str, Any], *, give_up_at: float) -> Any:
        for attempt in itertools.count(1):
            try:
                return self._client.query(TableName=self._name, **query)
            except ClientError as error:
                if error.response["Error"]["Code"] not in _THROTTLED:
                    raise
                wait_s = random.uniform(0, min(_LONGEST_WAIT_S, 0.05 * 2**attempt))
                if time.monotonic() + wait_s > give_up_at:
                    raise Throttled from error
            time.sleep(wait_s)
        raise AssertionError  # the count has no end, but mypy does not know

    def _write_group(self, items: list[dict[str, Any]]) -> None:
        requests = [{"PutRequest": {"Item": item}} for item in items]
        for attempt in range(1, _WRITE_TRIES + 1):
            answer = self._client.batch_write_item(RequestItems={self._name: requests})
            requests = answer.get("UnprocessedItems", {}).get(self._name, [])
            if not requests:
                return
            time.sleep(random.uniform(0, 0.05 * 2**attempt))
        raise TimeoutError(
            f"DynamoDB must take every prediction, {len(requests)} are left after {_WRITE_TRIES} "
            "tries; the part is indexed again later"
        )


def _groups(predictions: Iterable[Prediction]) -> Iterator[dict[str, str]]:
    """Yield ids and values for one BatchWriteItem each, which refuses an id that comes twice."""
    group: dict[str, str] = {}
    for prediction in predictions:
        group[prediction.record_id] = prediction.value
        if len(group) == _WRITES_AT_ONCE:
            yield group
            group = {}
    if group:
        yield group
