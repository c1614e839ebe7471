"""One local cloud for all journeys, with the real app and a pipeline whose server is at fault."""

import csv
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from batch_transform_cli.cloud import Cloud
from batch_transform_cli.pipelines.client import PipelineClient
from batch_transform_cli.pipelines.records import Drop, Status
from batch_transform_cli.synthesis import synthesize
from local_cloud import LocalCloud

PROJECT = Path(__file__).parents[2]
EXAMPLE = PROJECT / "examples" / "breast_cancer"
LIMIT_S = 150.0  # The schedule looks after a dead run at its second minute, if not at its first.

_SERVE_SILENT = """#!/usr/bin/env python3
import time
print("loading a model that never ends to load", flush=True)
time.sleep(600)
"""
_LOSSY = """
def reply(rows):  # as of a table from which somebody drops the rows with a hole
    if any(b"crash" in row for row in rows):
        return 500, []
    return 200, [row for row in rows if b"nan" not in row]
"""
_SERVE = """#!/usr/bin/env python3
import http.server, json, os, pathlib, time

{reply}

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(200 if self.path == "/ping" else 404, b"")

    def do_POST(self):
        rows = self.rfile.read(int(self.headers["Content-Length"])).splitlines()
        status, lines = reply(rows)
        self.answer(status, b"\\n".join(lines))

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

port = int(os.environ.get("SAGEMAKER_BIND_TO_PORT", "8080"))
address = (os.environ.get("BIND_HOST", "0.0.0.0"), port)
http.server.ThreadingHTTPServer(address, Handler).serve_forever()
"""
_PIPELINES = """
pipelines:
  NeverReady:
    model: {{artifact: {build}/model, image: never-ready}}
    instance_type: ml.m5.large
    settings: {{csv: {{}}}}
    batch: {{max_wait_s: 0}}
    max_attempts: 1
  Lossy: &lossy
    model: {{artifact: {build}/model, image: lossy}}
    instance_type: ml.m5.large
    settings: {{csv: {{}}}}
    batch: {{max_wait_s: 1}}
  Lenient:
    <<: *lossy
    check_records: false
  Thrifty:
    <<: *lossy
    batch: {{max_wait_s: 60, max_objects: 10}}
    max_failed_fraction: 0.2
"""
APP = """
from pathlib import Path
from aws_cdk import App
from batch_transform import define_pipelines

app = App()
define_pipelines(app, Path("pipelines.yaml").resolve())
app.synth()
"""


def serving(reply: str) -> str:
    """Return the source of a model server.

    :param reply: source with a function `reply(rows)` of bytes, which returns a status and lines.
    """
    return _SERVE.format(reply=reply)


def make_image(folder: Path, serve: str) -> Path:
    """Write a model image whose program `serve` has this source; return its folder."""
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM scratch\n")
    (folder / "serve").write_text(serve)
    (folder / "serve").chmod(0o755)
    return folder


@dataclass(frozen=True)
class Pipeline:
    """A deployed pipeline, as its users hold it."""

    client: PipelineClient
    s3: Any

    def drop(self, name: str, body: bytes) -> str:
        """Upload a file, and return its key."""
        key = f"{self.client.input_prefix}{name}"
        self.s3.put_object(Bucket=self.client.input_bucket, Key=key, Body=body)
        return key

    def versions(self, key: str) -> list[Drop]:
        """Return the drops of one key, the oldest first."""
        drops = [drop for drop in self.client.status().drops if drop.key == key]
        return sorted(drops, key=lambda drop: drop.order)

    def wait(self, *keys: str, versions: int = 1) -> list[Drop]:
        """Return the drops of these keys, when all have ended and their runs are closed."""

        def has_ended(status: Status) -> bool:
            drops = [drop for drop in status.drops if drop.key in keys]
            runs = {drop.run_id for drop in drops}
            return (
                len(drops) >= versions * len(keys)
                and not any(drop.is_open for drop in drops)
                and not any(run.is_open for run in status.runs if run.run_id in runs)
            )

        status = eventually(self.client.status, has_ended)
        return [drop for drop in status.drops if drop.key in keys]

    def output(self, key: str) -> bytes:
        """Return the predictions of a drop."""
        found = self.s3.get_object(Bucket=self.client.output_bucket, Key=f"predictions/{key}.out")
        body: bytes = found["Body"].read()
        return body


def eventually(look: Callable[[], Any], until: Callable[[Any], bool]) -> Any:
    """Look until it is as wanted, and return what was seen."""
    deadline = time.monotonic() + LIMIT_S
    while not until(seen := look()):
        assert time.monotonic() < deadline, f"not so within {LIMIT_S:g} s: {seen}"
        time.sleep(0.1)
    return seen


