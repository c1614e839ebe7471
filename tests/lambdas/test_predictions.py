import json
import re
import threading
import time
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from transform_lambdas import lookup
from transform_lambdas.predictions import (
    CsvRecords,
    JsonRecords,
    Prediction,
    PredictionTable,
    RecordFormat,
    UnreadableRecord,
    record_format,
)

World = Any  # conftest's
ID = JsonRecords(("id",))


@pytest.mark.parametrize(
    ("records", "line", "expected"),
    [
        pytest.param(CsvRecords(0), b"17,0.5", Prediction("17", "[0.5]"), id="csv"),
        pytest.param(CsvRecords(-1), b"0.5,x", Prediction("x", "[0.5]"), id="last column"),
        pytest.param(
            CsvRecords(0),
            'a,"x, ""y""",007,é,1e-5'.encode(),
            Prediction("a", '["x, \\"y\\"","007","é",1e-5]'),
            id="only what JSON takes for a number is one",
        ),
        pytest.param(CsvRecords(0, -1), b"a,1,0.50", Prediction("a", "0.50"), id="one column"),
        pytest.param(
            CsvRecords(1, (2, 0)), b"1,a,x", Prediction("a", '["x",1]'), id="columns in their order"
        ),
        pytest.param(
            CsvRecords(0, 1),
            b"a," + b"x" * 200_000,
            Prediction("a", f'"{"x" * 200_000}"'),
            id="a field over Python's own limit",
        ),
        pytest.param(
            ID,
            b'{"SageMakerOutput":{"p":1.0},"id":7}',
            Prediction("7", '{"SageMakerOutput":{"p":1.0},"id":7}'),
            id="json stays as it is",
        ),
        pytest.param(
            JsonRecords(("a b", 1, "id"), ("p", -1)),
            b'{"a b":[0,{"id":"x"}],"p":[1,{"q": [0.10, null]}]}',
            Prediction("x", '{"q":[0.1,null]}'),
            id="paths",
        ),
        pytest.param(
            JsonRecords((0,), ()), b'["x", 2]', Prediction("x", '["x",2]'), id="an array, all of it"
        ),
        pytest.param(
            JsonRecords(("id",), ("score",)),
            b'{"id":"x","features":"' + b"f" * 1_000_000 + b'","score":null}',
            Prediction("x", "null"),
            id="a big record of which little is kept",
        ),
    ],
)
def test_a_record_has_an_id_and_a_prediction(
    records: RecordFormat, line: bytes, expected: Prediction
) -> None:
    assert records.read(line) == expected


@pytest.mark.parametrize(
    ("records", "line", "problem"),
    [
        (CsvRecords(3), b"1,2", "must have a column 3, got 2"),
        (CsvRecords(0, -3), b"1,2", "must have a column -3, got 2"),
        (CsvRecords(0, (1, 2)), b"1,2", "must have a column 2, got 2"),
        (CsvRecords(0), b",2", "id must have 1 to 1024 bytes"),
        (CsvRecords(0), b"\xff", "must be UTF-8"),
        (CsvRecords(0), b"1," + b"x" * 400_000, "kept of a record must have at most 358400 bytes"),
        (CsvRecords(0), b"1" + b",x" * 200_000, "kept of a record must have at most 358400 bytes"),
        (CsvRecords(0), b"1" * (8 * 2**20 + 1), "a record must have at most 8388608 bytes"),
        (ID, b"{", "must be JSON"),
        (ID, b'{"id":1,"p":NaN}', "must be JSON"),
        (ID, b"[1]", r"must have a value at \$\['id'\]"),
        (ID, b'{"id":true}', r"text or whole number at \$\['id'\]"),
        (ID, b'{"id":"\\ud800"}', "must be UTF-8"),
        (ID, b"[" * 200_000, "must be JSON"),
        (JsonRecords((0,)), b'{"0":1}', r"must have a value at \$\[0\]"),
        (JsonRecords((2,)), b"[1,2]", r"must have a value at \$\[2\]"),
        (JsonRecords(("id", 0)), b'{"id":"text"}', r"must have a value at \$\['id'\]\[0\]"),
        (JsonRecords(("id",), ("p", "q")), b'{"id":1,"p":{}}', r"value at \$\['p'\]\['q'\]"),
        (JsonRecords(("id",), ("p",)), b'{"id":1,"p":1e999}', "numbers must be those of a double"),
        (JsonRecords(("id",), ("p",)), b'{"id":1,"p":"\\ud800"}', "must be UTF-8"),
    ],
)
def test_fails_when_a_record_cannot_be_indexed(
    records: RecordFormat, line: bytes, problem: str
) -> None:
    with pytest.raises(UnreadableRecord, match=problem):
        records.read(line)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        pytest.param(("csv", "2", "null"), CsvRecords(2), id="csv"),
        pytest.param(("csv", "2", "-1"), CsvRecords(2, -1), id="one column"),
        pytest.param(("csv", "2", "[0, 1]"), CsvRecords(2, (0, 1)), id="columns"),
        pytest.param(("jsonlines", '["id"]', "null"), ID, id="json"),
        pytest.param(("jsonlines", '["a", 0]', '["b"]'), JsonRecords(("a", 0), ("b",)), id="paths"),
    ],
)
def test_the_format_is_read_from_the_environment(
    texts: tuple[str, str, str], expected: RecordFormat
) -> None:
    assert record_format(*texts) == expected


