"""docs/troubleshooting.md quotes texts as they are written, here or by the service."""

import ast
import re
from pathlib import Path

import pytest

from tests.documents import PROJECT

PAGE = PROJECT / "docs" / "troubleshooting.md"
#: What the service or a model server says and nothing here does, with the source in the reference.
OF_OTHERS = {
    "is not authorized to perform: sagemaker:CreateTransformJob",  # IAM, of any call
    "ClientError: 413",  # §4, the server's own answer behind the service's word
}
#: The first column's code of the tables whose first column is a text, not a description.
QUOTES = re.findall(r"^\| `((?:[^`|]|\\\|)+)`[^|]* \|", PAGE.read_text(), re.M)


def _literals(path: Path) -> list[str]:
    """Every text of a module, with a mark where a value is put in."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
        elif isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
            found.append("".join(map(str, parts)))
    return found


@pytest.fixture(scope="module")
def texts() -> str:
    roots = (PROJECT / name for name in ("constructs", "lambdas", "src"))
    return "\n".join(
        text for root in roots for path in root.rglob("*.py") for text in _literals(path)
    )


@pytest.mark.parametrize("quote", QUOTES)
def test_a_quoted_text_is_written_somewhere(quote: str, texts: str) -> None:
    if quote not in OF_OTHERS:
        missing = [part for part in quote.split("…") if part.strip() not in texts]
        assert missing == []


def test_the_page_quotes_texts() -> None:
    assert len(QUOTES) > 20


def test_the_page_has_every_warning() -> None:
    roots = ("constructs/batch_transform", "src/transform_request")
    sources = [path.read_text() for root in roots for path in (PROJECT / root).glob("*.py")]
    given = {name for text in sources for name in re.findall(r'"(@batch-transform:\w+)"', text)}
    assert {*re.findall(r"^\| `(@batch-transform:\w+)` \|", PAGE.read_text(), re.M)} == given
