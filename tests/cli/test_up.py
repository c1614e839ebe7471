"""`batch-transform up` as a process, with an app that makes its assembly fast, without CDK."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from batch_transform_cli.cloud import Cloud
from batch_transform_cli.local.project_cloud import Place
from batch_transform_cli.local.session import Event, Ready, places_of
from batch_transform_cli.local.views import Lines
from batch_transform_cli.pipelines.client import PipelineClient
from local_cloud import Images

CHECKOUT = Path(__file__).parents[2]
COMMAND = Path(sys.executable).with_name("batch-transform")
LIMIT_S = 60
APP = f"""
import os, sys
from pathlib import Path
sys.path.insert(0, {str(CHECKOUT)!r})
from tests.local_cloud.assembly import write_assembly

def stack(name, value):
    properties = {{"Type": "String", "Name": name, "Value": value}}
    kind = "AWS::No::Such" if value == "undeployable" else "AWS::SSM::Parameter"
    return {{"Resources": {{"P": {{"Type": kind, "Properties": properties}}}}}}

values = Path("values.txt").read_text().split()
if "own" in values:
    Path("own.txt").write_bytes(os.urandom(8))
if "unspeakable" in values:
    sys.exit("values.txt:1: must be speakable\\nvalues.txt:1: must be so, too")
stacks = {{f"Stack{{n}}": stack(f"/value/{{n}}", value) for n, value in enumerate(values)}}
write_assembly(Path(os.environ["CDK_OUTDIR"]), stacks)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "cdk.json").write_text('{"app": "python3 app.py"}')
    (tmp_path / "values.txt").write_text("one two")
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Up:
    """The command that runs, and what it says."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [COMMAND, "up", "--json", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.said: list[dict[str, Any]] = []

    def until(self, kind: str) -> dict[str, Any]:
        """Read until there is such an event; return it."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(json.loads(line))
            if self.said[-1]["event"] == kind:
                return self.said[-1]
        raise AssertionError((self.said, self.process.communicate()))

    def end(self, number: signal.Signals) -> tuple[int, str]:
        """Send it a signal; return its exit code and what stands on stderr."""
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=LIMIT_S)
        return self.process.returncode, errors


@contextmanager
def up(*arguments: str) -> Iterator[Up]:
    running = Up(*arguments)
    try:
        yield running
    finally:
        running.process.kill()  # its cloud ends with it
        running.process.communicate()


def values() -> dict[str, str]:
    """Ask the cloud of the project as any command would."""
    page = Cloud().client("ssm").get_parameters_by_path(Path="/value")["Parameters"]
    return {each["Name"].rpartition("/")[2]: each["Value"] for each in page}


def buckets() -> list[str]:
    return [bucket["Name"] for bucket in Cloud().client("s3").list_buckets()["Buckets"]]


def test_a_change_is_deployed_and_what_refuses_it_leaves_what_was_deployed(project: Path) -> None:
    written = project / "values.txt"
    with up() as running:
        endpoint = running.until("ready")["endpoint"]
        assert values() == {"0": "one", "1": "two"}
        Cloud().client("s3").create_bucket(Bucket="kept")

        written.write_text("unspeakable")
        refused = running.until("refused")
        assert (
            "got: values.txt:1: must be speakable\nvalues.txt:1: must be so, too"
            in refused["reason"]
        )
        written.write_text("undeployable two")
        assert running.until("changed")["files"] == ["values.txt"]
        assert "stack Stack0 must" in running.until("refused")["reason"]
        assert "AWS::No::Such" in running.said[-1]["reason"]
        assert values() == {"0": "one", "1": "two"}

        written.write_text("1")
        assert running.until("left")["stack"] == "Stack1"
        assert values() == {"0": "1", "1": "two"}
        assert "kept" in buckets(), "it is the same cloud all the time"
        assert Cloud().endpoint == endpoint

        written.write_text("1")  # as it was
        written.with_name("app.py").touch()
        assert running.until("changed")["files"] == ["app.py"]
        running.until("deployed")
        assert running.end(signal.SIGINT) == (
            130,
            "batch-transform: stopped; nothing is left running\n",
        )
    assert Cloud().endpoint is None
    assert [path.name for path in (project / ".batch-transform").iterdir()] == [".gitignore"]


def test_it_ends_in_order_by_sigterm_and_finds_its_data_again(project: Path) -> None:
    with up("--state-dir", "state", "--no-watch") as running:
        endpoint = running.until("ready")["endpoint"]
        Cloud().client("s3").create_bucket(Bucket="kept")
        (project / "values.txt").write_text("later")
        code, errors = running.end(signal.SIGTERM)
        assert (code, errors) == (143, "batch-transform: stopped; nothing is left running\n")
    with up("--state-dir", "state") as running:
        assert running.until("ready")["endpoint"] == endpoint
        assert "changed" not in [event["event"] for event in running.said]
        assert "kept" in buckets()
        assert values()["0"] == "later"
        # Its own data is no change of the app.
        (project / "values.txt").write_text("latest")
        assert running.until("changed")["files"] == ["values.txt"]


