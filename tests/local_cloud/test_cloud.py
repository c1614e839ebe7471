"""Starting, losing and stopping a local cloud."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError

import local_cloud
from local_cloud import CloudUnavailable, EmulatorMismatch, LocalCloud, PortInUse
from local_cloud import processes as cloud_processes
from local_cloud.emulator import TEMPORARY

from .assembly import write_assembly
from .conftest import make_function, wait_until

SOURCES = str(Path(local_cloud.__file__).parent.parent)


def _family(cloud: LocalCloud) -> set[int]:
    return cloud_processes.family(cloud.marker)


def test_nothing_is_left_when_it_stops_though_functions_still_run() -> None:
    with LocalCloud() as cloud:
        make_function(
            cloud, "stubborn", "import time\ndef handle(event, context):\n    time.sleep(60)\n"
        )
        cloud.client("lambda").invoke(FunctionName="stubborn", InvocationType="Event")
        wait_until(lambda: len(_family(cloud)) == 2)
        state_dir = cloud.state_dir
        started = time.monotonic()
    assert time.monotonic() - started < 10
    assert _family(cloud) == set()
    assert not state_dir.exists()
    with pytest.raises(CloudUnavailable, match="start it first"):
        cloud.client("s3")


@pytest.mark.skipif(shutil.which("ss") is None, reason="asks ss who listens")
def test_it_listens_on_loopback_only_and_on_one_port() -> None:
    with LocalCloud() as cloud:
        pids = _family(cloud)
        listing = subprocess.run(
            ["ss", "-ltnpH"], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        ours = [line.split()[3] for line in listing if any(f"pid={pid}," in line for pid in pids)]
        assert ours == [cloud.endpoint.removeprefix("http://")]
        assert ours[0].startswith("127.0.0.1:")


def test_fails_when_the_port_is_in_use() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PortInUse, match=f"port {port} must be free.*name another port"):
            LocalCloud(port=port).start()


def test_it_listens_on_the_port_that_was_asked_for() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with LocalCloud(port=port) as cloud:
        assert cloud.endpoint == f"http://127.0.0.1:{port}"


def test_a_killed_server_is_noticed_and_cleaned_up(tmp_path: Path) -> None:
    with LocalCloud() as cloud:
        make_function(
            cloud, "orphan", "import time\ndef handle(event, context):\n    time.sleep(60)\n"
        )
        cloud.client("lambda").invoke(FunctionName="orphan", InvocationType="Event")
        wait_until(lambda: len(_family(cloud)) == 2)
        os.kill(cloud.server_pid, signal.SIGKILL)
        with pytest.raises(CloudUnavailable, match="end by SIGKILL; start it again"):
            wait_until(lambda: cloud.check())
        with pytest.raises(CloudUnavailable, match="SIGKILL"):
            cloud.deploy(tmp_path)
    assert _family(cloud) == set()


def test_a_server_that_dies_in_a_deployment_is_named(tmp_path: Path) -> None:
    with LocalCloud() as cloud:
        write_assembly(
            tmp_path,
            {
                "Waiting": {
                    "Resources": {
                        "Handle": {"Type": "AWS::CloudFormation::WaitConditionHandle"},
                        "Never": {
                            "Type": "AWS::CloudFormation::WaitCondition",
                            "Properties": {"Handle": {"Ref": "Handle"}, "Timeout": "60"},
                        },
                    }
                }
            },
        )
        Timer(1, os.kill, [cloud.server_pid, signal.SIGKILL]).start()
        with pytest.raises(CloudUnavailable, match="SIGKILL"):
            cloud.deploy(tmp_path)


def test_fails_when_it_cannot_write_its_state(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CloudUnavailable, match=r"must be able to write.*name another state_dir"):
        LocalCloud(state_dir=tmp_path / "file" / "state").start()


def test_fails_with_the_last_log_lines_when_it_does_not_start(
    tmp_path: Path,
) -> None:
    LocalCloud(state_dir=tmp_path).start().stop()
    (tmp_path / TEMPORARY).write_text("a file where the server needs a directory")
    with pytest.raises(CloudUnavailable, match=r"(?s)must start.*\n  \| .*FileExistsError"):
        LocalCloud(state_dir=tmp_path).start()


@pytest.mark.parametrize("name", ["tmp", TEMPORARY, "thesis.txt"])
def test_fails_when_its_folder_has_something_else_and_leaves_that_alone(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "mine").touch()
    cloud = LocalCloud(state_dir=tmp_path)

    with pytest.raises(CloudUnavailable, match=f"an empty one, or .* has {name}; name another"):
        cloud.start()

    cloud.stop()
    assert [*tmp_path.rglob("*")] == [tmp_path / name, tmp_path / name / "mine"]


def test_fails_with_the_last_log_lines_when_the_server_breaks_down() -> None:
    cloud = LocalCloud(ping_timeout_s="soon")  # type: ignore[arg-type]
    with pytest.raises(CloudUnavailable, match=r"(?s)exit code 2.*invalid float value: 'soon'"):
        cloud.start()


def test_fails_when_it_does_not_answer_in_time() -> None:
    cloud = LocalCloud(start_limit_s=0)
    with pytest.raises(CloudUnavailable, match=r"must answer within 0 s.*raise start_limit_s"):
        cloud.start()
    assert _family(cloud) == set()


def test_fails_when_the_emulator_is_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: "1.6.0")
    with pytest.raises(EmulatorMismatch, match=r"1\.5\.33.*got 1\.6\.0; run: pip install"):
        LocalCloud().start()


def test_the_users_own_aws_configuration_stays_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text("[default]\nregion = eu-north-1\nendpoint_url = http://127.0.0.1:9\n")
    for name, value in {
        "AWS_PROFILE": "no-such-profile",
        "AWS_CONFIG_FILE": str(config),
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "HTTP_PROXY": "http://127.0.0.1:9",
    }.items():
        monkeypatch.setenv(name, value)
    with LocalCloud() as cloud:
        make_function(
            cloud,
            "environment",
            "import os\ndef handle(event, context):\n"
            "    return {k: v for k, v in os.environ.items()"
            " if k in ('HTTP_PROXY', 'AWS_PROFILE', 'AWS_ENDPOINT_URL')}\n",
        )
        answer = cloud.client("lambda").invoke(FunctionName="environment")
        assert answer["Payload"].read().decode() == f'{{"AWS_ENDPOINT_URL": "{cloud.endpoint}"}}'


def test_its_environment_turns_any_aws_program_to_it(cloud: LocalCloud) -> None:
    program = "import boto3; print(boto3.client('sts').get_caller_identity()['Account'])"
    output = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **cloud.environment(account="111122223333")},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert output.strip() == "111122223333"


def test_what_it_keeps_is_there_after_a_restart(tmp_path: Path) -> None:
    with LocalCloud(state_dir=tmp_path) as first:
        first.client("s3").create_bucket(Bucket="kept-bucket")
        first.client("s3").put_object(Bucket="kept-bucket", Key="a", Body=b"kept")
        first.client("ssm").put_parameter(Name="/kept", Value="yes", Type="String")
    with LocalCloud(state_dir=tmp_path) as second:
        kept = second.client("s3").get_object(Bucket="kept-bucket", Key="a")["Body"].read()
        assert kept == b"kept"
        assert second.client("ssm").get_parameter(Name="/kept")["Parameter"]["Value"] == "yes"


def test_it_keeps_its_data_though_a_client_still_waits_for_an_answer(tmp_path: Path) -> None:
    with LocalCloud(state_dir=tmp_path) as cloud, ThreadPoolExecutor() as waiting:
        sqs = cloud.client("sqs")
        url = sqs.create_queue(QueueName="polled")["QueueUrl"]
        poll = waiting.submit(sqs.receive_message, QueueUrl=url, WaitTimeSeconds=20)
        time.sleep(0.3)
        cloud.stop()
        with pytest.raises(BotoCoreError):
            poll.result()
    kept = json.loads((tmp_path / "services" / "sqs.json").read_text())
    assert "polled" in json.dumps(kept)


def test_it_ends_with_the_process_that_started_it() -> None:
    program = (
        "from local_cloud import LocalCloud\n"
        "cloud = LocalCloud().start()\n"
        "print(cloud.marker, cloud.state_dir, flush=True)\n"
        "input()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": SOURCES},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        marker, state_dir = parent.stdout.readline().split()
        assert cloud_processes.family(marker)
        parent.kill()
    wait_until(lambda: not cloud_processes.family(marker))
    assert not Path(state_dir).exists()


def test_queues_that_were_kept_feed_their_functions(tmp_path: Path) -> None:
    with LocalCloud(state_dir=tmp_path) as first:
        source = "def handle(event, context):\n    return {}\n"
        function = make_function(first, "reader", source)
        sqs = first.client("sqs")
        url = sqs.create_queue(QueueName="kept")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
        first.client("lambda").create_event_source_mapping(
            FunctionName=function, EventSourceArn=arn["QueueArn"]
        )
        endpoint = first.endpoint

    with LocalCloud(state_dir=tmp_path) as second:
        assert second.endpoint == endpoint, "URLs of queues name the port"
        sqs = second.client("sqs")
        sqs.send_message(QueueUrl=url, MessageBody="later")
        wait_until(lambda: _messages(sqs, url) == 0, within_s=20)


def test_fails_when_kept_data_are_to_have_another_port(tmp_path: Path) -> None:
    (tmp_path / "port").write_text("4566")
    with pytest.raises(
        CloudUnavailable, match=r"the port must be 4566, .* got 4567; name that one"
    ):
        LocalCloud(state_dir=tmp_path, port=4567).start()


def _messages(sqs: Any, url: str) -> int:
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    told = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    return sum(int(told[name]) for name in names)
