"""The README's commands, run as they stand there; tests/synth runs its Python."""

import re
import shutil
import subprocess
from pathlib import Path

from local_cloud import LocalCloud
from tests.documents import PROJECT, blocks_of

from .conftest import Trace

LIMIT_S = 200
BLOCKS = [block.text for block in blocks_of(PROJECT / "README.md", "bash")]


def test_there_is_no_block_that_no_test_here_runs() -> None:
    assert len(BLOCKS) == 4


def test_the_two_commands_are_there_and_say_so_when_python_is_too_old(
    trace: Trace, tmp_path: Path
) -> None:
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.2 && exit\nexit 1\n')
    old.chmod(0o755)
    for command in BLOCKS[0].split():
        ended = subprocess.run(
            [PROJECT / command],
            env=trace.environment(PYTHON=str(old)),
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
        assert ended.returncode == 1
        assert ended.stderr == (
            f"setup: PYTHON must be a Python of 3.11 or newer, got {old} (Python 3.9.2); "
            "name another\n"
        )


def test_one_job_writes_the_predictions_of_one_file(trace: Trace) -> None:
    outputs = PROJECT / "build" / "predictions"
    shutil.rmtree(outputs, ignore_errors=True)

    said = bash(BLOCKS[1], trace.environment())

    assert "Completed  1 of 1 object done, 36 records" in said
    lines = (outputs / "patients-01.csv.out").read_text().splitlines()
    assert len(lines) > 30
    assert all(re.fullmatch(r"P\d{4},[01]\.\d+", line) for line in lines)
    assert trace.nothing_is_left(), trace.processes()


def test_the_cdk_cli_deploys_the_same_app_and_the_commands_find_it(trace: Trace) -> None:
    with LocalCloud() as cloud:
        environment = trace.environment(**cloud.cdk_environment(), CDK_REQUIRE_APPROVAL="never")
        bash(BLOCKS[2], environment)

        said = bash(BLOCKS[3], environment)
        assert "predictions/input/patients-01.csv.out" in said
        assert "1 done" in said
        assert 0.5 < float(said.splitlines()[-1]) < 1
    assert trace.nothing_is_left(), trace.processes()


def bash(block: str, environment: dict[str, str]) -> str:
    """Run a block in the project's folder, and return what it printed."""
    ended = subprocess.run(
        ["bash", "-euc", block],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
