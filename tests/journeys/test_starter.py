"""A project from nothing to a prediction, as on a machine that has only Python and this package."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

from .conftest import LIMIT_S, Trace

BIN = Path(sys.executable).parent
ESCAPE = "\x1b"
DROP = ["drop", "data/customers.csv", "--wait"]
PREDICTIONS = "predictions/input/customers.csv.out"


@pytest.fixture
def fresh(trace: Trace, tmp_path: Path) -> dict[str, str]:
    """The environment: nothing on PATH but our own, no AWS settings, a home of its own."""
    # Where CDK lies unpacked; a home without it is slow once, by some seconds.
    kept = ("JSII_RUNTIME_PACKAGE_CACHE_ROOT", "CDK_VALIDATION")
    return {
        "PATH": f"{BIN}{os.pathsep}/{trace.mark}",
        "HOME": str(tmp_path),
        "TERM": "xterm-256color",
        **{name: os.environ[name] for name in kept if name in os.environ},
    }


def test_a_new_project_runs_from_init_to_lookup_on_a_terminal_and_off_one(
    fresh: dict[str, str], trace: Trace, tmp_path: Path
) -> None:
    demo = tmp_path / "demo"

    def start(folder: Path, *arguments: str) -> pexpect.spawn:
        return pexpect.spawn(
            str(BIN / "batch-transform"),
            list(arguments),
            cwd=folder,
            env=fresh,
            dimensions=(40, 100),
            encoding="utf-8",
            timeout=LIMIT_S,
        )

    def on_terminal(folder: Path, *arguments: str) -> str:
        command = start(folder, *arguments)
        command.expect(pexpect.EOF)
        command.close()
        assert command.exitstatus == 0, command.before
        return str(command.before)

    def off_terminal(*arguments: str) -> tuple[str, str]:
        ended = subprocess.run(
            [BIN / "batch-transform", *arguments],
            cwd=demo,
            env=fresh,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout, ended.stderr

    assert "next: cd demo" in on_terminal(tmp_path, "init", "demo")
    up = start(demo, "up")
    up.expect("batch-transform status")

    screen = on_terminal(demo, *DROP)
    assert "scoring" in screen
    assert ESCAPE in screen
    assert PREDICTIONS in screen
    assert on_terminal(demo, "lookup", "C-1002").splitlines()[-1] == "0.026"

    out, err = off_terminal(*DROP)
    assert ESCAPE not in out + err
    assert "1 object replaced" in out
    assert PREDICTIONS in out
    assert "drop input/customers.csv: done" in err.splitlines()
    assert off_terminal("lookup", "C-1002")[0] == "0.026\n"

    up.sendintr()
    up.expect("nothing is left running")
    up.expect(pexpect.EOF)
    assert trace.nothing_is_left(), trace.processes()


def test_its_own_tests_pass_as_they_are(fresh: dict[str, str], tmp_path: Path) -> None:
    subprocess.run([BIN / "batch-transform", "init", tmp_path / "demo"], env=fresh, check=True)

    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q"],
        cwd=tmp_path / "demo",
        env=fresh,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )

    assert ended.returncode == 0, ended.stdout
    assert re.search(r"^5 passed", ended.stdout, re.M)
