"""Every code block of the README, run as it stands there."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from local_cloud import LocalCloud

from .conftest import PROJECT, Trace, deployed

LIMIT_S = 200
WAY = "docs/the-way-of-a-drop.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", (PROJECT / "README.md").read_text(), re.M | re.S)


def test_there_is_no_code_block_that_no_test_here_runs() -> None:
    assert [language for language, _ in BLOCKS] == ["python", "bash", "bash", "bash", "bash"]


def test_every_file_that_the_documents_name_is_there() -> None:
    text = "".join((PROJECT / name).read_text() for name in ("README.md", WAY))
    roots = ("app.py", "pipelines.yaml", "constructs", "lambdas", "src", "examples", "tests")
    files = {
        path.as_posix()
        for root in roots
        for path in [PROJECT / root, *(PROJECT / root).rglob("*.py")]
    }
    named = re.findall(r"`([\w/-]+\.(?:py|yaml))`", text)
    assert len(named) > 30
    assert [name for name in named if not any(path.endswith(f"/{name}") for path in files)] == []
    linked = re.findall(r"\]\(([^)]+)\)", (PROJECT / "README.md").read_text())
    assert [link for link in linked if not (PROJECT / link).exists()] == []


def test_the_construct_example_synthesizes_in_twelve_statements_or_so(
    build: Path, trace: Trace, tmp_path: Path
) -> None:
    code = BLOCKS[0][1]
    shutil.copytree(build / "model", tmp_path / "build" / "model")
    shutil.copytree(PROJECT / "examples" / "breast_cancer" / "image", tmp_path / "image")

    subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=trace.environment(CDK_OUTDIR=str(tmp_path / "out")),
        check=True,
        timeout=LIMIT_S,
    )

    assert (tmp_path / "out" / "Churn.template.json").exists()
    assert len([line for line in code.splitlines() if line]) <= 12


def test_the_two_commands_are_there_and_say_so_when_python_is_too_old(
    trace: Trace, tmp_path: Path
) -> None:
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.2 && exit\nexit 1\n')
    old.chmod(0o755)
    for command in BLOCKS[1][1].split():
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

    said = bash(BLOCKS[2][1], trace.environment())

    assert "Completed  1 of 1 object done, 36 records" in said
    lines = (outputs / "patients-01.csv.out").read_text().splitlines()
    assert len(lines) > 30
    assert all(re.fullmatch(r"P\d{4},[01]\.\d+", line) for line in lines)
    assert trace.nothing_is_left(), trace.processes()


def test_the_cdk_cli_deploys_the_same_app_and_the_commands_find_it(
    rows: dict[str, list[str]], trace: Trace
) -> None:
    with LocalCloud() as cloud:
        environment = trace.environment(**cloud.cdk_environment(), CDK_REQUIRE_APPROVAL="never")
        bash(BLOCKS[3][1], environment)

        stack = cloud.client("cloudformation").describe_stacks(StackName="BreastCancer")
        outputs = stack["Stacks"][0]["Outputs"]
        pipeline = deployed(cloud, {o["OutputKey"]: o["OutputValue"] for o in outputs})
        key = pipeline.drop("a.csv", ",".join(["P0002", *rows["P0002"]]).encode())
        (drop,) = pipeline.wait(key)
        assert (drop.status, drop.reason) == ("done", "")
        assert pipeline.output(key).startswith(b"P0002,0.")

        said = bash(BLOCKS[4][1], environment)
        assert key in said
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