@dataclass(frozen=True)
class Trace:
    """Marks a program and all that it starts, so that what it leaves behind can be found."""

    mark: str

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment to start the program with."""
        own = Path(sys.executable).parent
        path = os.pathsep.join([str(own), os.environ["PATH"], f"/{self.mark}"])
        return {**os.environ, "PATH": path, "CDK_VALIDATION": "false", **more}

    def processes(self) -> list[str]:
        """Return the command lines of the marked processes that still run."""
        found = []
        for folder in Path("/proc").iterdir():
            try:
                if folder.name.isdecimal() and self.mark.encode() in _read(folder / "environ"):
                    command = _read(folder / "cmdline").replace(b"\0", b" ").decode()
                    if command:  # one that ended and waits to be collected has none
                        found.append(f"{folder.name}: {command}")
            except OSError:
                continue  # It ended while we looked.
        return found

    def nothing_is_left(self) -> bool:
        """Whether all of them end within a moment."""
        deadline = time.monotonic() + 10
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.1)
        return not self.processes()


def _read(path: Path) -> bytes:
    return path.read_bytes()


@pytest.fixture
def trace() -> Trace:
    return Trace(f"journey-{uuid.uuid4().hex}")


@pytest.fixture(scope="session")
def build() -> Path:
    """Train the example's model where app.py looks for it."""
    subprocess.run([sys.executable, EXAMPLE / "train.py"], check=True, stdout=subprocess.DEVNULL)
    return EXAMPLE / "build"


@pytest.fixture(scope="session")
def rows(build: Path) -> dict[str, list[str]]:
    """Return rows that the model can score, by id."""
    with (build / "drops" / "patients-01.csv").open() as lines:
        return {row[0]: row[1:] for row in csv.reader(lines)}


@pytest.fixture(scope="session")
def assembly(build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthesize the real app."""
    folder = tmp_path_factory.mktemp("assembly")
    synthesize(PROJECT, folder)
    return folder


@pytest.fixture(scope="session")
def faulty_assembly(build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthesize pipelines whose model server is at fault."""
    project = tmp_path_factory.mktemp("faulty")
    make_image(project / "never-ready", _SERVE_SILENT)
    make_image(project / "lossy", serving(_LOSSY))
    (project / "pipelines.yaml").write_text(_PIPELINES.format(build=build))
    (project / "app.py").write_text(APP)
    (project / "cdk.json").write_text('{"app": "python3 app.py"}')
    synthesize(project, project / "cdk.out")
    return project / "cdk.out"


@pytest.fixture(scope="session")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud(ping_timeout_s=15) as cloud:
        yield cloud


@pytest.fixture(scope="session")
def pipeline(cloud: LocalCloud, assembly: Path) -> Pipeline:
    """Return the example's pipeline."""
    return deployed(cloud, cloud.deploy(assembly)["BreastCancer"])


@pytest.fixture(scope="session")
def faulty(cloud: LocalCloud, faulty_assembly: Path) -> Mapping[str, Mapping[str, str]]:
    """Return the outputs of the stacks whose model server is at fault."""
    return cloud.deploy(faulty_assembly)


@pytest.fixture(scope="session")
def never_ready(cloud: LocalCloud, faulty: Mapping[str, Mapping[str, str]]) -> Pipeline:
    """Return a pipeline whose model server never answers /ping."""
    return deployed(cloud, faulty["NeverReady"])


@pytest.fixture(scope="session")
def lossy(cloud: LocalCloud, faulty: Mapping[str, Mapping[str, str]]) -> Pipeline:
    """Return a pipeline whose model server answers rows with `nan` with nothing."""
    return deployed(cloud, faulty["Lossy"])


@pytest.fixture(scope="session")
def lenient(cloud: LocalCloud, faulty: Mapping[str, Mapping[str, str]]) -> Pipeline:
    """Return a pipeline of the same server that does not check its records."""
    return deployed(cloud, faulty["Lenient"])


@pytest.fixture(scope="session")
def thrifty(cloud: LocalCloud, faulty: Mapping[str, Mapping[str, str]]) -> Pipeline:
    """Return one of the same server with batches of ten, of which two may be lost."""
    return deployed(cloud, faulty["Thrifty"])


def deployed(cloud: LocalCloud, outputs: Mapping[str, str]) -> Pipeline:
    """Return the pipeline of a stack, found by what the stack says of itself."""
    for parameter in _parameters(cloud):
        if parameter["Value"] == outputs["InputBucket"]:
            pipeline_id = parameter["Name"].split("/")[2]
            client = PipelineClient.find(Cloud(cloud.endpoint), pipeline_id)
            return Pipeline(client, cloud.client("s3"))
    raise AssertionError(f"no parameters for {outputs}")


def set_environment(assembly: Path, **variables: str) -> None:
    """Give every function of an assembly with one stack these variables as well."""
    (path,) = assembly.glob("*.template.json")
    template = json.loads(path.read_text())
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::Lambda::Function":
            resource["Properties"]["Environment"]["Variables"] |= variables
    path.write_text(json.dumps(template))


def stack_status(cloud: LocalCloud, name: str) -> str | None:
    """Return the status of a stack; None when it is deleted."""
    stacks = cloud.client("cloudformation").list_stacks()["StackSummaries"]
    found = [stack["StackStatus"] for stack in stacks if stack["StackName"] == name]
    return next((status for status in found if status != "DELETE_COMPLETE"), None)


def _parameters(cloud: LocalCloud) -> Iterator[dict[str, str]]:
    pages = cloud.client("ssm").get_paginator("get_parameters_by_path")
    for page in pages.paginate(Path="/batch-transform/", Recursive=True):
        yield from page["Parameters"]
