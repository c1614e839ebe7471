"""The code blocks of README.md, docs/ and examples/, for the tests that run them."""

import re
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
PAGES = [
    PROJECT / "README.md",
    PROJECT / "examples" / "README.md",
    *sorted((PROJECT / "docs").rglob("*.md")),
]

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    :param named: the last `code` before the block, which names the file of a program.
    """

    page: Path
    line: int
    language: str
    text: str
    named: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(PROJECT)}:{self.line}"


def blocks_of(page: Path, *languages: str) -> list[Block]:
    """Return the page's blocks in these languages, or all, in the order in which they stand."""
    text = page.read_text()
    found = []
    for match in _FENCE.finditer(text):
        names = re.findall(r"`([^`\n]+)`", _FENCE.sub("", text[: match.start()]))
        found.append(
            Block(
                page=page,
                line=text.count("\n", 0, match.start()) + 1,
                language=match[2],
                text=re.sub(rf"^{match[1]}", "", match[3], flags=re.M),
                named=names[-1] if names else "",
            )
        )
    assert text.count("```") == 2 * len(found), f"{page} has a fence that is not closed"
    return [block for block in found if not languages or block.language in languages]


def blocks(*languages: str) -> list[Block]:
    """Return the blocks of all pages in these languages, or all."""
    return [block for page in PAGES for block in blocks_of(page, *languages)]
