"""The command, in moto and in a local cloud."""

import io
import json
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from batch_transform_cli.doctor.examination import Group, Report
from batch_transform_cli.doctor.findings import fail, ok, skipped, warn
from batch_transform_cli.doctor.view import folded, show
from local_cloud import LocalCloud
from tests.cli.conftest import Ended

RULE = {
    "Type": "AWS::Events::Rule",
    "Properties": {
        "EventPattern": {"source": ["aws.s3"], "detail": {"bucket": {"name": ["arrivals"]}}}
    },
}


@pytest.fixture
def assembly(tmp_path: Path) -> Path:
    """An app that waits for the uploads of a bucket that is there already."""
    folder = tmp_path / "cdk.out"
    folder.mkdir()
    stack = {
        "type": "aws:cloudformation:stack",
        "environment": "aws://unknown-account/unknown-region",
        "properties": {"templateFile": "Churn.json"},
    }
    (folder / "manifest.json").write_text(json.dumps({"artifacts": {"Churn": stack}}))
    (folder / "Churn.json").write_text(json.dumps({"Resources": {"Uploads": RULE}}))
    return folder


def test_a_failure_ends_with_1_and_tells_the_fix(
    aws: None, batch_transform: Callable[..., Any], assembly: Path
) -> None:
    ended = batch_transform("doctor", "--assembly", assembly)

    assert ended.code == 1
    assert "  ✘  bucket  arrivals of Churn is not there\n" in ended.out
    assert "fix: mend the name, or\n" in ended.out
    assert " aws s3 mb s3://arrivals --region us-east-1\n" in ended.out
    assert "1 failure, 1 warning, " in ended.out


def test_json_has_every_finding(
    aws: None, batch_transform: Callable[..., Any], assembly: Path
) -> None:
    found = batch_transform("doctor", "--assembly", assembly, "--json").document

    here, place = found["groups"]
    assert (here["account"], place["account"]) == (None, "123456789012")
    assert found["counts"]["fail"] == 1
    assert {"level", "topic", "found", "fix"} == place["findings"][0].keys()


