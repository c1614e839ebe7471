import json
import subprocess
import sys
from pathlib import Path

import pytest

from batch_transform_cli import entry
from scripts.schemas import rendered

PIPELINES = """\
pipelines:
  Churn:
    model: {name: churn-v1}
    instance_type: ml.m5.large
"""
ACCOUNTS = """\
accounts:
  Prod: {account: "111122223333", region: eu-west-1}
"""


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command as its entry point does; returns the exit code."""
    monkeypatch.setattr("sys.argv", ["batch-transform", *arguments])
    with pytest.raises(SystemExit) as ended:
        entry.app()
    return int(ended.value.code or 0)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a file of pipelines, in which the command runs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pipelines.yaml").write_text(PIPELINES)
    return tmp_path


def test_the_files_of_the_folder_are_checked(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "validate") == 0
    assert capsys.readouterr().out == "pipelines.yaml: 1 pipeline\n"

    (project / "accounts.yaml").write_text(ACCOUNTS)
    assert run(monkeypatch, "validate") == 0
    assert capsys.readouterr().out == "pipelines.yaml: 1 pipeline in 1 account: Prod\n"


def test_every_problem_is_a_line_on_stderr(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "wrong.yaml").write_text(PIPELINES.replace("model:", "modl:") + "    index:\n")

    assert run(monkeypatch, "validate", "wrong.yaml", "pipelines.yaml") == 1

    said = capsys.readouterr()
    assert said.out == "pipelines.yaml: 1 pipeline\n"
    assert said.err.splitlines() == [
        "wrong.yaml:3: pipelines.Churn.modl: must be a member that exists, got 'modl'; write model",
        "wrong.yaml:5: pipelines.Churn.index: must have members, got None; leave it out, or write "
        "them indented below it",
    ]


def test_problems_are_json_for_programs(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "validate", "--json") == 0
    assert json.loads(capsys.readouterr().out) == []

    assert run(monkeypatch, "validate", "--json", "nowhere.yaml") == 1
    assert json.loads(capsys.readouterr().out) == [
        {
            "file": "nowhere.yaml",
            "line": 1,
            "place": [],
            "sentence": "must be a file that can be read, got No such file or directory; correct "
            "the path, or create it",
        }
    ]


def test_accounts_may_be_named_and_are_checked_alone(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "ours.yaml").write_text(ACCOUNTS)
    assert run(monkeypatch, "validate", "ours.yaml") == 0
    assert capsys.readouterr().out == "ours.yaml: 1 account\n"

    (project / "pipelines.yaml").write_text(PIPELINES + "    accounts: [Pord]\n")
    assert run(monkeypatch, "validate", "ours.yaml", "pipelines.yaml") == 1
    assert capsys.readouterr().err == (
        "pipelines.yaml:5: pipelines.Churn.accounts.0: must be one of Prod, got 'Pord'; "
        "write Prod\n"
    )


def test_fails_when_there_are_two_files_of_accounts(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.yaml", "b.yaml"):
        (project / name).write_text(ACCOUNTS)
    assert run(monkeypatch, "validate", "a.yaml", "b.yaml") == 1
    assert "one file must have all accounts, got a.yaml and b.yaml" in capsys.readouterr().err


def test_no_node_is_started(project: Path) -> None:
    program = (
        "import sys; from batch_transform_cli import entry; sys.argv = ['batch-transform', "
        "'validate']\ntry:\n    entry.app()\nfinally:\n    print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=project, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("pipelines.yaml: 1 pipeline")
    assert {"jsii", "aws_cdk", "boto3"} & {*done.stdout.split()} == set()


@pytest.mark.parametrize("of", ["pipelines", "accounts"])
def test_the_schema_is_that_of_the_documents(
    of: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "schema", *(["--accounts"] if of == "accounts" else [])) == 0
    (text,) = (text for path, text in rendered().items() if path.name.startswith(of))
    assert capsys.readouterr().out == text


DOUBTFUL = PIPELINES + "    instance_count: 4\n    batch: {max_objects: 2}\n"
WARNING = "@batch-transform:moreInstancesThanObjects"


def test_what_jobs_may_be_regretted_for_is_a_warning(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "pipelines.yaml").write_text(DOUBTFUL)

    assert run(monkeypatch, "validate") == 0
    said = capsys.readouterr()
    assert said.out == "pipelines.yaml: 1 pipeline\n"
    assert said.err.startswith(
        "pipelines.yaml:2: pipelines.Churn: InstanceCount should be at most the objects of a job, "
        "2, got 4; "
    )
    assert said.err.endswith(f"(warning {WARNING})\n")

    assert run(monkeypatch, "validate", "--strict") == 1
    capsys.readouterr()
    assert run(monkeypatch, "validate", "--json") == 0
    (warning,) = json.loads(capsys.readouterr().out)
    assert (warning["warning"], warning["line"]) == (WARNING, 2)


def test_a_warning_that_is_acknowledged_is_none(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    acknowledged = f'    acknowledge: {{"{WARNING}": spares are wanted}}\n'
    (project / "pipelines.yaml").write_text(DOUBTFUL + acknowledged)

    assert run(monkeypatch, "validate", "--strict") == 0
    assert capsys.readouterr().err == ""
