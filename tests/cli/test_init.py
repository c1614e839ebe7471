"""The command `init`: what it writes, what it refuses; tests/journeys goes on with the project."""

import importlib.metadata
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batch_transform_cli import starter_project
from batch_transform_cli.validation import validate_files

Command = Callable[..., Any]
PROJECT = Path(__file__).parents[2]
STARTER = PROJECT / "src" / "batch_transform_cli" / "starter"


@pytest.fixture
def demo(tmp_path: Path, batch_transform: Command) -> Path:
    assert batch_transform("init", tmp_path / "demo").code == 0
    return tmp_path / "demo"


def test_the_project_has_every_file_and_says_what_comes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_transform: Command
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = batch_transform("init", "my-demo")

    folder = tmp_path / "my-demo"
    written = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    templates = {
        path.relative_to(STARTER).as_posix()
        for path in STARTER.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert written == templates - {"gitignore"} | {".gitignore", "pipelines.schema.json"}
    assert f"wrote {len(written)} files to my-demo\n" in ended.out
    assert "the pipeline MyDemo is in pipelines.yaml" in ended.out
    assert "next: cd my-demo\n" in ended.out
    assert os.access(folder / "image" / "serve", os.X_OK)


def test_its_file_of_pipelines_is_valid_and_has_its_schema_beside_it(demo: Path) -> None:
    found = validate_files([demo / "pipelines.yaml"])

    assert [*found.problems] == []
    assert [*found.valid] == [f"{demo}/pipelines.yaml: 1 pipeline"]
    first = (demo / "pipelines.yaml").read_text().splitlines()[0]
    schema = demo / first.removeprefix("# yaml-language-server: $schema=")
    assert json.loads(schema.read_text())["properties"].keys() == {"pipelines"}


def test_nothing_of_it_has_the_name_that_stands_in_the_templates(demo: Path) -> None:
    assert [
        path for path in demo.rglob("*") if path.is_file() and "Starter" in path.read_text()
    ] == []


def test_programs_are_told_what_was_written(tmp_path: Path, batch_transform: Command) -> None:
    told = batch_transform("init", tmp_path, "--name", "Churn-7", "--json").document

    assert (told["folder"], told["pipeline"]) == (str(tmp_path), "Churn-7")
    assert sorted(told["files"]) == told["files"]
    assert all((tmp_path / name).is_file() for name in told["files"])


def test_a_repository_without_files_counts_as_empty(
    tmp_path: Path, batch_transform: Command
) -> None:
    (tmp_path / ".git").mkdir()

    assert batch_transform("init", tmp_path, "--name", "Churn").code == 0


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        pytest.param(["full"], "must be new or empty, got 'full', which holds 'a.csv'", id="full"),
        pytest.param(["full/a.csv"], "must be a folder, got the file 'full/a.csv'", id="file"),
        pytest.param(["2024"], "--name must begin with a letter", id="folder without a name"),
        pytest.param(
            ["new", "--name", "a_b"], "digits and hyphens, at most 60, got 'a_b'", id="name"
        ),
    ],
)
def test_fails_when_it_would_overwrite_or_has_no_name(
    arguments: list[str],
    problem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    batch_transform: Command,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.csv").write_text("1\n")

    ended = batch_transform("init", *arguments)

    assert (ended.code, ended.out) == (2, "")
    assert problem in ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_fails_when_the_folder_cannot_be_made(tmp_path: Path, batch_transform: Command) -> None:
    (tmp_path / "file").write_text("")

    ended = batch_transform("init", tmp_path / "file" / "demo")

    assert ended.code == 1
    assert "the folder must be one that can be written, got" in ended.err


@pytest.mark.parametrize(
    "name", ["app.py", "cdk.json", "image/serve", "image/Dockerfile", "data/customers.csv"]
)
def test_what_the_project_begins_with_is_what_we_use_ourselves(name: str) -> None:
    ours = {
        "image/serve": "examples/image/serve",
        "image/Dockerfile": "examples/image/Dockerfile",
        "data/customers.csv": "examples/csv_join_lookup/drops/customers.csv",
    }
    assert (STARTER / name).read_bytes() == (PROJECT / ours.get(name, name)).read_bytes()


def test_the_project_asks_for_the_cdk_cli_that_we_use() -> None:
    (ours,) = re.findall(r'^CDK_CLI="(\S+)"', (PROJECT / "scripts" / "setup").read_text(), re.M)
    assert f"npm install --global {ours}\n" in (STARTER / "README.md").read_text()


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        pytest.param(None, "batch-transform[cli,local]==0.1.0", id="index"),
        pytest.param(
            {"url": "file:///home/ann/batch-transform", "dir_info": {"editable": True}},
            "batch-transform[cli,local] @ file:///home/ann/batch-transform",
            id="checkout",
        ),
        pytest.param(
            {"url": "https://example.com/bt.git", "vcs_info": {"vcs": "git", "commit_id": "1f7a"}},
            "batch-transform[cli,local] @ git+https://example.com/bt.git@1f7a",
            id="repository",
        ),
    ],
)
def test_the_project_requires_the_package_from_where_it_came(
    origin: dict[str, Any] | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "batch_transform-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: batch-transform\nVersion: 0.1.0\n")
    if origin is not None:
        (info / "direct_url.json").write_text(json.dumps(origin))
    found = importlib.metadata.PathDistribution(info)
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: found)

    assert starter_project.requirement() == expected
