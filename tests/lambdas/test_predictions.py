from typing import Any

import pytest

from transform_lambdas.lookup import answer, asked_for
from transform_lambdas.predictions import (
    Prediction,
    PredictionTable,
    RecordFormat,
    UnreadableRecord,
)

World = Any  # conftest's


@pytest.mark.parametrize(
    ("record_format", "line", "expected"),
    [
        pytest.param(RecordFormat("csv", "0"), b"17,0.5", Prediction("17", "[0.5]"), id="csv"),
        pytest.param(
            RecordFormat("csv", "-1"), b"0.5,x", Prediction("x", "[0.5]"), id="last column"
        ),
        pytest.param(
            RecordFormat("csv", "0"),
            'a,"x, ""y""",007,é,1e-5'.encode(),
            Prediction("a", '["x, \\"y\\"","007","é",1e-5]'),
            id="only what JSON takes for a number is one",
        ),
        pytest.param(
            RecordFormat("jsonlines", "id"),
            b'{"SageMakerOutput":{"p":1.0},"id":7}',
            Prediction("7", '{"SageMakerOutput":{"p":1.0},"id":7}'),
            id="json stays as it is",
        ),
    ],
)
def test_a_record_has_an_id_and_a_prediction(
    record_format: RecordFormat, line: bytes, expected: Prediction
) -> None:
    assert record_format.read(line) == expected


@pytest.mark.parametrize(
    ("record_format", "line", "problem"),
    [
        (RecordFormat("csv", "3"), b"1,2", "must have a column 3, got 2"),
        (RecordFormat("csv", "0"), b",2", "id must have 1 to 1024 bytes"),
        (RecordFormat("csv", "0"), b"\xff", "must be UTF-8"),
        (RecordFormat("csv", "0"), b"1," + b"x" * 400_000, "must be CSV, got: field larger"),
        (RecordFormat("csv", "0"), b"1" + b",x" * 200_000, "at most 358400 bytes"),
        (RecordFormat("jsonlines", "id"), b"{", "must be JSON"),
        (RecordFormat("jsonlines", "id"), b'{"id":1,"p":NaN}', "must be JSON"),
        (RecordFormat("jsonlines", "id"), b"[1]", "text or whole number 'id'"),
        (RecordFormat("jsonlines", "id"), b'{"id":true}', "text or whole number 'id'"),
        (RecordFormat("jsonlines", "id"), b'{"id":"\\ud800"}', "id must be UTF-8"),
        (RecordFormat("jsonlines", "id"), b"[" * 200_000, "must be JSON"),
    ],
)
def test_fails_when_a_record_cannot_be_indexed(
    record_format: RecordFormat, line: bytes, problem: str
) -> None:
    with pytest.raises(UnreadableRecord, match=problem):
        record_format.read(line)


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


def test_the_newest_drop_answers_whichever_run_ended_last(table: PredictionTable) -> None:
    write(table, ("7", "[2]"), at="2026-03-02T00:00:00.000Z")
    write(table, ("7", "[1]"), at="2026-03-01T00:00:00.000Z")

    assert answer(table, "7", None, now_s=0) == (
        200,
        {
            "id": "7",
            "prediction": [2],
            "dropped_at": "2026-03-02T00:00:00.000Z",
            "source_key": "input/a.csv",
            "run_id": "run-1",
        },
    )
    _, body = answer(table, "7", "10", now_s=0)
    assert [entry["prediction"] for entry in body["predictions"]] == [[2], [1]]


def test_many_predictions_are_written_and_the_later_of_two_with_one_id_stays(
    table: PredictionTable,
) -> None:
    pairs = [(str(n % 60), f"[{n}]") for n in range(120)]
    write(table, *pairs)
    assert answer(table, "5", None, now_s=0)[1]["prediction"] == [65]


def test_what_has_expired_is_not_found_though_dynamodb_still_has_it(table: PredictionTable) -> None:
    write(table, ("7", "[1]"), at="2026-01-01", expires=2000)
    for day in range(5):
        write(table, ("7", "[0]"), at=f"2026-02-0{day}", expires=1000)

    assert answer(table, "7", None, now_s=1500)[1]["prediction"] == [1]
    assert answer(table, "7", None, now_s=2500)[0] == 404


@pytest.mark.parametrize("history", ["0", "101", "x", "-1", ""])
def test_fails_when_history_is_not_a_number_it_can_be(table: PredictionTable, history: str) -> None:
    status, body = answer(table, "7", history, now_s=0)
    assert status == 400
    assert "leave it out" in body["message"]


@pytest.mark.parametrize(
    ("path", "query", "asked"),
    [
        pytest.param({"id": "P1"}, "", ("P1", None), id="in the path"),
        pytest.param({"id": "P1"}, "history=3", ("P1", "3"), id="with its history"),
        pytest.param(None, "id=a%2Fb%25%20c%2B%C3%A9", ("a/b% c+é", None), id="any id"),
        pytest.param(None, "history=", ("", ""), id="none"),
    ],
)
def test_an_id_is_read_from_path_or_query(
    path: dict[str, str] | None, query: str, asked: tuple[str, str | None]
) -> None:
    event = {"rawQueryString": query}
    assert asked_for(event | ({"pathParameters": path} if path else {})) == asked


def test_fails_when_no_id_is_named(table: PredictionTable) -> None:
    status, body = answer(table, "", None, now_s=0)
    assert status == 400
    assert "ask for /predictions?id=" in body["message"]


def test_an_unknown_id_says_what_to_look_for(table: PredictionTable) -> None:
    status, body = answer(table, "nobody", None, now_s=0)
    assert status == 404
    assert "was its file dropped" in body["message"]


def test_indexing_a_part_twice_changes_nothing_and_counts_what_it_could_not_read(
    world: World,
) -> None:
    world.drop("input/a.csv", b"a,1\n,2\nb,3\n\n")
    world.pass_time(60)
    (run_id,) = world.dispatch()
    world.execute(run_id)
    before = world.prediction_table.scan()["Items"]

    assert world.indexer.index(run_id, 0) == {"indexed": 2, "unindexed": 1}
    assert world.prediction_table.scan()["Items"] == before
