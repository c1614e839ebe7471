"""What runs is stopped when CloudFormation deletes the pipeline, and only then."""

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from transform_lambdas import deletion
from transform_lambdas.deletion import Deletion

ROLE = "arn:aws:iam::123456789012:role/any"
RUN = "churn-20260301t120000-0a1b2c"


class Sleep:
    """`time` whose sleep is short, and remembers."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Sleep:
    clock = Sleep()
    monkeypatch.setattr(deletion, "time", clock)
    return clock


@pytest.fixture
def machine() -> str:
    states = boto3.client("stepfunctions")
    definition = json.dumps({"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 9}}})
    made = states.create_state_machine(name="Churn", definition=definition, roleArn=ROLE)
    return str(made["stateMachineArn"])


class Jobs:
    """SageMaker as far as a deletion knows it; moto's jobs end when they begin."""

    def __init__(self) -> None:
        self.statuses: dict[str, str] = {}

    def get_paginator(self, name: str) -> "Jobs":
        assert name == "list_transform_jobs"
        return self

    def paginate(self, *, NameContains: str, StatusEquals: str) -> list[dict[str, Any]]:  # noqa: N803 (boto3's names)
        found = [
            name
            for name, status in self.statuses.items()
            if NameContains in name and status == StatusEquals
        ]
        return [{"TransformJobSummaries": [{"TransformJobName": name}]} for name in found]

    def stop_transform_job(self, *, TransformJobName: str) -> None:  # noqa: N803
        assert self.statuses[TransformJobName] == "InProgress"
        self.statuses[TransformJobName] = "Stopping"


@pytest.fixture
def jobs() -> Jobs:
    return Jobs()


@pytest.fixture
def executions(machine: str) -> Callable[[], dict[str, str]]:
    """Returns the statuses of executions by name."""

    def look() -> dict[str, str]:
        found = boto3.client("stepfunctions").list_executions(stateMachineArn=machine)
        return {each["name"]: each["status"] for each in found["executions"]}

    return look


@pytest.fixture
def of(machine: str, jobs: Jobs) -> Callable[..., Deletion]:
    """Makes the deletion of the pipeline, with clients that may refuse."""

    def make(**clients: Any) -> Deletion:
        given = {"states": boto3.client("stepfunctions"), "sagemaker": jobs, **clients}
        return Deletion(pipeline_id="churn", state_machine_arn=machine, **given)

    return make


def test_executions_and_jobs_of_the_pipeline_are_stopped_and_of_no_other(
    of: Callable[..., Deletion],
    machine: str,
    jobs: Jobs,
    executions: Callable[[], dict[str, str]],
) -> None:
    boto3.client("stepfunctions").start_execution(stateMachineArn=machine, name=RUN)
    ours = [f"{RUN}-s1-0", f"{RUN}-s2-1003"]
    others = [f"churn-2-{RUN[6:]}-s1-0", "churn-by-hand", f"{RUN}-s1-0-copy"]
    jobs.statuses |= dict.fromkeys(ours + others, "InProgress")

    assert of().stop_all()

    assert executions() == {RUN: "ABORTED"}
    assert jobs.statuses == dict.fromkeys(ours, "Stopping") | dict.fromkeys(others, "InProgress")


def test_what_shows_a_moment_later_is_stopped_too(
    of: Callable[..., Deletion], clock: Sleep, jobs: Jobs
) -> None:
    """An execution may have asked for a job just before it was stopped."""
    sleep = clock.sleep

    def create_and_sleep(seconds: float) -> None:
        if not clock.now:
            jobs.statuses[f"{RUN}-s1-0"] = "InProgress"
        sleep(seconds)

    clock.sleep = create_and_sleep  # type: ignore[method-assign]  # what happens meanwhile

    assert of().stop_all()

    assert jobs.statuses == {f"{RUN}-s1-0": "Stopping"}


def test_a_pipeline_at_rest_is_looked_at_twice(of: Callable[..., Deletion], clock: Sleep) -> None:
    assert of().stop_all()

    assert clock.now == 5


class Refusing:
    """A client of which one call is refused."""

    def __init__(self, client: Any, refused: str) -> None:
        self._client = client
        self._refused = refused

    def __getattr__(self, name: str) -> Any:
        return self._refuse if name == self._refused else getattr(self._client, name)

    def _refuse(self, *_: object, **__: object) -> None:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "Call")


def test_one_that_cannot_be_stopped_holds_up_no_other_and_the_deletion_for_a_minute_only(
    of: Callable[..., Deletion],
    machine: str,
    clock: Sleep,
    jobs: Jobs,
    executions: Callable[[], dict[str, str]],
) -> None:
    states = boto3.client("stepfunctions")
    states.start_execution(stateMachineArn=machine, name=RUN)
    jobs.statuses[f"{RUN}-s1-0"] = "InProgress"

    assert not of(states=Refusing(states, "stop_execution")).stop_all()

    assert (executions(), jobs.statuses) == ({RUN: "RUNNING"}, {f"{RUN}-s1-0": "Stopping"})
    assert clock.now == 60


def test_what_cannot_be_found_is_looked_for_for_a_minute(
    of: Callable[..., Deletion], clock: Sleep, jobs: Jobs
) -> None:
    assert not of(sagemaker=Refusing(jobs, "get_paginator")).stop_all()

    assert clock.now == 60


# CloudFormation


@pytest.fixture
def answers() -> Iterator[tuple[str, list[Any]]]:
    """The URL where CloudFormation waits, and what it was told; the first call fails."""
    told: list[Any] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            told.append((self.path, self.headers["Content-Type"], json.loads(body)))
            self.send_response(503 if len(told) == 1 else 200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/answer?signed=yes", told
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def request_of(
    machine: str, answers: tuple[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Any]]:
    """Sends a request as CloudFormation does, and returns the answer."""
    monkeypatch.setenv("PIPELINE_ID", "churn")
    monkeypatch.setenv("STATE_MACHINE_ARN", machine)
    url, told = answers

    def send(request_type: str, **more: str) -> Any:
        request = {
            "RequestType": request_type,
            "ResponseURL": url,
            "StackId": "stack",
            "RequestId": "request",
            "LogicalResourceId": "Runs",
            **more,
        }
        deletion.handle(request, None)
        return told[-1]

    yield send
    deletion._deletion.cache_clear()


def test_only_a_deletion_stops_what_runs(
    request_of: Callable[..., Any], machine: str, executions: Callable[[], dict[str, str]]
) -> None:
    boto3.client("stepfunctions").start_execution(stateMachineArn=machine, name=RUN)

    for request_type, status in (
        ("Create", "RUNNING"),
        ("Update", "RUNNING"),
        ("Delete", "ABORTED"),
    ):
        given = {} if request_type == "Create" else {"PhysicalResourceId": "Runs"}
        path, content_type, answer = request_of(request_type, **given)
        assert (path, content_type) == ("/answer?signed=yes", "")
        assert answer == {
            "Status": "SUCCESS",
            "PhysicalResourceId": "Runs",
            "StackId": "stack",
            "RequestId": "request",
            "LogicalResourceId": "Runs",
        }
        assert executions() == {RUN: status}


def test_a_deletion_goes_on_whatever_happens(
    request_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIPELINE_ID")

    assert request_of("Delete", PhysicalResourceId="Runs")[2]["Status"] == "SUCCESS"
