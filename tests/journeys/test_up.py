"""A user edits the app while `batch-transform up` runs, and drops files before and after."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batch_transform_cli.cloud import Cloud
from batch_transform_cli.pipelines.client import PipelineClient

from .conftest import APP, LIMIT_S, Pipeline, Trace, make_image, serving

SERVE = serving(
    """
model = pathlib.Path(os.environ["SM_MODEL_DIR"], "weight.txt").read_bytes()

def reply(rows):
    return 200, [model for _ in rows]
"""
)
PIPELINES = """
pipelines:
  Weights:
    model: {artifact: model, image: image}
    instance_type: ml.m5.large
    settings: {csv: {data_processing: {join_source: Input}}}
    index: {record_id: 0}
    batch: {max_wait_s: 0}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "cdk.json").write_text('{"app": "python3 app.py"}')
    (tmp_path / "pipelines.yaml").write_text(PIPELINES)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weight.txt").write_text("light")
    make_image(tmp_path / "image", SERVE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def up(project: Path, trace: Trace) -> Iterator[subprocess.Popen[str]]:
    command = [str(Path(sys.executable).with_name("batch-transform")), "up", "--json"]
    with subprocess.Popen(
        command,
        env=trace.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()
    assert trace.nothing_is_left(), trace.processes()


def test_what_a_user_edits_is_deployed_and_no_data_are_lost(
    project: Path, up: subprocess.Popen[str]
) -> None:
    until(up, event="ready")
    first = drop("a.csv", "A")
    until(up, event="drop", key=first, status="done")

    (project / "model" / "weight.txt").write_text("heavy")
    until(up, event="deployed")
    until(up, event="drop", key=drop("b.csv", "B"), status="done")

    pipelines = project / "pipelines.yaml"
    pipelines.write_text(PIPELINES.replace("artifact", "artefact"))
    assert "got 'artefact'; write artifact" in until(up, event="refused")["reason"]

    more = PIPELINES.replace("Weights", "More").partition("pipelines:\n")[2]
    pipelines.write_text(PIPELINES + more)
    until(up, event="deployed")
    client = of("weights-")
    found = client.lookup_many(["A", "B"])
    predictions = {name: each.prediction for name, each in found.items() if each is not None}
    assert predictions == {"A": ["light"], "B": ["heavy"]}
    assert {drop.key for drop in client.status().drops} >= {first}
    until(up, event="drop", key=drop("c.csv", "C", pipeline="more-"), status="done")

    up.send_signal(signal.SIGTERM)
    _, errors = up.communicate(timeout=LIMIT_S)
    assert (up.returncode, errors) == (143, "batch-transform: stopped; nothing is left running\n")


def until(up: subprocess.Popen[str], **wanted: str) -> dict[str, Any]:
    """Read what `up` says until something is as wanted; return it."""
    assert up.stdout is not None
    said = []
    for line in up.stdout:
        told: dict[str, Any] = json.loads(line)
        said.append(told)
        if told.items() >= wanted.items():
            return told
    raise AssertionError((said, up.communicate()))


def of(pipeline: str) -> PipelineClient:
    """Find a pipeline of the project, as every command does that names no cloud."""
    return next(c for c in PipelineClient.find_all(Cloud()) if c.pipeline_id.startswith(pipeline))


def drop(name: str, row: str, *, pipeline: str = "weights-") -> str:
    """Upload a file of one row; return its key."""
    return Pipeline(of(pipeline), Cloud().client("s3")).drop(name, f"{row}\n".encode())
