"""docs/running-a-job.md, held to the command that it describes."""

import dataclasses
import re
from typing import Any

from typer.main import get_command

from batch_transform_cli import main
from tests.documents import PROJECT
from transform_engine.spec import Readings

PAGE = (PROJECT / "docs" / "running-a-job.md").read_text()
_OF_OTHERS = {"--runtime", "--network"}  # options of podman


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
