"""The report of a run has the form that docs/reports.md says, and is written alike twice."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from transform_lambdas import report
from transform_lambdas.ledger import Ledger
from transform_lambdas.record_counts import Check
from transform_lambdas.transform_jobs import Job

World = Any  # conftest's

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reports.md"
TYPES: dict[str, tuple[type, ...]] = {
    "text": (str,),
    "time": (str,),
    "number": (int, float),
    "object": (dict,),
    "true or false": (bool,),
    "null": (type(None),),
}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def form(heading: str) -> dict[str, str]:
    """Return member → type of the table under a heading of the page."""
    (text,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.M | re.S)
    return dict(re.findall(r"^\| `([^`]+)` \| ([^|]+) \|", text, re.M))


def members(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each member's path as the page writes it, and its value."""
    if isinstance(value, list):
        for each in value:
            yield from members(each, f"{path}[]")
    elif isinstance(value, dict) and not path.endswith(".settings"):
        named = {"errors": "<kind>", "models": "<name>"}.get(path.removeprefix("."))
        for name, member in value.items():
            yield from members(member, f"{path}.{named or name}")
    else:
        yield path.removeprefix("."), value


def is_of(value: Any, kinds: str) -> bool:
    """Whether a value is of a type as the page writes it."""
    names = [kinds] if kinds in TYPES else kinds.split(" or ")
    if isinstance(value, bool) and "true or false" not in names:
        return False
    if "time" in names and isinstance(value, str) and not TIME.fullmatch(value):
        return False
    return isinstance(value, tuple(kind for name in names for kind in TYPES[name]))


