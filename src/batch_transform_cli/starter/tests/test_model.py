"""The model server, spoken to as SageMaker speaks to it."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
LIMIT_S = 30


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "BIND_HOST": "127.0.0.1",
        "SAGEMAKER_BIND_TO_PORT": str(port),
        "SM_MODEL_DIR": str(PROJECT / "model"),
    }
    serve = [sys.executable, str(PROJECT / "image" / "serve")]
    with subprocess.Popen(serve, env=environment) as process:
        try:
            deadline = time.monotonic() + LIMIT_S
            while not is_ready(f"http://127.0.0.1:{port}"):
                assert process.poll() is None, "the server ended before it was ready"
                assert time.monotonic() < deadline, f"not ready within {LIMIT_S} s"
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/ping", timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def invoke(url: str, body: bytes) -> tuple[int, str]:
    call = urllib.request.Request(f"{url}/invocations", body, {"Content-Type": "text/csv"})
    try:
        with urllib.request.urlopen(call, timeout=LIMIT_S) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_each_row_is_answered_with_one_number(server: str) -> None:
    assert invoke(server, b"3,4,79.5\n48,0,20\n") == (200, "0.950\n0.026")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"3,4,79.5\n48,0\n", "row 2 must have 3 columns (months, calls, charge), got 2"),
        (b"3,many,79.5\n", "row 1, column 'calls' must be a number, got 'many'"),
    ],
)
def test_a_bad_row_is_refused_with_the_reason(server: str, body: bytes, reason: str) -> None:
    assert invoke(server, body) == (400, reason)
