"""Completion, in a real bash on a pseudo-terminal and by what each shell asks."""

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).with_name("batch-transform")
LIMIT_S = 60
_PROMPT = "ready> "


def environment(home: Path) -> dict[str, str]:
    own = os.pathsep.join([str(PROGRAM.parent), os.environ["PATH"]])
    return {**os.environ, "PATH": own, "HOME": str(home), "TERM": "dumb", "INPUTRC": "/dev/null"}


class Bash:
    """A bash as a person has it, who presses keys."""

    def __init__(self, home: Path) -> None:
        self._near, far = pty.openpty()
        self._process = subprocess.Popen(
            ["bash", "--norc", "--noprofile", "-i"],
            stdin=far,
            stdout=far,
            stderr=far,
            cwd=home,
            env=environment(home) | {"PS1": _PROMPT},
            start_new_session=True,
        )
        os.close(far)
        self.read(until=_PROMPT)
        self.type("bind 'set enable-bracketed-paste off'\n", until=_PROMPT)
        self.type("source <(batch-transform completion bash)\n", until=_PROMPT)

    def type(self, keys: str, *, until: str) -> str:
        """Press keys, and return what the terminal shows until it shows this behind them."""
        os.write(self._near, keys.encode())
        return self.read(until=until)

    def read(self, *, until: str) -> str:
        seen, deadline = "", time.monotonic() + LIMIT_S
        while until not in seen:
            assert time.monotonic() < deadline, f"no {until!r} in {seen!r}"
            if select.select([self._near], [], [], 0.1)[0]:
                seen += os.read(self._near, 4096).decode(errors="replace")
        return seen

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._near)


@pytest.fixture
def bash(tmp_path: Path) -> Iterator[Bash]:
    (tmp_path / "made-up-prices.yaml").touch()
    started = Bash(tmp_path)
    yield started
    started.end()


def test_tab_completes_in_a_bash(bash: Bash) -> None:
    for keys, shown in (
        ("batch-transform comp\t", "batch-transform completion "),
        ("batch-transform cost est\t", "batch-transform cost estimate "),
        ("batch-transform redrive --dry\t", "batch-transform redrive --dry-run "),
        ("batch-transform run --split-type Rec\t", "--split-type RecordIO "),
        ("batch-transform cost --prices made\t", "--prices made-up-prices.yaml "),
    ):
        bash.type(keys, until=shown)
        bash.type("\x15", until="")  # Ctrl-U: the line is empty again
    listed = bash.type("batch-transform completion \t\t", until="zsh")
    assert "fish" in listed + bash.read(until="")


@pytest.fixture
def asked(tmp_path: Path) -> Callable[..., str]:
    """Asks as the shell's script does; returns the answer."""

    def ask(shell: str, *words: str) -> str:
        about = {
            "bash": {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)},
            "zsh": {"_TYPER_COMPLETE_ARGS": " ".join(words)},
            "fish": {
                "_TYPER_COMPLETE_ARGS": " ".join(words),
                "_TYPER_COMPLETE_FISH_ACTION": "get-args",
            },
        }[shell]
        done = subprocess.run(
            [PROGRAM],
            env=environment(tmp_path) | about | {"_BATCH_TRANSFORM_COMPLETE": f"complete_{shell}"},
            capture_output=True,
            text=True,
            check=True,
            timeout=LIMIT_S,
        )
        assert done.stderr == ""
        return done.stdout

    return ask


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_is_answered(shell: str, asked: Callable[..., str], tmp_path: Path) -> None:
    script = subprocess.run(
        [PROGRAM, "completion", shell], capture_output=True, text=True, check=True
    ).stdout

    assert f"_BATCH_TRANSFORM_COMPLETE=complete_{shell}" in script
    types = asked(shell, "batch-transform", "run", "--instance-type", "ml.m5.x")
    assert re.findall(r"ml\.[\w.]+", types) == ["ml.m5.xlarge"]


def test_who_completes_waits_for_nothing_that_only_a_command_needs() -> None:
    program = (
        "import sys; from batch_transform_cli import main; "
        "print([name for name in ('boto3', 'botocore', 'rich', 'yaml', 'pydantic', 'aws_cdk') "
        "if name in sys.modules])"
    )

    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert (said.stdout, said.stderr) == ("[]\n", "")