def told(world: World, run_id: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the report and its drops by the last part of their keys."""
    body = world.s3.get_object(Bucket="output-bucket", Key=f"reports/{run_id}.drops.jsonl")["Body"]
    drops = [json.loads(line) for line in body.read().splitlines()]
    return world.read(f"reports/{run_id}.json"), {
        drop["key"].rpartition("/")[2]: drop for drop in drops
    }


@pytest.fixture
def run(make_world: Callable[..., World]) -> tuple[World, str]:
    """A run of two steps whose drops end in every way, with an attempt that found no instance."""
    world = make_world(steps=("clean", "score"))
    world.budget = 0.9
    world.checks = [Check(rows_span_lines=True), Check()]
    world.attempts = 1
    bodies = {
        "good": b"a,1\nb,2\n",
        "quoted": b'a,"1\n2"\n',
        "short": b"short,1\nc,2\n",
        "bad": b"x,1\n",
        "broken": b"y,1\n",
        "old": b"z,1\n",
    }
    for name, body in bodies.items():
        world.drop(f"input/{name}", body)
    world.jobs.said["input/bad"] = "ClientError: 400 no number"
    world.jobs.said["step-1-of-2/input/broken.out"] = "Bad HTTP status received from algorithm: 500"
    world.jobs.answers = lambda body: body.partition(b"\n")[0] if b"short" in body else body
    world.pass_time(60)
    (run_id,) = world.dispatch()
    world.do_job(run_id)
    world.jobs.jobs[run_id].append(Job(f"{run_id}-s1-0", "Failed", "CapacityError: none"))
    begin = world.settle({"run_id": run_id, "step": 1})
    world.do_job(run_id, begin)
    world.drop("input/old", b"z,2\n")
    world.settle({"run_id": run_id, "step": 2})
    return world, run_id


def test_the_report_has_the_form_that_the_page_says(run: tuple[World, str]) -> None:
    written, drops = told(*run)

    for value, heading in ((written, "The run"), ([*drops.values()], "Each drop")):
        said = form(heading)
        found = [(path.removeprefix("[]."), each) for path, each in members(value)]
        assert {path for path, _ in found} == said.keys()
        wrong = [(path, each) for path, each in found if not is_of(each, said[path])]
        assert wrong == []
    for drop in drops.values():
        assert drop.keys() == form("Each drop").keys()


def test_what_became_of_each_drop_is_told(run: tuple[World, str]) -> None:
    _, drops = told(*run)

    fates = {name: (drop["status"], drop["kind"]) for name, drop in drops.items()}
    assert fates == {
        "good": ("done", None),
        "quoted": ("done", None),
        "short": ("failed", "short"),
        "bad": ("failed", "bad data"),
        "broken": ("waiting", "model failed"),
        "old": ("superseded", None),
    }
    good, quoted, short = drops["good"], drops["quoted"], drops["short"]
    assert (good["output_key"], good["output_bytes"]) == ("predictions/input/good.out", 8)
    assert (good["bytes"], good["records_in"], good["records_out"]) == (8, 2, 2)
    assert (good["attempts"], good["reason"], good["not_compared"]) == (1, None, None)
    assert "lines are not rows" in quoted["not_compared"]
    assert (short["output_key"], short["records_in"], short["records_out"]) == (None, 2, 1)
    assert "in step 'clean': 2 records went in, 1 predictions" in short["reason"]
    assert "received from algorithm: 500" in drops["broken"]["reason"]
    assert "a newer version" in drops["old"]["reason"]


def test_sums_errors_and_jobs_are_told(run: tuple[World, str]) -> None:
    world, run_id = run
    written, _ = told(world, run_id)

    assert written["counts"] == {"done": 2, "waiting": 1, "failed": 2, "superseded": 1}
    assert written["totals"] == {
        "drops": 6,
        "bytes_in": 8 + 8 + 12 + 4 + 4 + 4,
        "bytes_out": 16,
        "records_in": 4,
        "records_out": 4,
        "drops_counted": 2,
        "jobs": 3,
        "retries": 1,
        "billable_seconds": 3 * 2 * 60,
    }
    assert {kind: each["drops"] for kind, each in written["errors"].items()} == {
        "short": 1,
        "bad data": 1,
        "model failed": 1,
    }
    assert written["errors"]["bad data"]["example"].endswith("ClientError: 400 no number")
    assert written["opened_at"] == "2026-03-01T12:01:00.000Z"
    assert [job["step"] for job in written["jobs"]] == ["score", "clean", "clean"]
    job = written["jobs"][0]
    assert (job["started_at"], job["ended_at"]) == (
        "2026-03-01T12:03:50.000Z",
        "2026-03-01T12:04:50.500Z",
    )
    assert "not for readers" not in json.dumps(written)
    model = written["models"]["churn-v1"]
    assert model["containers"] == [
        {"image": "image:1", "model_data_url": "s3://models/model.tar.gz"}
    ]


def test_a_settlement_that_dies_at_its_end_writes_the_same_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("good", "bad", "broken"):
        world.drop(f"input/{name}")
    world.jobs.said["input/bad"] = "ClientError: 400 no number"
    world.jobs.said["input/broken"] = "Bad HTTP status received from algorithm: 500"
    world.pass_time(60)
    (run_id,) = world.dispatch()
    world.do_job(run_id)

    def dies(*_: Any) -> bool:
        raise TimeoutError

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "settle_run", dies)
        with pytest.raises(TimeoutError):
            world.settle({"run_id": run_id, "step": 1})
    first = written_files(world)
    world.pass_time(600)

    world.settle({"run_id": run_id, "step": 1})

    assert written_files(world) == first
    assert len(first) == 3


def written_files(world: World) -> dict[str, bytes]:
    listed = world.s3.list_objects_v2(Bucket="output-bucket", Prefix="reports/")["Contents"]
    keys = [entry["Key"] for entry in listed]
    return {
        key: world.s3.get_object(Bucket="output-bucket", Key=key)["Body"].read() for key in keys
    }


def test_a_job_that_was_not_asked_for_and_a_model_that_is_gone_are_told_as_unknown() -> None:
    job = report.job_of(Job("r-s1-0", "Stopped", ""), {}, step="score")
    model = report.model_of("ValidationException: Could not find model")

    assert (job["status"], job["billable_seconds"], job["model"]) == ("Stopped", None, None)
    assert model["unknown"] == "ValidationException: Could not find model"
    assert model["containers"] == []