def write(
    table: PredictionTable, *pairs: tuple[str, str], at: str = "t1", expires: int | None = None
) -> int:
    return table.write(
        [Prediction(*pair) for pair in pairs],
        dropped_at=f"{at}#1",
        source_key="input/a.csv",
        run_id="run-1",
        expires_at=expires,
    )


@pytest.fixture
def table(world: World) -> PredictionTable:
    return PredictionTable(world.prediction_table)


@dataclass
class Context:
    """What the handler asks Lambda for."""

    time_left_s: float = 28
    aws_request_id: str = "0a1b2c3d-0000-4000-8000-000000000000"

    def get_remaining_time_in_millis(self) -> int:
        return int(self.time_left_s * 1000)


Ask = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def ask(table: PredictionTable, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Call the handler as the HTTP API does; return the status and the JSON of the answer."""
    monkeypatch.setattr(lookup, "_table", lambda: table)

    def call(query: str = "", *, in_path: str | None = None) -> tuple[int, dict[str, Any]]:
        event: dict[str, Any] = {"routeKey": "GET /predictions", "rawQueryString": query}
        if in_path is not None:
            event["pathParameters"] = {"id": in_path}
        return answered(event)

    return call


def answered(event: dict[str, Any], time_left_s: float = 28) -> tuple[int, dict[str, Any]]:
    response = lookup.handle(event, Context(time_left_s))
    body = json.loads(response["body"])
    ok = response["statusCode"] == 200
    assert response["headers"]["content-type"] == (
        "application/json" if ok else "application/problem+json"
    )
    if not ok:
        assert body["type"] == "about:blank"
        assert body["status"] == response["statusCode"]
        assert body["title"]
    return response["statusCode"], body


def post(ids: Any, *, time_left_s: float = 28) -> tuple[int, dict[str, Any]]:
    body = ids if isinstance(ids, str) else json.dumps({"ids": ids})
    event = {"routeKey": "POST /predictions", "rawQueryString": "", "body": body}
    return answered(event, time_left_s)


def test_the_newest_drop_answers_whichever_run_ended_last(table: PredictionTable, ask: Ask) -> None:
    write(table, ("7", "[2]"), at="2026-03-02T00:00:00.000Z")
    write(table, ("7", "[1]"), at="2026-03-01T00:00:00.000Z")

    assert ask("id=7") == (
        200,
        {
            "id": "7",
            "prediction": [2],
            "dropped_at": "2026-03-02T00:00:00.000Z",
            "source_key": "input/a.csv",
            "run_id": "run-1",
        },
    )
    _, body = ask("id=7&history=10")
    assert [entry["prediction"] for entry in body["predictions"]] == [[2], [1]]


def test_many_predictions_are_written_and_the_later_of_two_with_one_id_stays(
    table: PredictionTable, ask: Ask
) -> None:
    pairs = [(str(n % 60), f"[{n}]") for n in range(120)]
    write(table, *pairs)
    assert ask("id=5")[1]["prediction"] == [65]


def test_what_has_expired_is_not_found_though_dynamodb_still_has_it(table: PredictionTable) -> None:
    write(table, ("7", "[1]"), at="2026-01-01", expires=2000)
    for day in range(5):
        write(table, ("7", "[0]"), at=f"2026-02-0{day}", expires=1000)

    def at(now_s: int) -> Any:
        asked = lookup.Lookup(table, now_s=now_s, give_up_at=time.monotonic() + 20)
        return json.loads(asked.answer({"routeKey": "GET", "rawQueryString": "id=7"}))

    assert at(1500)["prediction"] == [1]
    with pytest.raises(lookup.Problem, match="must be that of an indexed record"):
        at(2500)


def test_a_number_is_answered_as_it_was_written(table: PredictionTable, ask: Ask) -> None:
    write(table, ("7", "[1e400,0.10]"))
    event = {"routeKey": "GET /predictions", "rawQueryString": "id=7"}

    assert '"prediction": [1e400,0.10], ' in lookup.handle(event, Context())["body"]


@pytest.mark.parametrize("history", ["0", "101", "x", "-1", "", "1" * 5000])
def test_fails_when_history_is_not_a_number_it_can_be(ask: Ask, history: str) -> None:
    status, problem = ask(f"id=7&history={history}")
    assert status == 400
    assert "leave it out" in problem["detail"]


@pytest.mark.parametrize(
    ("in_path", "query", "record_id"),
    [
        pytest.param("P1", "", "P1", id="in the path"),
        pytest.param("P1", "history=3", "P1", id="with its history"),
        pytest.param(None, "id=a%2Fb%25%20c%2B%C3%A9", "a/b% c+é", id="any id"),
    ],
)
def test_an_id_is_read_from_path_or_query(
    table: PredictionTable, ask: Ask, in_path: str | None, query: str, record_id: str
) -> None:
    write(table, (record_id, "[1]"))
    status, body = ask(query, in_path=in_path)
    assert (status, body["id"]) == (200, record_id)


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        pytest.param("", r"must name one id, got none; ask for /predictions\?id=", id="none"),
        pytest.param("id=a&id=b", "must name one id, got 2; ask for .* or POST", id="two"),
        pytest.param("id=", "must have 1 to 1024 bytes, got 0; no longer", id="empty"),
        pytest.param(f"id={'é' * 600}", "must have 1 to 1024 bytes, got 1200", id="long"),
    ],
)
def test_fails_when_it_is_not_one_id_that_can_be(ask: Ask, query: str, detail: str) -> None:
    status, problem = ask(query)
    assert (status, problem["title"]) == (400, "Bad Request")
    assert re.search(detail, problem["detail"])


def test_an_unknown_id_says_what_to_look_for(ask: Ask) -> None:
    assert ask("id=nobody") == (
        404,
        {
            "type": "about:blank",
            "title": "Not Found",
            "status": 404,
            "detail": "the id must be that of an indexed record, got 'nobody'; "
            "was its file dropped, and did its run complete?",
        },
    )


def test_many_ids_are_answered_in_the_order_asked_and_those_without_prediction_named(
    table: PredictionTable, ask: Ask
) -> None:
    write(table, *[(f"é{n}", f"[{n}]") for n in range(0, 98, 2)])
    ids = [f"é{n}" for n in reversed(range(98))] + ["é4", "é5"]

    status, body = post(ids)

    assert (status, sorted(body)) == (200, ["missing", "predictions"])
    assert [entry["id"] for entry in body["predictions"]] == [
        f"é{n}" for n in reversed(range(0, 98, 2))
    ]
    assert [entry["prediction"] for entry in body["predictions"]] == [
        [n] for n in reversed(range(0, 98, 2))
    ]
    assert body["missing"] == [f"é{n}" for n in reversed(range(1, 98, 2))]
    assert body["predictions"][0] == ask("id=%C3%A996")[1]


def test_the_body_may_be_base64_as_it_is_for_types_that_the_api_does_not_know(
    table: PredictionTable, ask: Ask
) -> None:
    write(table, ("a", "1"))
    event = {
        "routeKey": "POST /predictions",
        "rawQueryString": "",
        "body": b64encode(b'{"ids": ["a"]}').decode(),
        "isBase64Encoded": True,
    }
    assert answered(event)[1]["predictions"][0]["id"] == "a"


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        pytest.param("", "body must be JSON, got ''; send for example", id="no body"),
        pytest.param("{", "body must be JSON, got '{'", id="bad JSON"),
        pytest.param("[" * 100_000, "body must be JSON", id="deep JSON"),
        pytest.param('["a"]', r'a list "ids" and no more, got \["a"\]; send', id="no object"),
        pytest.param('{"ids": "a"}', 'got {"ids": "a"}; send', id="no list"),
        pytest.param('{"ids": ["a"], "history": 2}', '"ids" and no more, got', id="more members"),
        pytest.param([], "must name 1 to 100 ids, got 0", id="no ids"),
        pytest.param(["a"] * 101, "must name 1 to 100 ids, got 101; ask several", id="too many"),
        pytest.param(["a", 7], "id must be a text, got 7; write it in quotes", id="a number"),
        pytest.param([["\ud800"]], "id must be a text, got", id="a list that is no UTF-8"),
        pytest.param(["\ud800"], r"id must be UTF-8, got '\\ud800'; mend", id="half a character"),
        pytest.param([""], "id must have 1 to 1024 bytes, got 0", id="an empty id"),
    ],
)
def test_fails_when_the_body_is_not_a_list_of_ids(ask: Ask, body: Any, detail: str) -> None:
    status, problem = post(body)
    assert status == 400
    assert re.search(detail, problem["detail"])


def test_fails_when_the_answer_is_more_than_lambda_returns(
    table: PredictionTable, ask: Ask
) -> None:
    for n in range(20):
        write(table, ("7", json.dumps('"' * 150_000)), at=f"t{n:02}")
        write(table, (f"a{n}", json.dumps('"' * 150_000)))

    for status, problem in (ask("id=7&history=20"), post([f"a{n}" for n in range(20)])):
        assert status == 400
        assert "at most 6000000 bytes together, got more by the " in problem["detail"]
        assert problem["detail"].endswith("; ask for fewer at once")
    assert ask("id=7&history=5")[0] == 200


class BusyClient:
    """A client whose queries DynamoDB throttles: so many each, for an id of one's choice ever."""

    def __init__(self, client: Any, *, refusals: int, never: str = "") -> None:
        self._client = client
        self._refusals = refusals
        self._never = never
        self._lock = threading.Lock()  # moto is not made for threads
        self.asked: dict[str, int] = {}

    def query(self, **query: Any) -> Any:
        record_id = query["KeyConditionExpression"].get_expression()["values"][1]
        with self._lock:
            self.asked[record_id] = self.asked.get(record_id, 0) + 1
            if self.asked[record_id] <= self._refusals or record_id == self._never:
                raise ClientError({"Error": {"Code": "ThrottlingException"}}, "Query")
            return self._client.query(**query)


def test_throttled_queries_are_asked_again_and_no_id_is_lost(
    table: PredictionTable, ask: Ask
) -> None:
    write(table, *[(str(n), f"[{n}]") for n in range(100)])
    table._client = BusyClient(table._client, refusals=2)

    status, body = post([str(n) for n in range(100)])

    assert status == 200
    assert [entry["prediction"] for entry in body["predictions"]] == [[n] for n in range(100)]
    assert body["missing"] == []


def test_an_id_that_dynamodb_never_answers_fails_the_whole_lookup_in_time(
    table: PredictionTable, ask: Ask
) -> None:
    table._client = BusyClient(table._client, refusals=0, never="3")
    began = time.monotonic()

    status, problem = post([str(n) for n in range(5)], time_left_s=2.5)

    assert time.monotonic() - began < 2
    assert (status, problem["title"]) == (503, "Service Unavailable")
    assert problem["detail"].endswith("ask again later, or for fewer ids")
    assert problem["instance"] == f"urn:uuid:{Context().aws_request_id}"
    assert table._client.asked["3"] > 1


def test_a_table_that_cannot_be_read_is_a_problem_that_names_the_call(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gone = PredictionTable(boto3.resource("dynamodb").Table("gone"))
    monkeypatch.setattr(lookup, "_table", lambda: gone)

    status, problem = post(["a"])

    assert (status, problem["title"]) == (500, "Internal Server Error")
    assert "got ResourceNotFoundException; see the function's log" in problem["detail"]
    assert problem["instance"] == f"urn:uuid:{Context().aws_request_id}"
    assert "ResourceNotFoundException" in caplog.text


def test_indexing_a_part_twice_changes_nothing_and_counts_what_it_could_not_read(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.drop("input/a.csv", b"a,1\n,2\nb,3\n\nc," + b"4" * 400_000 + b"\n,5\n")
    world.pass_time(60)
    (run_id,) = world.dispatch()
    world.execute(run_id)
    caplog.clear()
    before = world.prediction_table.scan()["Items"]

    assert world.indexer.index(run_id, 0) == {"indexed": 2, "unindexed": 3}
    assert world.prediction_table.scan()["Items"] == before
    key = f"runs/{run_id}/step-1-of-1/input/a.csv.out: records not indexed:"
    assert [record.getMessage() for record in caplog.records] == [
        f"{key} 2, a record's id must have 1 to 1024 bytes",
        f"{key} 1, what is kept of a record must have at most 358400 bytes",
    ]
