"""README.md and docs/, as they stand there: what can run here runs, the rest is checked.

`console` blocks are run in tests/cli, and the README's `bash` blocks in tests/journeys, too.
"""

import json
import re
import shlex
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import botocore.session
import jsonschema
import pytest
import yaml
from aws_cdk import App
from botocore.validate import ParamValidator
from typer.main import get_command

from batch_transform import define_pipelines
from batch_transform.accounts_file import AccountsFile
from batch_transform.pipelines_file import schema
from batch_transform.state_machine import run_definition
from batch_transform_cli import main
from tests.aws_commands import check_aws
from tests.documents import PAGES, PROJECT, Block, blocks, blocks_of

#: What a page may have, and which test here or elsewhere runs it.
LANGUAGES = {"python", "bash", "console", "yaml", "json", "text"}

#: Arguments of CDK's that the pages name.
OF_CDK = {"id", "permissions_boundary", "reason", "template_file"}

#: What the lookup answers for one id, and in place of an answer.
LOOKUP = {"id", "prediction", "dropped_at", "source_key", "run_id"}
PROBLEM = {"type", "title", "status", "detail"}


@pytest.fixture
def place(model_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder a reader works in, with a model and an image where the pages have them."""
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "model").symlink_to(model_files / "model")
    (tmp_path / "image").symlink_to(model_files / "image")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_block_is_of_a_kind_that_is_run() -> None:
    assert [str(block) for block in blocks() if block.language not in LANGUAGES] == []


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if blocks_of(page, "python")],
    ids=lambda page: str(page.relative_to(PROJECT)),
)
def test_the_python_of_a_page_runs_and_its_apps_synthesize(page: Path, place: Path) -> None:
    """The blocks of one page go on from each other; a block that begins with `#!` is a program."""
    found = [block for block in blocks_of(page, "python") if not block.text.startswith("#!")]
    names: dict[str, Any] = {"__name__": "page"}

    for block in found:
        # The name and the empty lines make a traceback point into the page.
        exec(compile("\n" * block.line + block.text, str(page), "exec"), names)

    apps = [value for value in names.values() if isinstance(value, App)]
    if any("aws_cdk" in block.text for block in found):
        assert apps, f"{page} defines no App, so that nothing shows whether its constructs work"
    for app in apps:
        assert app.synth().stacks_recursively


def test_the_readme_s_example_is_twelve_lines_or_less() -> None:
    (block,) = blocks_of(PROJECT / "README.md", "python")
    assert len([line for line in block.text.splitlines() if line]) <= 12


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if blocks_of(page, "yaml")],
    ids=lambda page: str(page.relative_to(PROJECT)),
)
def test_the_files_of_a_page_deploy_each_pipeline_in_its_accounts(page: Path, place: Path) -> None:
    found = [(block.text, yaml.safe_load(block.text)) for block in blocks_of(page, "yaml")]
    schemas = {("pipelines",): schema(), ("accounts",): schema(AccountsFile)}
    for _, members in found:
        jsonschema.validate(members, schemas[tuple(members)])
    accounts: dict[str, Any] = {}
    for text, members in found:
        if "accounts" in members:
            accounts = members["accounts"]
            (place / "accounts.yaml").write_text(text)

    for text, members in found:
        if "pipelines" in members:
            (place / "pipelines.yaml").write_text(text)
            app = App(analytics_reporting=False)
            define_pipelines(app, place / "pipelines.yaml")
            assert {stack.stack_name for stack in app.synth().stacks_recursively} == {
                f"{stage}-{name}" if stage else name
                for name, pipeline in members["pipelines"].items()
                for stage in pipeline.get("accounts", accounts or [""])
            }


def test_the_file_of_pipelines_shows_most_members() -> None:
    """All are parameters, which the API reference has; these are not left to be found there."""
    text = (PROJECT / "docs" / "pipelines-file.md").read_text()
    units = r"_(s|minutes|hours|days|bytes|kib|mib|gib)$"

    members = {re.sub(units, "", name) for name in schema()["$defs"]["Pipeline"]["properties"]}
    unshown = {"max_attempts", "output_prefix", "run_timeout", "pipeline_id"}
    assert {name for name in members if name not in text} == unshown


@pytest.mark.parametrize("block", blocks("json"), ids=str)
def test_json_is_of_a_kind_that_there_is(block: Block) -> None:
    value = json.loads(block.text)

    if isinstance(value, list):  # a manifest
        assert set(value[0]) == {"prefix"}
        assert all(isinstance(key, str) for key in value[1:])
    elif "Statement" in value:  # a policy; other tests hold it against what is rendered or called
        assert all({"Effect", "Resource", "Action"} <= set(each) for each in value["Statement"])
    elif "detail-type" in value:
        definition = run_definition(
            pipeline_id="churn", steps=[], settle_function_arn="settle", index_function_arn="index"
        )
        (entry,) = definition["States"]["Announce"]["Arguments"]["Entries"]
        assert value["source"] == entry["Source"]
        assert value["detail-type"] == f"Batch Transform Run {value['detail']['outcome']}"
        assert value["detail"].keys() == entry["Detail"].keys()
    elif "ChannelName" in value:
        service = botocore.session.get_session().get_service_model("sagemaker")
        report = ParamValidator().validate(value, service.shape_for("Channel"))
        assert report.generate_report() == ""
    else:  # what the API answers; tests/examples asks it
        assert value.keys() in (LOOKUP, {"predictions", "missing"}, PROBLEM)
        assert all(found.keys() == LOOKUP for found in value.get("predictions", []))


@pytest.mark.parametrize("block", blocks("bash"), ids=str)
def test_commands_are_ones_that_there_are(block: Block) -> None:
    subprocess.run(["bash", "-nc", block.text], check=True)

    for words in commands(block.text):
        program, *arguments = words
        assert program in PROGRAMS, f"{program} is a command that no test checks"
        PROGRAMS[program](arguments)


def commands(script: str) -> Iterator[list[str]]:
    """The simple commands of a script of plain lines, without variables set for one command."""
    script = re.sub(r"<[\w .]+>", "PLACEHOLDER", script.replace("\\\n", " "))
    # What a shell reads of a command is a command, too.
    script = re.sub(r"source <\((.+?)\)", r"\1", script).replace(" | source", "")
    assert "<<" not in script, "write a file's content as a block of its own"
    for line in script.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        for is_operator, words in groupby(lexer, key=lambda word: word in ("&&", "|", ";", "||")):
            command = [*words]
            while not is_operator and command and re.match(r"\w+=", command[0]):
                del command[0]
            if command and not is_operator:
                yield command


def _batch_transform(arguments: list[str]) -> None:
    """Parse as the command does, without running it."""
    command: Any = get_command(main.commands)
    context = command.make_context("batch-transform", [], resilient_parsing=True)
    while hasattr(command, "commands"):
        name, command, arguments = command.resolve_command(context, arguments)
        if hasattr(command, "commands"):
            context = command.make_context(name, [], parent=context, resilient_parsing=True)
    command.make_context(command.name, arguments, parent=context)


def _cdk(arguments: list[str]) -> None:
    # A deployment needs an account; tests/journeys runs the README's against a local cloud.
    assert arguments[0] in ("bootstrap", "synth", "diff", "deploy", "destroy")


def _pip(arguments: list[str]) -> None:
    # What it would install comes from a registry; the extras are ours.
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert arguments[0] == "install"
    for requirement in arguments[1:]:
        name, _, extras = requirement.rstrip("]").partition("[")
        assert name == project["name"]
        assert {*extras.split(",")} - {""} <= {*project["optional-dependencies"]}


def _apt_get(arguments: list[str]) -> None:
    assert arguments[0] == "install"  # It wants root, and a registry.


def _file(arguments: list[str]) -> None:
    assert (PROJECT / arguments[0]).exists()


def _python(arguments: list[str]) -> None:
    if arguments[0] == "-m":
        assert (PROJECT / arguments[1].replace(".", "/") / "__main__.py").exists()
    else:
        _file(arguments)


def _script(name: str) -> Callable[[list[str]], None]:
    return lambda arguments: _file([name])


PROGRAMS: dict[str, Callable[[list[str]], None]] = {
    "batch-transform": _batch_transform,
    "aws": check_aws,
    "cdk": _cdk,
    "pip": _pip,
    "apt-get": _apt_get,
    "python": _python,
    ".": _file,
    **{
        name: _script(name)
        for name in (f"scripts/{path.name}" for path in (PROJECT / "scripts").iterdir())
    },
}


def test_no_command_stands_where_no_test_looks() -> None:
    """Indented lines show data; a command in them would be neither run nor checked."""
    for page in PAGES:
        indented = re.findall(r"^    (\S+)", page.read_text(), re.M)
        assert [word for word in indented if word in PROGRAMS and len(word) > 1] == [], page


def test_the_index_has_every_page() -> None:
    index = (PROJECT / "docs" / "README.md").read_text()
    pages = [page.name for page in (PROJECT / "docs").glob("*.md") if page.name != "README.md"]
    assert [name for name in pages if f"]({name})" not in index] == []


def test_the_index_of_examples_has_each() -> None:
    index = (PROJECT / "examples" / "README.md").read_text()
    folders = [path.parent.name for path in (PROJECT / "examples").glob("*/*.py")]
    assert [name for name in folders if f"| [{name}](" not in index] == []


def test_every_argument_that_a_page_names_is_one_of_the_library() -> None:
    known = {*re.findall(r"^\| `(\w+)` \|", (PROJECT / "docs" / "api.md").read_text(), re.M)}
    for page in PAGES:
        if page.name == "api.md":
            continue  # It is written from the library.
        codes = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", page.read_text(), flags=re.S))
        named = {name for code in codes for name in re.findall(r"(?<![\w-])([a-z]\w*)=", code)}
        assert named - known - OF_CDK == set(), page


def test_every_link_of_the_documents_leads_somewhere() -> None:
    for page in PAGES:
        links = re.findall(r"\]\(([^)#:]+)[^):]*\)", page.read_text())
        assert [link for link in links if not (page.parent / link).exists()] == [], page


def test_every_file_that_the_documents_name_is_there() -> None:
    roots = ("benchmarks", "constructs", "lambdas", "src", "examples", "tests")
    files = [path.as_posix() for root in roots for path in (PROJECT / root).rglob("*.*")]
    own = ("app.py", "pipelines.yaml", "accounts.yaml")  # the last is a reader's to write
    files += [str(PROJECT / name) for name in own]
    for page in PAGES:
        named = re.findall(r"`([\w/-]+\.(?:py|yaml))`", page.read_text())
        missing = [name for name in named if not any(path.endswith(f"/{name}") for path in files)]
        assert missing == [], page
