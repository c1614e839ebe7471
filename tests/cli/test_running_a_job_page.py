"""docs/running-a-job.md, held to the command that it describes."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from typer.main import get_command

from batch_transform_cli import main
from transform_engine.spec import Readings

PAGE = (Path(__file__).parents[2] / "docs" / "running-a-job.md").read_text()
LIMIT_S = 60
_OF_OTHERS = {"--runtime", "--network"}  # options of podman


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)


def test_a_reader_who_follows_the_page_sees_what_stands_there(tmp_path: Path) -> None:
    (tmp_path / "image").mkdir()
    serve = tmp_path / "image" / "serve"
    (program,) = blocks("python")
    serve.write_text(program)
    serve.chmod(0o755)
    own = os.path.dirname(sys.executable)
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    environment["PATH"] = os.pathsep.join([own, environment["PATH"]])

    seen = []
    for block in blocks("console"):
        seen.append("")
        for line in block.splitlines():
            if line.startswith("$ "):
                ended = subprocess.run(
                    ["bash", "-c", line[2:]],
                    cwd=tmp_path,
                    env=environment,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    timeout=LIMIT_S,
                )
                seen[-1] += f"{line}\n{ended.stdout}"

    assert [timeless(block) for block in seen] == [timeless(each) for each in blocks("console")]
    assert len(seen) == 2


def timeless(text: str) -> str:
    """Return the text without what differs from run to run, and spaces at the ends of lines."""
    text = re.sub(r" in [\d.]+ s \([^)]+/s\)", " in T", text)
    return "\n".join(line.rstrip() for line in text.splitlines())


def test_every_flag_is_on_the_page_and_the_page_names_no_other() -> None:
    command: Any = get_command(main.commands)
    flags = {
        flag
        for each in command.commands["run"].params
        for flag in each.opts
        if flag.startswith("--")
    }
    named = {*re.findall(r"--[a-z][a-z0-9-]+", PAGE)} - _OF_OTHERS
    assert flags - {"--help"} == named


def test_every_reading_is_on_the_page_with_its_default() -> None:
    table = re.findall(r"^\| `(\w+)` \| `(\w+)` \|", PAGE, re.M)
    known = [(each.name, str(each.default).lower()) for each in dataclasses.fields(Readings)]
    assert table == known
