"""Record ids in, predictions out: the Lambda behind the HTTP API.

    GET  /predictions/{id}    for ids that a path can hold
    GET  /predictions?id=…    for all: what becomes of an escaped `/` or `%` in a path differs
                              between gateways, a query arrives as it was sent
    POST /predictions         {"ids": […]}, up to 100 of them

What it cannot answer it tells as a problem of RFC 9457.
"""

import json
import logging
import os
import time
from base64 import b64decode
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

import boto3
from botocore.config import Config

from transform_lambdas.predictions import ID_LIMIT_BYTES, PredictionTable, Throttled

_HISTORY_LIMIT = 100
_IDS_LIMIT = 100
_AT_ONCE = 16  # queries, each on a connection of its own
_ANSWER_LIMIT_BYTES = 6_000_000  # Lambda returns at most 6 MB, the headers included
_TIME_TO_TELL_S = 2.0  # kept back for an answer that says why there is no better one

logger = logging.getLogger(__name__)


class Problem(Exception):
    """Why a request has no answer.

    :param detail: what must hold, what was given, what to do.
    """

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class Lookup:
    """Answers requests of one Lambda call.

    :param now_s: when predictions must not have expired.
    :param give_up_at: by the monotonic clock; DynamoDB may refuse to answer for so long.
    """

    def __init__(self, table: PredictionTable, *, now_s: int, give_up_at: float) -> None:
        self._table = table
        self._now_s = now_s
        self._give_up_at = give_up_at

    def answer(self, event: Mapping[str, Any]) -> str:
        """Return the JSON text that answers a request.

        :param event: of the HTTP API, payload format 2.0.
        :raises Problem: there is no such answer.
        """
        if event["routeKey"].startswith("POST"):
            return self._many(_ids_in(_body(event)))
        query = parse_qsl(event["rawQueryString"], keep_blank_values=True)
        in_path = (event.get("pathParameters") or {}).get("id")
        ids = [in_path] if in_path else [value for name, value in query if name == "id"]
        if len(ids) != 1:
            raise Problem(
                HTTPStatus.BAD_REQUEST,
                f"a lookup must name one id, got {len(ids) or 'none'}; ask for "
                '/predictions?id=…, or POST {"ids": […]} to /predictions',
            )
        return self._one(_checked_id(ids[0]), dict(query).get("history"))

    def _one(self, record_id: str, history: str | None) -> str:
        limit = 1 if history is None else _history_limit(history)
        found = self._newest(record_id, limit=limit)
        if not found:
            raise Problem(
                HTTPStatus.NOT_FOUND,
                f"the id must be that of an indexed record, got {record_id!r}; "
                "was its file dropped, and did its run complete?",
            )
        if history is None:
            return _prediction(found[0], id=record_id)
        answer = _Answer(f'{{"id": {_json(record_id)}, "predictions": [')
        for item in found:
            answer.add(_prediction(item))
        return answer.ended("]}")

    def _many(self, ids: Sequence[str]) -> str:
        answer = _Answer('{"predictions": [')
        missing = []
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            try:
                for record_id, found in zip(ids, pool.map(self._newest, ids), strict=True):
                    if found:
                        answer.add(_prediction(found[0], id=record_id))
                    else:
                        missing.append(record_id)
            except BaseException:
                pool.shutdown(cancel_futures=True)  # nobody waits for those behind it
                raise
        return answer.ended(f'], "missing": {_json(missing)}}}')

    def _newest(self, record_id: str, *, limit: int = 1) -> list[dict[str, Any]]:
        return self._table.newest(
            record_id, now_s=self._now_s, limit=limit, give_up_at=self._give_up_at
        )


class _Answer:
    """A JSON list that may not grow over what Lambda can return."""

    def __init__(self, head: str) -> None:
        self._head = head
        self._entries: list[str] = []
        self._bytes = 0

    def add(self, entry: str) -> None:
        self._bytes += len(json.dumps(entry))  # as it travels: a text in Lambda's own JSON
        if self._bytes > _ANSWER_LIMIT_BYTES:
            raise Problem(
                HTTPStatus.BAD_REQUEST,
                f"the predictions asked for must have at most {_ANSWER_LIMIT_BYTES} bytes "
                f"together, got more by the {len(self._entries) + 1}th; ask for fewer at once",
            )
        self._entries.append(entry)

    def ended(self, tail: str) -> str:
        return f"{self._head}{', '.join(self._entries)}{tail}"


def _body(event: Mapping[str, Any]) -> Any:
    body = event.get("body") or ""
    try:
        return json.loads(b64decode(body) if event.get("isBase64Encoded") else body)
    except (ValueError, RecursionError) as error:
        raise Problem(
            HTTPStatus.BAD_REQUEST,
            f'the body must be JSON, got {body[:40]!r}; send for example {{"ids": ["a", "b"]}}',
        ) from error