@pytest.fixture
def no_app(aws: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_without_an_app_it_looks_at_the_account(
    no_app: None, batch_transform: Callable[..., Any]
) -> None:
    ended = batch_transform("doctor")

    assert "no cdk.json is in this folder" in ended.out
    assert "cdk bootstrap aws://123456789012/us-east-1" in ended.out
    assert ended.code == 1


def test_an_app_that_does_not_synthesize_is_a_failure(
    no_app: None, batch_transform: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "cdk.json").write_text(json.dumps({"app": "echo broken >&2; exit 3"}))
    ended = batch_transform("doctor")

    assert "✘  app          the app must synthesize, got: broken (exit code 3)" in ended.out
    assert ended.code == 1


def test_a_folder_that_is_no_assembly_is_told_in_one_line(
    batch_transform: Callable[..., Any], tmp_path: Path
) -> None:
    ended = batch_transform("doctor", "--assembly", tmp_path)

    assert ended.code == 1
    assert ended.err.startswith("batch-transform: the assembly must be what `cdk synth` writes")
    assert ended.err.count("\n") == 1


def test_a_profile_that_is_none_is_a_failure(
    aws: None,
    batch_transform: Callable[..., Any],
    assembly: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    ended = batch_transform("doctor", "--assembly", assembly)

    assert ended.code == 1
    assert "✘  credentials  The config profile (nobody) could not be found" in ended.out


@pytest.mark.parametrize(
    ("strict", "code"), [pytest.param([], 0, id="not"), pytest.param(["--strict"], 1, id="strict")]
)
def test_warnings_fail_when_that_is_asked_for(
    emulator: LocalCloud,
    batch_transform: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    assembly: Path,
    strict: list[str],
    code: int,
) -> None:
    s3 = emulator.client("s3")
    s3.create_bucket(Bucket="arrivals")
    s3.put_bucket_notification_configuration(
        Bucket="arrivals", NotificationConfiguration={"EventBridgeConfiguration": {}}
    )
    # An app of another region than the one that is set.
    manifest = assembly / "manifest.json"
    place = "aws://unknown-account/us-east-1"
    manifest.write_text(manifest.read_text().replace("aws://unknown-account/unknown-region", place))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    ended = batch_transform(
        "doctor", "--assembly", assembly, "--endpoint", emulator.endpoint, *strict
    )

    assert "0 failures, 1 warning, " in ended.out
    assert "✔  bucket  arrivals sends its events to EventBridge" in ended.out
    assert "-  budget  a local cloud costs nothing" in ended.out
    assert ended.code == code


def test_parameters_are_held_against_what_is_deployed(
    emulator: LocalCloud,
    batch_transform: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    assembly: Path,
) -> None:
    name = "/batch-transform/churn/intake-queue-url"
    fact = {"Name": name, "Type": "String", "Value": {"Ref": "Queue"}}
    resources = {
        "Queue": {"Type": "AWS::SQS::Queue"},
        "Fact": {"Type": "AWS::SSM::Parameter", "Properties": fact},
    }
    (assembly / "Churn.json").write_text(json.dumps({"Resources": resources}))
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_REGION"):
        monkeypatch.delenv(variable, raising=False)

    def doctor() -> Ended:
        ended: Ended = batch_transform(
            "doctor", "--assembly", assembly, "--endpoint", emulator.endpoint
        )
        return ended

    assert "Churn is not deployed yet" in doctor().out
    emulator.deploy(assembly)
    deployed = doctor()
    assert "✔  parameter  1 parameter of Churn as deployed" in deployed.out
    assert "Churn is CREATE_COMPLETE" in deployed.out
    assert deployed.code == 0

    emulator.client("ssm").put_parameter(Name=name, Value="elsewhere", Overwrite=True)
    changed = doctor()
    assert f"✘  parameter  {name} is elsewhere, and http" in changed.out
    assert changed.code == 1


def test_ctrl_c_ends_it_though_nobody_answers(assembly: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        command = ["batch-transform", "doctor", "--assembly", str(assembly), "--endpoint", endpoint]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as doctor:
            connection, _ = server.accept()
            with connection:
                connection.recv(1)  # It has asked, and waits.
                doctor.send_signal(signal.SIGINT)
                _, said = doctor.communicate(timeout=10)

    assert said == "batch-transform: stopped; nothing was changed\n"
    assert doctor.returncode == 130


REPORT = Report(
    groups=[
        Group(
            title="this machine",
            place=None,
            findings=[
                ok("machine", "Python 3.11.7"),
                warn("quota", "few\x1b[31m", "ask\nfor more"),
                fail("key", "a " * 39 + "a", "mend"),
                skipped("budget", "a local cloud costs nothing"),
            ],
        )
    ]
)


@pytest.mark.parametrize(
    ("encoding", "marks"), [("utf-8", ["✔", "!", "✘", "-"]), ("ascii", ["ok", "! ", "X ", "- "])]
)
def test_each_level_has_its_mark(encoding: str, marks: list[str]) -> None:
    lines = _shown(encoding, is_terminal=False, width=60)

    assert lines == [
        "this machine",
        f"  {marks[0]}  machine  Python 3.11.7",
        f"  {marks[1]}  quota    few{'·' if encoding == 'utf-8' else '?'}[31m",
        f"{' ' * (len(marks[1]) + 13)}fix: ask",
        f"{' ' * (len(marks[1]) + 13)}     for more",
        f"  {marks[2]}  key      {'a ' * 39}a",
        f"{' ' * (len(marks[2]) + 13)}fix: mend",
        f"  {marks[3]}  budget   a local cloud costs nothing",
        "",
        "1 failure, 1 warning, 1 good, 1 not looked at",
    ]


def test_a_terminal_has_what_is_long_in_several_lines() -> None:
    lines = _shown("utf-8", is_terminal=True, width=60)
    assert max(map(len, lines)) <= 60
    assert [line for line in lines if line.startswith(" " * 14 + "a ")]


def test_what_is_good_many_times_over_is_summed_up() -> None:
    stacks = [ok("stack", f"S{number} is not deployed yet") for number in range(1_050)]
    findings = [*stacks, fail("stack", "S1050 is DELETE_FAILED", "see why"), ok("key", "k")]

    found = [*folded(findings)]

    assert found == [
        *stacks[:6],
        *findings[1_050:1_051],
        ok("stack", "and 1,044 more"),
        ok("key", "k"),
    ]


def _shown(encoding: str, *, is_terminal: bool, width: int) -> list[str]:
    written = io.BytesIO()
    file = io.TextIOWrapper(written, encoding=encoding, errors="strict")
    console = Console(file=file, force_terminal=is_terminal, width=width, color_system=None)
    show(REPORT, console)
    file.flush()
    return written.getvalue().decode(encoding).splitlines()
