"""Predictions by record id: what a record of an output is, and the table they are looked up in.

    record_id   dropped_at                 prediction    source_key   run_id   expires_at
    842302      <drop time>#<its order>    JSON text     <key>        <run>    <epoch seconds>

The sort key is the drop's time, not the run's: an older run that ends late hides nothing newer.
"""

import csv
import json
import random
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from boto3.dynamodb.conditions import Attr, Key

_WRITES_AT_ONCE = 25  # BatchWriteItem takes no more
_WRITE_TRIES = 10
_ID_LIMIT_BYTES = 1024
_PREDICTION_LIMIT_BYTES = 350 * 1024  # an item may have 400 KB
_JSON_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")


class UnreadableRecord(Exception):
    """A record of an output cannot be indexed."""


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")  # Python takes NaN and Infinity for it


@dataclass(frozen=True, slots=True)
class Prediction:
    """One record's id, and what the model says of it as JSON text."""

    record_id: str
    value: str


@dataclass(frozen=True, slots=True)
class RecordFormat:
    """Where an output's records have their id.

    :ivar name: `csv` or `jsonlines`.
    :ivar record_id: the column, counted from 0 (negative: from the end), or the JSON member.
    """

    name: str
    record_id: str

    def read(self, line: bytes) -> Prediction:
        """Return the prediction that a record holds.

        A CSV record becomes the list of its other columns, numbers as numbers; a JSON record stays
        as it is.

        :raises UnreadableRecord: it has no id, or DynamoDB cannot hold it.
        """
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise UnreadableRecord("a record must be UTF-8") from error
        prediction = self._read_csv(text) if self.name == "csv" else self._read_json(text)
        try:
            id_bytes = len(prediction.record_id.encode())
        except UnicodeEncodeError as error:  # JSON can spell half a character
            raise UnreadableRecord("a record's id must be UTF-8") from error
        if not 0 < id_bytes <= _ID_LIMIT_BYTES:
            raise UnreadableRecord(f"a record's id must have 1 to {_ID_LIMIT_BYTES} bytes")
        if len(prediction.value.encode()) > _PREDICTION_LIMIT_BYTES:
            raise UnreadableRecord(f"a record must have at most {_PREDICTION_LIMIT_BYTES} bytes")
        return prediction

    def _read_csv(self, text: str) -> Prediction:
        try:
            columns = next(csv.reader([text]), [])
        except csv.Error as error:
            raise UnreadableRecord(f"a record must be CSV, got: {error}") from error
        try:
            record_id = columns.pop(int(self.record_id))
        except IndexError as error:
            raise UnreadableRecord(
                f"a record must have a column {self.record_id}, got {len(columns)} columns"
            ) from error
        values = [
            column if _JSON_NUMBER.fullmatch(column) else json.dumps(column, ensure_ascii=False)
            for column in columns
        ]
        return Prediction(record_id, f"[{','.join(values)}]")

    def _read_json(self, text: str) -> Prediction:
        try:
            record = json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise UnreadableRecord("a record must be JSON") from error
        value = record.get(self.record_id) if isinstance(record, dict) else None
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise UnreadableRecord(f"a record must have a text or whole number {self.record_id!r}")
        return Prediction(str(value), text)


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

    def newest(self, record_id: str, *, now_s: int, limit: int) -> list[dict[str, Any]]:
        """Return up to `limit` items of an id, the newest first; what has expired is left out."""
        # DynamoDB deletes an expired item days later; a filter applies after Limit, so page on.
        query: dict[str, Any] = {
            "KeyConditionExpression": Key("record_id").eq(record_id),
            "FilterExpression": Attr("expires_at").not_exists() | Attr("expires_at").gt(now_s),
            "ScanIndexForward": False,
            "Limit": limit,
        }
        found: list[dict[str, Any]] = []
        while len(found) < limit:
            page = self._client.query(TableName=self._name, **query)
            found += page["Items"]
            if "LastEvaluatedKey" not in page:
                break
            query["ExclusiveStartKey"] = page["LastEvaluatedKey"]
        return found[:limit]

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
