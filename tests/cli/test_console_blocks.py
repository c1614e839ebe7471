"""The pages' `console` blocks: a reader who types them sees what stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents import PAGES, PROJECT, blocks_of

LIMIT_S = 60


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if blocks_of(page, "console")],
    ids=lambda page: str(page.relative_to(PROJECT)),
)
def test_a_reader_who_follows_the_page_sees_what_stands_there(page: Path, tmp_path: Path) -> None:
    for block in blocks_of(page, "python"):
        if block.text.startswith("#!"):
            program = tmp_path / block.named
            program.parent.mkdir(parents=True, exist_ok=True)
            program.write_text(block.text)
            program.chmod(0o755)
    own = os.path.dirname(sys.executable)
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    environment["PATH"] = os.pathsep.join([own, environment["PATH"]])

    for block in blocks_of(page, "console"):
        seen = ""
        for line in block.text.splitlines():
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
                seen += f"{line}\n{ended.stdout}"
        assert timeless(seen) == timeless(block.text), block


def timeless(text: str) -> str:
    """Return the text without what differs from run to run, and spaces at the ends of lines."""
    text = re.sub(r" in [\d.]+ s \([^)]+/s\)", " in T", text)
    return "\n".join(line.rstrip() for line in text.splitlines())