def test_a_ctrl_c_while_the_app_is_synthesized_leaves_nothing(project: Path) -> None:
    (project / "app.py").write_text("import time; time.sleep(60)")
    with up() as running:
        running.until("synthesizing")
        assert running.end(signal.SIGINT)[0] == 130
    assert [path.name for path in (project / ".batch-transform").iterdir()] == [".gitignore"]


def test_an_app_that_writes_into_its_folder_is_not_deployed_for_ever(project: Path) -> None:
    (project / "values.txt").write_text("own")
    with up() as running:
        assert running.until("unwatched")["file"] == "own.txt"
        running.until("deployed")
        (project / "values.txt").write_text("other")
        assert running.until("changed")["files"] == ["values.txt"]


def test_an_image_folder_that_changes_is_registered_anew(project: Path) -> None:
    image = project.parent / f"{project.name}-image"
    image.mkdir()
    (image / "serve").write_text("#!/bin/sh\n")
    (image / "serve").chmod(0o755)
    with up("--image", f"public/image:1={image}", "--state-dir", "state") as running:
        running.until("ready")
        images = Images(project / "state" / "images")
        (project / "values.txt").write_text("other")
        registered = images.find("public/image:1").directory.stat().st_ino
        running.until("deployed")
        assert images.find("public/image:1").directory.stat().st_ino == registered
        (image / "serve").write_text("#!/bin/sh\nexit 1\n")
        running.until("deployed")
        assert "exit 1" in Path(images.find("public/image:1").command[0]).read_text()


def test_an_assembly_that_was_named_is_watched_instead_of_the_app(project: Path) -> None:
    out = project / "cdk.out"
    out.mkdir()

    def synthesize() -> None:
        environment = {**os.environ, "CDK_OUTDIR": str(out)}
        subprocess.run([sys.executable, "app.py"], env=environment, check=True)

    synthesize()
    with up("--assembly", "cdk.out") as running:
        running.until("ready")
        (project / "values.txt").write_text("three")
        synthesize()
        assert "cdk.out/Stack0.template.json" in running.until("changed")["files"]
        running.until("deployed")
        assert values()["0"] == "three"


def test_the_places_of_pipelines_are_those_of_their_state_machines() -> None:
    machine = "arn:aws:states:{region}:{account}:stateMachine:Churn"
    local = machine.format(region="us-east-1", account="000000000000")
    production = machine.format(region="eu-west-1", account="111122223333")
    outputs = {
        "Churn": {"StateMachineArn": local, "InputBucket": "in"},
        "Fraud": {"StateMachineArn": local},
        "Prod-Churn": {"StateMachineArn": production},
    }
    assert places_of(outputs) == [
        Place("000000000000", "us-east-1"),
        Place("111122223333", "eu-west-1"),
    ]


@pytest.mark.parametrize(
    ("places", "tries"),
    [
        pytest.param(
            [("000000000000", "us-east-1", True)],
            [
                "  batch-transform status",
                "  batch-transform drop FILE",
                "  batch-transform lookup ID",
            ],
            id="one",
        ),
        pytest.param(
            [("111122223333", "eu-west-1", False), ("111122223333", "us-east-1", True)],
            [
                "  AWS_ACCESS_KEY_ID=111122223333 AWS_REGION=eu-west-1 batch-transform status",
                "  AWS_ACCESS_KEY_ID=111122223333 AWS_REGION=eu-west-1 "
                "batch-transform drop FILE --pipeline churn-0",
            ],
            id="several",
        ),
    ],
)
def test_it_says_what_to_try(
    places: list[tuple[str, str, bool]], tries: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint = "http://127.0.0.1:4566"
    pipelines = [
        (
            Place(account, region),
            PipelineClient(
                Cloud(endpoint, place=(account, region)),
                f"churn-{number}",
                {"ledger-table": "ledger", "input-bucket": f"in-{region}", "input-prefix": "input/"}
                | ({"api-url": "https://api.example.com"} if has_api else {}),
            ),
        )
        for number, (account, region, has_api) in enumerate(places)
    ]
    Lines().begin(Ready(endpoint=endpoint, pipelines=pipelines, watch=True, state_dir=None))

    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "local cloud at http://127.0.0.1:4566"
    assert lines[1] == "changes of the app are deployed to it; Ctrl-C ends it and removes its data"
    assert lines[lines.index("try in this folder:") + 1 :] == [*tries, ""]
    where = "  in 111122223333 us-east-1" if len(places) > 1 else ""
    last = len(places) - 1
    assert f"pipeline churn-{last}  takes files in s3://in-us-east-1/input/{where}" in lines


def test_lines_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    Lines().say(Event(kind="drop", lines=["drop input/\x1b[2Ja.csv: failed"]))
    assert "drop input/·[2Ja.csv: failed" in capsys.readouterr().out
