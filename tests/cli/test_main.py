import json
from pathlib import Path
from typing import Any

import pytest

from batch_transform_cli import entry
from batch_transform_cli.commands import up


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command as its entry point does; returns the exit code."""
    monkeypatch.setattr("sys.argv", ["batch-transform", *arguments])
    with pytest.raises(SystemExit) as ended:
        entry.app()
    code = ended.value.code
    assert isinstance(code, int)
    return code


def one_error_line(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line that stands on stderr."""
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_status_prints_drops_and_runs_as_json_for_programs(
    settled_run: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "status", "--json") == 0

    printed = json.loads(capsys.readouterr().out)
    assert printed["pipeline"] == "churn-1"
    assert printed["load"].pop("oldest_waiting_s") > 0
    assert printed["load"] == {"waiting": 1, "slots": 2, "slots_free": 2, "running_jobs": 0}
    assert len(printed["drops"]) == 3
    assert printed["runs"][0]["run_id"] == settled_run


def test_status_prints_tables_for_people(
    settled_run: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert run(monkeypatch, "status") == 0

    printed = capsys.readouterr().out
    assert "pipeline churn-1" in printed
    assert "2 of 2" in printed
    assert "ClientError: 400: row 7 is bad" in printed
    assert "PartiallyCompleted" in printed


def test_fails_when_no_cloud_answers_at_the_endpoint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "status", "--endpoint", "http://127.0.0.1:9") == 1
    assert one_error_line(capsys) == (
        "batch-transform: a cloud must answer at http://127.0.0.1:9/, got no connection; "
        "is it running?"
    )


@pytest.mark.parametrize("endpoint", ["4566", "http://127.0.0.1:99999"])
def test_fails_when_the_endpoint_is_no_url(
    endpoint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "lookup", "P1", "--endpoint", endpoint) == 2
    assert (
        f"must be a URL such as http://127.0.0.1:4566, or aws, got {endpoint!r}"
        in one_error_line(capsys)
    )


def test_fails_when_several_pipelines_are_there_and_none_is_named(
    publish: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    publish("churn-1")
    publish("fraud-2")
    assert run(monkeypatch, "redrive") == 2
    assert "--pipeline must name one of churn-1, fraud-2" in one_error_line(capsys)


def test_fails_when_up_finds_no_app(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "up") == 1
    assert "cdk.json must stand in" in one_error_line(capsys)


def test_an_image_is_named_with_the_folder_that_stands_for_it() -> None:
    uri = "111122223333.dkr.ecr.eu-west-1.amazonaws.com/churn:7"
    assert up.image_folder(f"{uri}=images/a=b") == (uri, Path("images/a=b"))


@pytest.mark.parametrize("text", ["churn:7", "churn:7=", "=folder"])
def test_fails_when_an_image_has_no_folder(
    text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "up", "--image", text) == 2
    assert "name the model's image and the folder" in one_error_line(capsys)
