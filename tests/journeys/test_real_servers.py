"""Whole jobs with model servers that nobody here wrote, unmodified.

- MLflow's scoring server, as `mlflow models serve` and its SageMaker container start it: uvicorn.
- `inference-server`, a toolkit for SageMaker containers, under gunicorn.

Each has an environment of its own, see `scripts/environment-for`.
"""

import csv
import io
import json
import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from transform_engine.job import JobResult, TransformJob
from transform_engine.spec import Container, JobSpec, Readings

pytestmark = pytest.mark.timeout(900)  # Making an environment takes a minute, once.

_PROJECT = Path(__file__).parents[2]
_CONCURRENT = 16
_ROWS = [(number / 8, number % 7 - 3.5) for number in range(300)]
# Unequal objects, so that some end while others go on.
_OBJECTS = {f"part-{number:02}": _ROWS[number * number : (number + 1) ** 2] for number in range(17)}


def _environment(name: str) -> Path:
    """Return the folder of programs of an environment of its own."""
    made = subprocess.run(
        [_PROJECT / "scripts" / "environment-for", name],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    return Path(made.stdout.strip()).parent


@dataclass(frozen=True, kw_only=True)
class _Server:
    """A server, and what its model says when it is called without any server."""

    container: Container
    predictions: dict[tuple[float, ...], float]


def _direct(program: str, python: Path, *arguments: str) -> dict[tuple[float, ...], float]:
    """Run a program of an environment that writes the predictions of the rows that it reads."""
    done = subprocess.run(
        [python / "python", "-c", program, *arguments],
        input=json.dumps(_ROWS),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(_ROWS, json.loads(done.stdout), strict=True))


_MLFLOW_MODEL = """
import json, sys
import mlflow.pyfunc, pandas

class Linear(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input):
        return [2 * a + b / 3 for a, b in zip(model_input["a"], model_input["b"])]

mlflow.pyfunc.save_model(sys.argv[1], python_model=Linear(), pip_requirements=[])
rows = pandas.DataFrame(json.load(sys.stdin), columns=["a", "b"])
print(json.dumps(mlflow.pyfunc.load_model(sys.argv[1]).predict(rows)))
"""


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> _Server:
    programs = _environment("mlflow")
    model = tmp_path_factory.mktemp("mlflow") / "model"
    serve = (
        'exec mlflow models serve --model-uri "$SM_MODEL_DIR" --env-manager local --workers 2 '
        '--host "$BIND_HOST" --port "$SAGEMAKER_BIND_TO_PORT"'
    )
    return _Server(
        predictions=_direct(_MLFLOW_MODEL, programs, str(model)),
        container=Container(
            command=("sh", "-c", serve),
            environment={"PATH": f"{programs}:{os.environ['PATH']}"},
            model_data_url=f"{model.as_uri()}/",
        ),
    )


# What a user of inference-server writes; an entry point of its package names the module.
_INFERENCE_SERVER_MODEL = """
import json, os, sys
from inference_server import plugin_hook

@plugin_hook()
def model_fn(model_dir):
    with open(os.path.join(os.environ.get("SM_MODEL_DIR", model_dir), "weights.json")) as file:
        return json.load(file)

@plugin_hook()
def input_fn(input_data, content_type):
    read = json.loads if content_type == "application/jsonlines" else lambda row: row.split(",")
    return [[float(value) for value in read(line)] for line in input_data.decode().splitlines()]

@plugin_hook()
def predict_fn(data, model):
    return [model["a"] * a + model["b"] * b for a, b in data]

@plugin_hook()
def output_fn(prediction, accept):
    if accept.best == "application/jsonlines":
        lines = [json.dumps({"score": each}) for each in prediction]
    else:
        lines = map(str, prediction)
    return "\\n".join(lines).encode(), accept.best

if __name__ == "__main__":
    print(json.dumps(predict_fn(json.load(sys.stdin), model_fn(sys.argv[1]))))
"""


@pytest.fixture(scope="module", params=["sync", "gthread"])
def inference_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> _Server:
    """One that closes each connection, or one that keeps them."""
    programs = _environment("inference-server")
    home = tmp_path_factory.mktemp("inference-server")
    (home / "linear.py").write_text(_INFERENCE_SERVER_MODEL)
    package = home / "linear-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: linear\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[inference_server]\nlinear = linear\n")
    (home / "weights.json").write_text(json.dumps({"a": 0.1, "b": 1 / 3}))
    serve = (
        f"exec gunicorn --worker-class {request.param} --workers 2 --threads 4 --bind "
        '"$BIND_HOST:$SAGEMAKER_BIND_TO_PORT" "inference_server:create_app()"'
    )
    return _Server(
        predictions=_direct(_INFERENCE_SERVER_MODEL, programs, str(home)),
        container=Container(
            command=("sh", "-c", serve),
            environment={"PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(home)},
            model_data_url=f"{home.as_uri()}/",
        ),
    )


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


@dataclass(frozen=True, kw_only=True)
class _Jobs:
    """Runs jobs over the objects, each in a folder of its own."""

    folder: Path

    def run(
        self, server: _Server, content: Callable[[Sequence[Any]], str], **changes: Any
    ) -> tuple[JobResult, dict[str, str]]:
        """Run a job; return its result, and its outputs by the names of their objects."""
        source, out, work = (self.folder / name for name in ("in", "out", "work"))
        for folder in (source, work):
            folder.mkdir()
        for name, rows in _OBJECTS.items():
            (source / name).write_text(content(rows))
        request = {
            "TransformJobName": "real",
            "ModelName": "real",
            "TransformInput": {
                "DataSource": {
                    "S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"{source.as_uri()}/"}
                },
                "ContentType": changes["content_type"],
                "SplitType": "Line",
            },
            "TransformOutput": {
                "S3OutputPath": out.as_uri(),
                "Accept": changes["content_type"],
                "AssembleWith": "Line",
            },
            "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
            "BatchStrategy": changes["strategy"],
            "MaxConcurrentTransforms": _CONCURRENT,
            "MaxPayloadInMB": 1,
        }
        job = TransformJob(
            JobSpec(
                job_name="real",
                request=request,
                containers=(server.container,),
                work_dir=str(work),
                log_dir=str(self.folder / "logs"),
                ping_timeout_s=90,
                server_stop_timeout_s=20,
                readings=changes.get("readings", Readings()),
            )
        )
        job.start()
        result = job.wait(240)
        assert _processes_with(self.folder) == []
        assert [*work.iterdir()] == []
        return result, {path.stem: path.read_text() for path in out.rglob("*.out")}

    @property
    def log(self) -> str:
        """What the server of the last job wrote."""
        (stream,) = (self.folder / "logs" / "real").glob("*.log")
        return stream.read_text()


@pytest.fixture
def jobs(tmp_path: Path) -> _Jobs:
    return _Jobs(folder=tmp_path)


def _processes_with(folder: Path) -> list[str]:
    """Return the commands of the processes that were told of a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                told = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
            except OSError:
                continue  # It has just ended, or is not ours.
            if str(folder).encode() in told:
                found.append(told.decode(errors="replace"))
    return found


def test_mlflow_scores_whole_files_of_csv(mlflow: _Server, jobs: _Jobs) -> None:
    result, outputs = jobs.run(
        mlflow,
        lambda rows: _csv([("a", "b"), *rows]),
        content_type="text/csv",
        strategy="MultiRecord",
    )
    assert result == JobResult(status="Completed", done=len(_OBJECTS)), jobs.log
    for name, rows in _OBJECTS.items():
        said = json.loads(outputs[name])
        assert said == {"predictions": [mlflow.predictions[row] for row in rows]}
    assert '"GET /ping HTTP/1.1" 200' in jobs.log, "its log is kept"


def _split(row: Sequence[float]) -> str:
    return json.dumps({"dataframe_split": {"columns": ["a", "b"], "data": [row]}}) + "\n"


def test_mlflow_scores_one_json_line_at_a_time(mlflow: _Server, jobs: _Jobs) -> None:
    result, outputs = jobs.run(
        mlflow,
        lambda rows: "".join(map(_split, rows)),
        content_type="application/json",
        strategy="SingleRecord",
    )
    assert result == JobResult(status="Completed", done=len(_OBJECTS)), jobs.log
    for name, rows in _OBJECTS.items():
        said = [json.loads(line) for line in outputs[name].splitlines()]
        assert said == [{"predictions": [mlflow.predictions[row]]} for row in rows]


def test_mlflow_refuses_many_json_lines_at_a_time_and_the_job_says_so_in_its_words(
    mlflow: _Server, jobs: _Jobs
) -> None:
    result, outputs = jobs.run(
        mlflow,
        lambda rows: "".join(map(_split, rows)),
        content_type="application/json",
        strategy="MultiRecord",
    )
    # One object is a single line, and that is JSON.
    assert (result.status, result.done, result.failed) == ("Failed", 1, len(_OBJECTS) - 1)
    assert (result.failure_reason or "").startswith("ClientError")
    assert "ClientError: 400" in (result.detail or "")
    assert "error_code" in (result.detail or "")
    assert list(outputs) == ["part-00"]


@pytest.mark.parametrize("strategy", ["MultiRecord", "SingleRecord"])
@pytest.mark.parametrize("content_type", ["text/csv", "application/jsonlines"])
def test_a_toolkit_under_gunicorn_scores_lines(
    content_type: str, strategy: str, inference_server: _Server, jobs: _Jobs
) -> None:
    lines = content_type == "application/jsonlines"
    result, outputs = jobs.run(
        inference_server,
        (lambda rows: "".join(f"{json.dumps(row)}\n" for row in rows)) if lines else _csv,
        content_type=content_type,
        strategy=strategy,
        readings=Readings(bytes_in_mb=100),  # Several payloads make an object.
    )
    assert result == JobResult(status="Completed", done=len(_OBJECTS)), jobs.log
    for name, rows in _OBJECTS.items():
        expected = [inference_server.predictions[row] for row in rows]
        said = [
            json.loads(line)["score"] if lines else float(line)
            for line in outputs[name].splitlines()
        ]
        assert said == expected
