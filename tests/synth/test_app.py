"""The app as `cdk synth` runs it: CDK's validation on, and nothing but .venv/bin on PATH."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The app and its files, with a model and an image that need no training."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("app.py", "cdk.json", "pipelines.yaml"):
        shutil.copy(ROOT / name, folder / name)
    example = folder / "examples" / "breast_cancer"
    (example / "build" / "model").mkdir(parents=True)
    (example / "build" / "model" / "model.json").write_text("{}")
    (example / "image").mkdir()
    (example / "image" / "Dockerfile").write_text("FROM scratch\n")
    return folder


def synth(project: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["cdk", "synth", "--quiet"],
        cwd=project,
        # The home has jsii's cache of unpacked libraries, which saves seconds.
        env={"PATH": str(BIN), "HOME": str(Path.home()), "CDK_DISABLE_VERSION_CHECK": "1"},
        executable=str(BIN / "cdk"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_app_synthesizes_without_an_account_and_passes_cdk_s_rules(project: Path) -> None:
    done = synth(project)

    assert done.returncode == 0, done.stderr
    report = json.loads((project / "cdk.out" / "validation-report.json").read_text())
    assert report["pluginReports"] == []
    template = json.loads((project / "cdk.out" / "BreastCancer.template.json").read_text())
    assert set(template["Outputs"]) >= {"InputBucket", "OutputBucket", "ApiUrl"}
    assert not (project / "cdk.context.json").exists()


def test_a_mistake_in_the_file_is_one_line_without_a_traceback(project: Path) -> None:
    broken = shutil.copytree(project, project.parent / "broken")
    path = broken / "pipelines.yaml"
    path.write_text(path.read_text().replace("record_id:", "record_ids:"))

    done = synth(broken)

    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "index.record_ids: must be a member that exists" in done.stderr
