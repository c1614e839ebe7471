"""docs/commands.md names every command that there is, and no other."""

import re
from pathlib import Path
from typing import Any

from typer.main import get_command

from batch_transform_cli import main

_PAGE = Path(__file__).parents[2] / "docs" / "commands.md"


def test_the_page_has_every_command() -> None:
    command: Any = get_command(main.commands)
    table = _PAGE.read_text("utf-8").partition("| command |")[2].partition("\n\n")[0]
    assert {*re.findall(r"^\| `([a-z]+)", table, re.MULTILINE)} == {*command.commands}
