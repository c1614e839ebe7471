"""One local cloud for all tests of this folder: they use names of their own in it."""

import io
import json
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local_cloud import LocalCloud

ROLE = "arn:aws:iam::000000000000:role/test-role"

SERVE = '''#!/usr/bin/env python3
"""A model server that answers each payload in capital letters; `FAIL` in a payload is a 500."""
import http.server, os, sys, time

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(200 if self.path == "/ping" else 404, b"")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if b"SLOW" in body:
            time.sleep(60)
        self.answer(400 if b"FAIL" in body else 200, body.upper().rstrip())

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

port = int(os.environ.get("SAGEMAKER_BIND_TO_PORT", "8080"))
address = (os.environ.get("BIND_HOST", "0.0.0.0"), port)
http.server.ThreadingHTTPServer(address, Handler).serve_forever()
'''


@pytest.fixture(scope="session")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud() as running:
        yield running


@pytest.fixture(scope="session")
def image_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model image: a Dockerfile and a `serve` of the standard library."""
    directory = tmp_path_factory.mktemp("image")
    (directory / "Dockerfile").write_text("FROM scratch\nCOPY serve /usr/local/bin/serve\n")
    (directory / "serve").write_text(SERVE)
    (directory / "serve").chmod(0o755)
    return directory


@pytest.fixture(scope="session")
def bucket(cloud: LocalCloud) -> str:
    cloud.client("s3").create_bucket(Bucket="shared-bucket")
    return "shared-bucket"


@pytest.fixture(scope="session")
def model(cloud: LocalCloud, image_dir: Path) -> str:
    cloud.images.register("capitals:1", image_dir)
    cloud.client("sagemaker").create_model(
        ModelName="capitals", PrimaryContainer={"Image": "capitals:1"}, ExecutionRoleArn=ROLE
    )
    return "capitals"


@pytest.fixture(scope="session")
def queue(cloud: LocalCloud) -> Callable[[str], "Queue"]:
    return lambda name: Queue(cloud, name)


class Queue:
    """An SQS queue that keeps what it has received."""

    def __init__(self, cloud: LocalCloud, name: str) -> None:
        self._sqs = cloud.client("sqs")
        self.url: str = self._sqs.create_queue(QueueName=name)["QueueUrl"]
        attributes = self._sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=["QueueArn"])
        self.arn: str = attributes["Attributes"]["QueueArn"]

    def send(self, body: object, **options: Any) -> None:
        self._sqs.send_message(QueueUrl=self.url, MessageBody=json.dumps(body), **options)

    def receive(self, count: int = 1, *, within_s: float = 10) -> list[Any]:
        """Receive that many messages, or as many as came in time."""
        bodies: list[Any] = []
        deadline = time.monotonic() + within_s
        while len(bodies) < count and time.monotonic() < deadline:
            answer = self._sqs.receive_message(
                QueueUrl=self.url, MaxNumberOfMessages=10, WaitTimeSeconds=0
            )
            for message in answer.get("Messages", []):
                bodies.append(json.loads(message["Body"]))
                self._sqs.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])
            time.sleep(0.02)
        return bodies


def wait_until(holds: Callable[[], Any], *, within_s: float = 20) -> Any:
    """Return the first true value of `holds()`."""
    deadline = time.monotonic() + within_s
    while not (value := holds()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)
    return value


def make_function(cloud: LocalCloud, name: str, source: str, **options: Any) -> str:
    """Create a Python function whose `handle` is in `source`; returns its ARN."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as code:
        code.writestr("function.py", source)
    settings: dict[str, Any] = {
        "Runtime": "python3.13",
        "Role": ROLE,
        "Handler": "function.handle",
        "Code": {"ZipFile": archive.getvalue()},
        "Timeout": 20,
        **options,
    }
    created = cloud.client("lambda").create_function(FunctionName=name, **settings)
    return str(created["FunctionArn"])


def run_machine(
    cloud: LocalCloud, name: str, definition: object, given: object = None, *, wait: bool = True
) -> Any:
    """Create a state machine and run it; returns DescribeExecution's answer."""
    states = cloud.client("stepfunctions")
    machine = states.create_state_machine(
        name=name, definition=json.dumps(definition), roleArn=ROLE
    )["stateMachineArn"]
    arn = states.start_execution(stateMachineArn=machine, input=json.dumps(given or {}))[
        "executionArn"
    ]
    if wait:
        wait_until(
            lambda: states.describe_execution(executionArn=arn)["status"] != "RUNNING",
            within_s=40,
        )
    return states.describe_execution(executionArn=arn)


def transform_request(name: str, model: str, bucket: str, **changes: Any) -> dict[str, Any]:
    """A small CreateTransformJob request over `s3://<bucket>/<name>/in/`."""
    return {
        "TransformJobName": name,
        "ModelName": model,
        "TransformInput": {
            "DataSource": {
                "S3DataSource": {
                    "S3DataType": "S3Prefix",
                    "S3Uri": f"s3://{bucket}/{name}/in/",
                }
            },
            "ContentType": "text/csv",
            "SplitType": "Line",
        },
        "TransformOutput": {"S3OutputPath": f"s3://{bucket}/{name}/out", "AssembleWith": "Line"},
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
        **changes,
    }