def _ids_in(body: Any) -> list[str]:
    """Return the ids that are asked for, each once."""
    if not isinstance(body, dict) or set(body) != {"ids"} or not isinstance(body["ids"], list):
        raise Problem(
            HTTPStatus.BAD_REQUEST,
            'the body must be an object with a list "ids" and no more, got '
            f'{json.dumps(body)[:40]}; send for example {{"ids": ["a", "b"]}}',
        )
    ids = body["ids"]
    if not 1 <= len(ids) <= _IDS_LIMIT:
        raise Problem(
            HTTPStatus.BAD_REQUEST,
            f"a lookup must name 1 to {_IDS_LIMIT} ids, got {len(ids)}; ask several times",
        )
    return list(dict.fromkeys(map(_checked_id, ids)))


def _checked_id(record_id: Any) -> str:
    if not isinstance(record_id, str):
        raise Problem(
            HTTPStatus.BAD_REQUEST,
            f"an id must be a text, got {json.dumps(record_id)[:40]}; write it in quotes",
        )
    try:
        size = len(record_id.encode())
    except UnicodeEncodeError as error:  # JSON can spell half a character
        raise Problem(
            HTTPStatus.BAD_REQUEST,
            f"an id must be UTF-8, got {record_id[:40]!r}; mend its \\ud800 to \\udfff",
        ) from error
    if not 1 <= size <= ID_LIMIT_BYTES:
        raise Problem(
            HTTPStatus.BAD_REQUEST,
            f"an id must have 1 to {ID_LIMIT_BYTES} bytes, got {size}; no longer one is indexed",
        )
    return record_id


def _history_limit(history: str) -> int:
    digits = history if history.isdecimal() and len(history) <= 3 else "0"
    if not 1 <= int(digits) <= _HISTORY_LIMIT:
        raise Problem(
            HTTPStatus.BAD_REQUEST,
            f"history must be a number from 1 to {_HISTORY_LIMIT}, got {history[:40]!r}; "
            "leave it out for the newest prediction",
        )
    return int(digits)


def _prediction(item: Mapping[str, Any], **head: str) -> str:
    """Return the JSON text of a prediction, whose value stands in it as it is stored."""
    members = {
        **{name: _json(value) for name, value in head.items()},
        "prediction": item["prediction"],
        "dropped_at": _json(item["dropped_at"].split("#", 1)[0]),
        "source_key": _json(item["source_key"]),
        "run_id": _json(item["run_id"]),
    }
    return "{" + ", ".join(f'"{name}": {text}' for name, text in members.items()) + "}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


@cache
def _table() -> PredictionTable:
    config = Config(
        connect_timeout=2,
        max_pool_connections=_AT_ONCE,
        read_timeout=5,
        retries={"mode": "standard", "total_max_attempts": 3},
    )
    dynamodb = boto3.resource("dynamodb", config=config)
    return PredictionTable(dynamodb.Table(os.environ["PREDICTIONS_TABLE"]))


def handle(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Lambda entry point: an HTTP API event of payload format 2.0."""
    try:
        time_left_s = context.get_remaining_time_in_millis() / 1000
        lookup = Lookup(
            _table(),
            now_s=int(time.time()),
            give_up_at=time.monotonic() + time_left_s - _TIME_TO_TELL_S,
        )
        return _response(HTTPStatus.OK, lookup.answer(event), "application/json")
    except Problem as problem:
        return _refusal(problem.status, problem.detail)
    except Throttled:
        logger.exception("throttled")
        detail = "DynamoDB must have capacity, got throttled for as long as there was time"
        response = _refusal(
            HTTPStatus.SERVICE_UNAVAILABLE, f"{detail}; ask again later, or for fewer ids", context
        )
        response["headers"]["retry-after"] = "1"
        return response
    except Exception as error:  # of a crash the gateway tells the client nothing to go by
        logger.exception("no answer")
        detail = f"the lookup must be able to read its table, got {type(error).__name__}"
        return _refusal(
            HTTPStatus.INTERNAL_SERVER_ERROR, f"{detail}; see the function's log", context
        )


def _refusal(status: HTTPStatus, detail: str, context: Any = None) -> dict[str, Any]:
    """Return a problem of RFC 9457; with a context it names the call, as the log does."""
    problem = {
        "type": "about:blank",
        "title": status.phrase,
        "status": status.value,
        "detail": detail,
    }
    if context is not None:
        problem["instance"] = f"urn:uuid:{context.aws_request_id}"
    return _response(status, _json(problem), "application/problem+json")


def _response(status: HTTPStatus, body: str, content_type: str) -> dict[str, Any]:
    return {
        "statusCode": status.value,
        "headers": {"content-type": content_type},
        "body": body,
    }
