"""The demo as a newcomer runs it, but for the set-up."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Trace

DEMO = Path(__file__).parents[2] / "examples" / "breast_cancer" / "demo.py"
LIMIT_S = 120


def test_the_demo_goes_the_whole_way_and_leaves_nothing(trace: Trace, tmp_path: Path) -> None:
    picture = tmp_path / "demo.svg"

    ended = subprocess.run(
        [sys.executable, DEMO, "--svg", picture],
        env=trace.environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "\x1b" not in ended.stdout, "no terminal, no colours"
    for said in (
        "local cloud is up at http://127.0.0.1:",
        "synthesized app.py",
        "drop input/patients-01.csv: waiting",
        "drop input/patients-05.csv: failed (input/patients-05.csv: ClientError: 400",
        "8 files in 1 run: 7 done and indexed, 1 failed with its reason",
    ):
        assert said in ended.stdout
    svg = picture.read_text()
    assert "patients-05.csv" in svg
    assert "url(http" not in svg, "the picture must need nothing from the network"
    assert trace.nothing_is_left(), trace.processes()


def test_a_kept_cloud_says_what_to_try_and_answers_until_ctrl_c(trace: Trace) -> None:
    with subprocess.Popen(
        [sys.executable, DEMO, "--keep"],
        env=trace.environment(PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        said = []
        for line in iter(process.stdout.readline, ""):
            said.append(line)
            if "Ctrl-C ends the cloud" in line:
                break
        else:
            pytest.fail(f"the cloud must be kept, got {said} and {process.communicate()}")
        tries = [line.split() for line in said if line.startswith("  aws ")]
        assert [words[1] for words in tries] == ["s3", "s3", "dynamodb"]
        (own,) = [line for line in said if "batch-transform lookup" in line]
        arguments = own.split("batch-transform ")[1].split()
        found = subprocess.run(
            [Path(sys.executable).with_name("batch-transform"), *arguments],
            env=trace.environment(),
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
        os.killpg(process.pid, signal.SIGINT)
        _, last = process.communicate(timeout=LIMIT_S)

    assert found.returncode == 0, found.stderr
    assert 0 < float(found.stdout) < 1
    assert process.returncode == 0
    assert last == "demo: the cloud is stopped; nothing is left running\n"
    assert trace.nothing_is_left(), trace.processes()


def test_fails_when_the_port_is_in_use(trace: Trace) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        ended = subprocess.run(
            [sys.executable, DEMO, "--port", port],
            env=trace.environment(),
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )

    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"demo: port {port} must be free")
