"""The commands of a project find the local cloud that `up` runs there, and no other."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batch_transform_cli.cloud import Cloud
from batch_transform_cli.errors import CommandError
from batch_transform_cli.local.project_cloud import Place, claimed, running_cloud
from local_cloud import LocalCloud

from .conftest import Ended

ENDPOINT = "http://127.0.0.1:4566"
_HOLDS = """
import sys
from pathlib import Path
from batch_transform_cli.local.project_cloud import claimed
with claimed(Path.cwd()) as claim:
    if len(sys.argv) > 1:
        claim.announce(sys.argv[1])
    print("claimed", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def project(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAREALONE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def other_process(project: Path) -> Iterator[Any]:
    """Makes a process that holds the project."""
    made = []

    def hold(*endpoint: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", _HOLDS, *endpoint],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        made.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "claimed\n"
        return process

    yield hold
    for process in made:
        process.kill()
        process.communicate()


def test_commands_in_the_project_and_below_use_its_cloud_and_say_so(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    below = project / "models" / "churn"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    with claimed(project) as claim:
        claim.announce(ENDPOINT)
        cloud = Cloud()

    assert (cloud.endpoint, cloud.is_of_project) == (ENDPOINT, True)
    credentials = cloud.session.get_credentials()
    assert (credentials.access_key, credentials.secret_key) == ("000000000000", "local")
    said = capsys.readouterr()
    assert said.err == f"local cloud at {ENDPOINT}, of `batch-transform up` in {project}\n"
    assert said.out == ""
    assert Cloud().endpoint is None, "it has ended"


def test_what_was_asked_for_wins(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with claimed(project) as claim:
        claim.announce(ENDPOINT)
        assert Cloud("http://127.0.0.1:1").endpoint == "http://127.0.0.1:1"
        assert Cloud("aws").endpoint is None
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:2")
        assert Cloud().endpoint == "http://127.0.0.1:2"
        assert Cloud("aws").client("s3").meta.endpoint_url == "https://s3.eu-west-1.amazonaws.com"
    assert capsys.readouterr().err == ""


def test_its_pipelines_are_found_whatever_region_the_environment_names_for_aws(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with claimed(project) as claim:
        claim.announce(ENDPOINT, [Place("000000000000", "us-east-1")])
        assert Cloud().session.region_name == "us-east-1"
    assert "AWS_REGION" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("account", "region", "place"),
    [
        ("AKIAREALONE", "eu-west-1", ("111122223333", "eu-west-1")),
        ("AKIAREALONE", "ap-south-1", ("000000000000", "us-east-1")),
        ("111122223333", "ap-south-1", ("111122223333", "eu-west-1")),
    ],
)
def test_the_environment_chooses_among_several_places(
    account: str,
    region: str,
    place: tuple[str, str],
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", account)
    monkeypatch.setenv("AWS_DEFAULT_REGION", region)
    with claimed(project) as claim:
        places = [("000000000000", "us-east-1"), ("111122223333", "eu-west-1")]
        claim.announce(ENDPOINT, [Place(*each) for each in places])
        session = Cloud().session
    assert (session.get_credentials().access_key, session.region_name) == place
    assert capsys.readouterr().err.endswith(
        f", account {place[0]}, region {place[1]} (AWS_ACCESS_KEY_ID and AWS_REGION choose)\n"
    )


def test_git_does_not_see_what_up_writes(project: Path) -> None:
    with claimed(project) as claim:
        claim.announce(ENDPOINT)
        subprocess.run(["git", "init", "-q"], check=True)
        assert subprocess.check_output(["git", "status", "--porcelain", "-uall"]) == b""


def test_a_cloud_whose_process_was_killed_is_no_cloud(project: Path, other_process: Any) -> None:
    holder = other_process(ENDPOINT)
    assert running_cloud(project) is not None
    holder.kill()
    holder.wait()

    written = json.loads((project / ".batch-transform" / "local-cloud.json").read_text())
    assert written == {"endpoint": ENDPOINT, "pid": holder.pid, "places": []}
    assert running_cloud(project) is None
    with claimed(project) as claim:
        claim.announce("http://127.0.0.1:5")
        found = running_cloud(project)
        assert found is not None
        assert (found.endpoint, found.pid) == ("http://127.0.0.1:5", os.getpid())


def test_fails_when_the_cloud_is_about_to_start(other_process: Any) -> None:
    other_process()
    with pytest.raises(CommandError, match="starts still; try again in a moment"):
        Cloud()


def test_fails_when_the_cloud_of_the_project_is_on_another_machine(project: Path) -> None:
    with claimed(project) as claim:
        claim.announce("http://192.0.2.1:4566")
        with pytest.raises(CommandError, match=r"must be on this machine, got http://192\.0\.2\.1"):
            Cloud()


def test_fails_when_a_second_up_is_started_in_the_project(
    project: Path, other_process: Any, batch_transform: Any
) -> None:
    (project / "cdk.json").write_text('{"app": "false"}')
    holder = other_process(ENDPOINT)

    ended: Ended = batch_transform("up")

    assert ended.code == 1
    assert ended.err == (
        "batch-transform: a project must have one local cloud, got a `batch-transform up` in "
        f"{project} already (process {holder.pid}); use that one, or end it with Ctrl-C\n"
    )
    assert running_cloud(project) is not None


def test_fails_when_the_project_cannot_be_written(project: Path, batch_transform: Any) -> None:
    (project / ".batch-transform").write_text("in the way")
    ended: Ended = batch_transform("up")
    assert ended.code == 1
    assert "the project's folder must be one that can be written, got" in ended.err


def test_run_reads_s3_of_the_same_cloud_without_the_users_credentials(
    project: Path, emulator: LocalCloud, batch_transform: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator.client("s3").create_bucket(Bucket="of-project")
    emulator.client("s3").put_object(Bucket="of-project", Key="in/a.csv", Body=b"1\n")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a token of AWS")
    with claimed(project) as claim:
        claim.announce(emulator.endpoint, [Place("000000000000", "us-east-1")])
        ended: Ended = batch_transform(
            *("run", "--dry-run", "--input", "s3://of-project/in/", "--output", "out"),
            *("--content-type", "text/csv", "--split-type", "Line", "--assemble-with", "Line"),
        )

    assert ended.code == 0, ended.out
    assert "1 object, 1 record" in ended.out
    assert f"local cloud at {emulator.endpoint}, of" in ended.err
    assert os.environ["AWS_ACCESS_KEY_ID"] == "000000000000"
    assert "AWS_SESSION_TOKEN" not in os.environ


def test_run_reads_aws_when_it_is_asked_for(
    emulator: LocalCloud, batch_transform: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", emulator.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    ended: Ended = batch_transform(
        *("run", "--dry-run", "--input", "s3://of-aws/in/", "--output", "out"),
        *("--endpoint", "aws", "--content-type", "text/csv", "--split-type", "Line"),
    )
    assert ended.code == 2
    assert "must be listable, got Unable to locate credentials" in ended.err
    assert "AWS_ENDPOINT_URL_S3" not in os.environ
