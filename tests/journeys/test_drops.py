"""From a file in S3 to its predictions, and back by id: on the local cloud, nothing faked."""

import csv
import json
import math
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from batch_transform_cli.cost.sums import period, usage_of
from batch_transform_cli.errors import CommandError
from tests.documents import PROJECT, blocks_of

from .conftest import Pipeline

LOOKUP_PAGE = PROJECT / "docs" / "lookup.md"

Rows = dict[str, list[str]]


@pytest.fixture(scope="session")
def score(build: Path) -> Callable[[list[str]], float]:
    """Return what the trained model says of a row, without any server."""
    model = json.loads((build / "model" / "model.json").read_text())

    def scored(row: list[str]) -> float:
        columns = (map(float, row), model["mean"], model["scale"], model["coefficients"])
        weighed = sum((x - m) / s * c for x, m, s, c in zip(*columns, strict=True))
        return 1 / (1 + math.exp(-model["intercept"] - weighed))

    return scored


def table_of(output: bytes) -> dict[str, float]:
    return {
        record_id: float(score) for record_id, score in csv.reader(output.decode().splitlines())
    }


def test_files_dropped_together_are_one_run_and_the_malformed_one_fails_alone(
    pipeline: Pipeline, build: Path, score: Callable[[list[str]], float]
) -> None:
    files = {
        pipeline.drop(f"together/{path.name}", path.read_bytes()): path
        for path in sorted((build / "drops").iterdir())
    }

    drops = {drop.key: drop for drop in pipeline.wait(*files)}

    assert len({drop.run_id for drop in drops.values()}) == 1
    bad = "input/together/patients-05.csv"
    assert {key for key, drop in drops.items() if drop.status != "done"} == {bad}
    assert drops[bad].status == "failed"
    assert drops[bad].reason.startswith(f"{bad}: ClientError: 400")
    assert "row 7, column 'mean area' must be a number, got 'n/a'" in drops[bad].reason

    for key, path in files.items():
        if key != bad:
            with path.open() as lines:
                expected = {row[0]: score(row[1:]) for row in csv.reader(lines)}
            assert table_of(pipeline.output(key)) == pytest.approx(expected, abs=1e-6)
    with pytest.raises(pipeline.s3.exceptions.NoSuchKey):
        pipeline.output(bad)

    (run,) = [run for run in pipeline.client.status().runs if run.run_id == drops[bad].run_id]
    assert (run.outcome, run.done, run.failed, run.waiting) == ("PartiallyCompleted", 7, 1, 0)
    report, told = report_of(pipeline, run.run_id)
    assert {key: drop["status"] for key, drop in told.items()} == {
        key: drop.status for key, drop in drops.items()
    }
    assert told[bad]["reason"] == report["errors"]["bad data"]["example"] == drops[bad].reason
    rows_of = {key: len(path.read_bytes().splitlines()) for key, path in files.items()}
    for key in files:
        if key != bad:
            output = pipeline.output(key)
            assert (told[key]["output_key"], told[key]["output_bytes"]) == (
                f"predictions/{key}.out",
                len(output),
            )
            assert told[key]["records_in"] == told[key]["records_out"] == rows_of[key]
    totals = report["totals"]
    assert (totals["drops"], totals["drops_counted"], totals["retries"]) == (8, 7, 0)
    assert totals["bytes_in"] == sum(path.stat().st_size for path in files.values())
    assert totals["records_out"] == sum(rows_of.values()) - rows_of[bad]
    (job,) = report["jobs"]
    assert (job["status"], job["instance_type"]) == ("Failed", "ml.m5.large")
    assert job["created_at"] <= job["started_at"] <= job["ended_at"]
    assert job["settings"]["DataProcessing"]["JoinSource"] == "Input"
    model = report["models"][job["model"]]
    assert model["unknown"] is None
    (container,) = model["containers"]
    assert container["image"]
    assert container["model_data_url"].endswith(".gz")

    now = datetime.now(UTC)
    used = usage_of(pipeline.client, period("1d", None, None, now=now), now=now)
    assert run.run_id not in (*used.without_report, *used.open_runs)
    assert used.jobs["ml.m5.large"] >= 1
    assert used.instance_seconds["ml.m5.large"] >= totals["billable_seconds"]
    assert used.drops >= 8


