"""Record id in, prediction out: the Lambda behind the HTTP API.

`GET /predictions/{id}` is for ids that a path can hold; `GET /predictions?id=…` is for all: what
becomes of an escaped `/` or `%` in a path differs between gateways, a query arrives as it was sent.
"""

import json
import os
import time
from collections.abc import Mapping
from functools import cache
from typing import Any
from urllib.parse import parse_qsl

import boto3

from transform_lambdas.predictions import PredictionTable

_HISTORY_LIMIT = 100


def answer(
    table: PredictionTable, record_id: str, history: str | None, *, now_s: int
) -> tuple[int, dict[str, Any]]:
    """Return the HTTP status and body for a lookup.

    :param history: how many predictions are asked for, as it stands in the query; none: the newest.
    """
    if not record_id:
        message = "a lookup must name an id, got none; ask for /predictions?id=…"
        return 400, {"message": message}
    limit = 1
    if history is not None:
        if not (history.isdecimal() and 1 <= int(history) <= _HISTORY_LIMIT):
            message = f"history must be a number from 1 to {_HISTORY_LIMIT}, got {history!r}"
            return 400, {"message": f"{message}; leave it out for the newest prediction"}
        limit = int(history)
    found = [_readable(item) for item in table.newest(record_id, now_s=now_s, limit=limit)]
    if not found:
        message = f"the id must be that of an indexed record, got {record_id!r}"
        return 404, {"message": f"{message}; was its file dropped, and did its run complete?"}
    if history is None:
        return 200, {"id": record_id, **found[0]}
    return 200, {"id": record_id, "predictions": found}


def asked_for(event: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return the id and the history that a request asks for; the id is empty if it has none."""
    query = dict(parse_qsl(event["rawQueryString"], keep_blank_values=True))
    path = event.get("pathParameters") or {}
    return path.get("id") or query.get("id", ""), query.get("history")


def _readable(item: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "prediction": json.loads(item["prediction"]),
        "dropped_at": item["dropped_at"].split("#", 1)[0],
        "source_key": item["source_key"],
        "run_id": item["run_id"],
    }


@cache
def _table() -> PredictionTable:
    return PredictionTable(boto3.resource("dynamodb").Table(os.environ["PREDICTIONS_TABLE"]))


def handle(event: Mapping[str, Any], context: object) -> dict[str, Any]:
    """Lambda entry point: an HTTP API event of payload format 2.0."""
    record_id, history = asked_for(event)
    status, body = answer(_table(), record_id, history, now_s=int(time.time()))
    return {
        "statusCode": status,
        "headers": {"content-type": "application/json"},
        "body": json.dumps(body, ensure_ascii=False),
    }
