"""Every app of examples/ synthesizes."""

import json
from pathlib import Path

import pytest

from tests.examples.programs import APPS, synthesize


@pytest.mark.parametrize("example", APPS, ids=lambda path: path.name)
def test_an_example_synthesizes_from_any_folder(
    example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assembly = synthesize(example)

    manifest = json.loads((assembly / "manifest.json").read_text())
    kinds = {artifact["type"] for artifact in manifest["artifacts"].values()}
    assert "aws:cloudformation:stack" in kinds
    assert json.loads((example / "cdk.json").read_text()) == {"app": "python3 app.py"}