def report_of(pipeline: Pipeline, run_id: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the report of a run, and what it says of each drop by its key."""

    def read(uri: str) -> bytes:
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        body: bytes = pipeline.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        return body

    report = json.loads(read(f"s3://{pipeline.client.output_bucket}/reports/{run_id}.json"))
    drops = [json.loads(line) for line in read(report["drops"]).splitlines()]
    return report, {drop["key"]: drop for drop in drops}


def test_predictions_are_found_by_id_and_an_unknown_id_is_not(
    pipeline: Pipeline,
    rows: Rows,
    score: Callable[[list[str]], float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    odd, *others = ids = ["1/2+50% = ä?", *(f"ä/{n}" for n in range(97))]
    key = pipeline.drop("many.csv", csv_of(dict.fromkeys(ids, rows["P0001"])))
    pipeline.wait(key)

    found = pipeline.client.lookup(odd)

    assert found is not None
    assert (found.record_id, found.source_key) == (odd, key)
    assert found.prediction == [pytest.approx(score(rows["P0001"]), abs=1e-6)]
    assert pipeline.client.lookup("nobody") is None

    asked = [*reversed(others), "nobody", odd, "no one"]
    many = pipeline.client.lookup_many(asked)

    assert list(many) == asked
    assert [record_id for record_id in asked if many[record_id] is None] == ["nobody", "no one"]
    assert many[odd] == found
    for record_id in others:
        assert many[record_id] == replace(found, record_id=record_id)
    with pytest.raises(CommandError, match="400: an id must have 1 to 1024 bytes, got 2000"):
        pipeline.client.lookup_many(["x" * 2000, "y"])

    # The client that docs/lookup.md has for those who have botocore and no more.
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "000000000000")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local")
    names: dict[str, Any] = {}
    (block,) = [text for text in blocks_of(LOOKUP_PAGE, "python") if "class " in text.text]
    exec(block.text, names)
    client = names["Predictions"](pipeline.client.api_url, "us-east-1")
    assert client.one(odd)["prediction"] == found.prediction
    assert client.one("nobody") is None
    many_of_page = client.many([*others, odd, "nobody"])
    assert [entry["id"] for entry in many_of_page["predictions"]] == [*others, odd]
    assert many_of_page["missing"] == ["nobody"]
    with pytest.raises(RuntimeError, match=r'400: .*"detail": "a lookup must name 1 to 100 ids'):
        client.many([])


def test_a_newer_version_of_a_key_replaces_output_and_prediction(
    pipeline: Pipeline, rows: Rows, score: Callable[[list[str]], float]
) -> None:
    for version, row in enumerate((rows["P0001"], rows["P0002"]), start=1):
        key = pipeline.drop("again.csv", csv_of({"again": row}))
        drops = pipeline.wait(key, versions=version)

        assert [drop.status for drop in drops] == ["done"] * version
        assert table_of(pipeline.output(key)) == {"again": pytest.approx(score(row), abs=1e-6)}
        assert predicted(pipeline, "again") == pytest.approx(score(row), abs=1e-6)


def test_of_two_versions_dropped_at_once_the_newer_one_wins(
    pipeline: Pipeline, rows: Rows, score: Callable[[list[str]], float]
) -> None:
    older, newer = rows["P0001"], rows["P0002"]
    key = pipeline.drop("race.csv", csv_of({"race": older}))
    pipeline.drop("race.csv", csv_of({"race": newer}))

    pipeline.wait(key, versions=2)

    first, last = pipeline.versions(key)
    assert first.status in ("superseded", "done")
    assert last.status == "done"
    assert table_of(pipeline.output(key)) == {"race": pytest.approx(score(newer), abs=1e-6)}
    assert predicted(pipeline, "race") == pytest.approx(score(newer), abs=1e-6)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("größe 1+1 = 100%.csv", id="space, plus, percent, umlaut"),
        pytest.param("a%2Bb%20c+%E4.csv", id="what looks encoded is not"),
        pytest.param("日本 /🙂&=?#'.csv", id="other scripts, and a folder that ends with a space"),
    ],
)
def test_a_key_of_any_characters_comes_through_as_it_is(
    pipeline: Pipeline, rows: Rows, name: str
) -> None:
    key = pipeline.drop(name, csv_of({"any": rows["P0001"]}))

    (drop,) = pipeline.wait(key)

    assert (drop.status, drop.reason) == ("done", "")
    assert list(table_of(pipeline.output(key))) == ["any"]
    found = pipeline.client.lookup("any")
    assert found is not None
    assert found.source_key == key


def csv_of(rows: Rows) -> bytes:
    return "".join(",".join([record_id, *row]) + "\n" for record_id, row in rows.items()).encode()


def predicted(pipeline: Pipeline, record_id: str) -> float:
    found = pipeline.client.lookup(record_id)
    assert found is not None
    value = found.prediction
    return float((value.split(",") if isinstance(value, str) else value)[-1])
