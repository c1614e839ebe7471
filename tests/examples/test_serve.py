"""The example's model server as a process, spoken to as the service's agent speaks to it."""

import csv
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer

EXAMPLE = Path(__file__).parents[2] / "examples" / "breast_cancer"
ROW = ",".join(str(value) for value in load_breast_cancer().data[0])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(model: Path, port: int) -> dict[str, str]:
    return {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "BIND_HOST": "127.0.0.1",
        "SAGEMAKER_BIND_TO_PORT": str(port),
        "SM_MODEL_DIR": str(model),
    }


@pytest.fixture(scope="module")
def build(train: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("example")
    train.train(folder)
    return folder


@pytest.fixture(scope="module")
def server(build: Path) -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen(
        [EXAMPLE / "image" / "serve"], env=environment(build / "model", port)
    )
    try:
        url = f"http://127.0.0.1:{port}"
        until = time.monotonic() + 20
        while not answers(f"{url}/ping"):
            assert process.poll() is None, "the server ended before it answered"
            assert time.monotonic() < until, "no /ping in 20 s"
            time.sleep(0.05)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        assert process.wait(timeout=10) == 0
        assert time.monotonic() - started < 3, "SIGTERM must end it quickly"


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def invoke(server: str, body: bytes, content_type: str = "text/csv") -> tuple[int, str]:
    call = urllib.request.Request(
        f"{server}/invocations", data=body, headers={"Content-Type": content_type}
    )
    try:
        with urllib.request.urlopen(call, timeout=10) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_the_scores_are_those_of_the_model_that_scikit_learn_trained(
    server: str, build: Path
) -> None:
    with (build / "drops" / "patients-01.csv").open() as drop:
        rows = list(csv.reader(drop))
    with (build / "truth.csv").open() as truth_file:
        truth = dict(csv.reader(truth_file))

    status, reply = invoke(server, "\n".join(",".join(row[1:]) for row in rows).encode())

    scores = [float(line) for line in reply.splitlines()]
    assert (status, len(scores)) == (200, len(rows))
    right = [
        (truth[row[0]] == "malignant") == (s > 0.5) for row, s in zip(rows, scores, strict=True)
    ]
    assert np.mean(right) > 0.9


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param(f"{ROW}\n{ROW},1\n", "row 2 must have 30 columns, got 31", id="too many"),
        pytest.param(f"{ROW}\n\n{ROW}\n", "row 2 must have 30 columns, got 0", id="blank row"),
        pytest.param("hello", "row 1 must have 30 columns, got 1", id="not CSV"),
        pytest.param(
            ROW.replace("1001.0", "n/a"), "row 1, column 'mean area' must be a number", id="text"
        ),
        pytest.param(
            ROW.replace("1001.0", "nan"), "'mean area' must be a number, got 'nan'", id="nan"
        ),
        pytest.param("", "the body must hold at least one row", id="empty"),
    ],
)
def test_a_bad_row_is_refused_in_one_line_that_names_it(
    server: str, body: str, reason: str
) -> None:
    status, reply = invoke(server, body.encode())

    assert status == 400
    assert reason in reply
    assert reply.count("\n") == 1


def test_bytes_that_are_no_text_are_refused_with_a_reason(server: str) -> None:
    assert invoke(server, b"\xff\xfe\x00")[1].startswith("the body must be UTF-8, got byte 0xff")


def test_another_content_type_is_refused_with_a_reason(server: str) -> None:
    status, reply = invoke(server, b"{}", "application/json")
    assert (status, reply) == (
        415,
        "Content-Type must be text/csv, got application/json; send CSV rows\n",
    )


def test_a_missing_model_ends_the_server_with_a_line_that_says_so(tmp_path: Path) -> None:
    ended = subprocess.run(
        [EXAMPLE / "image" / "serve"],
        env=environment(tmp_path, free_port()),
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert ended.returncode != 0
    assert "the model archive must hold model.json" in ended.stderr
