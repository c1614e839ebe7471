"""docs/api.md is what the docstrings say now."""

import batch_transform
from scripts.api_reference import PAGE, render


def test_the_page_is_written_anew_when_a_docstring_changes() -> None:
    assert PAGE.read_text() == render(), "run: python scripts/api_reference.py"


def test_the_page_has_what_the_library_exports() -> None:
    text = PAGE.read_text()
    missing = [name for name in batch_transform.__all__ if f"\n## {name}\n" not in text]
    assert missing == []
