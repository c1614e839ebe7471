import json
import re
import subprocess
import time
from pathlib import Path

import pytest

from batch_transform_cli.errors import SynthesisFailed
from batch_transform_cli.synthesis import synthesize


def project(folder: Path, program: str) -> Path:
    (folder / "app.py").write_text(program)
    settings = {"app": "python3 app.py", "context": {"flag": True}}
    (folder / "cdk.json").write_text(json.dumps(settings))
    return folder


def test_the_app_gets_its_output_folder_and_context_as_from_the_cdk_cli(tmp_path: Path) -> None:
    program = (
        "import os, pathlib, sys\n"
        "out = pathlib.Path(os.environ['CDK_OUTDIR'])\n"
        "out.joinpath('said').write_text(os.environ['CDK_CONTEXT_JSON'] + sys.prefix)\n"
    )
    assembly = tmp_path / "out"
    assembly.mkdir()

    synthesize(project(tmp_path, program), assembly)

    said = (assembly / "said").read_text()
    assert said.startswith('{"flag": true}')
    assert said.endswith(".venv"), "the app must run in our own environment"


@pytest.mark.parametrize(
    ("refuses", "said"),
    [
        pytest.param(
            "sys.exit('a:3: must be so\\na:5: must be, too')",
            "a:3: must be so\na:5: must be, too",
            id="in its words",
        ),
        pytest.param(
            "raise ValueError('must be so')",
            "ValueError: must be so at {app}:2",
            id="by an error",
        ),
        pytest.param(
            "import json; json.loads('')",
            "json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0) at {app}:2",
            id="by an error of what it calls",
        ),
    ],
)
def test_fails_when_the_app_refuses_with_what_it_says(
    refuses: str, said: str, tmp_path: Path
) -> None:
    said = re.escape(said.replace("{app}", str(tmp_path / "app.py")))
    with pytest.raises(SynthesisFailed, match=rf"got: {said} \(exit code 1\); mend it"):
        synthesize(project(tmp_path, f"import sys\n{refuses}\n"), tmp_path)


@pytest.mark.parametrize("content", [None, "{", "[]", "{}"])
def test_fails_when_there_is_no_app(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "cdk.json").write_text(content)
    with pytest.raises(SynthesisFailed, match=r"cdk\.json must stand in .* and name the app"):
        synthesize(tmp_path, tmp_path)


def runs(pid: int) -> bool:
    """Whether the process is there, and is no zombie that waits for its parent."""
    said = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return bool(said.stdout.strip()) and not said.stdout.startswith("Z")


def test_fails_when_the_app_never_ends_and_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        "import pathlib, subprocess\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(child.pid))\n"
        "child.wait()\n"
    )
    monkeypatch.setattr("batch_transform_cli.synthesis._LIMIT_S", 2)

    with pytest.raises(SynthesisFailed, match="must synthesize within 2 s, got no end; "):
        synthesize(project(tmp_path, program), tmp_path)

    child = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 5
    while runs(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not runs(child)
