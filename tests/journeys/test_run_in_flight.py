"""What becomes of a run in flight: it is stopped, its model is replaced, its stack is deleted."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aws_cdk import App, Duration, Stack
from typer.testing import CliRunner

from batch_transform import (
    BatchPolicy,
    BatchTransform,
    TransformModel,
    TransformSettings,
    TransformStep,
)
from batch_transform_cli import main
from local_cloud import LocalCloud

from .conftest import Pipeline, deployed, eventually, make_image, serving, stack_status

# Each line comes back with the model's mark behind it, when the gate is open.
_REPLY = """
MARK = pathlib.Path(os.environ["SM_MODEL_DIR"], "mark").read_bytes()
GATE = pathlib.Path(os.environ["GATE"])

def reply(rows):
    while GATE.exists():
        time.sleep(0.05)
    return 200, [row + MARK for row in rows]
"""
_NUMBERS = itertools.count()  # the jobs of a stack that was deleted still show


@dataclass(frozen=True)
class Site:
    """A stack with one pipeline, whose model server holds each request until the gate opens."""

    cloud: LocalCloud
    folder: Path
    name: str
    steps: int

    @property
    def gate(self) -> Path:
        return self.folder / "gate"

    def deploy(self, mark: str) -> Pipeline:
        """Deploy the pipeline with models that leave this mark."""
        model = self.folder / mark
        model.mkdir()
        (model / "mark").write_text(f",{mark}")
        app = App(outdir=str(self.folder / f"cdk.out-{mark}"))
        BatchTransform(
            Stack(app, self.name),
            self.name,
            steps=[
                TransformStep(
                    name=f"step{number}",
                    model=TransformModel.from_artifact(
                        model, self.folder / "image", environment={"GATE": str(self.gate)}
                    ),
                    instance_type="ml.m5.large",
                    settings=TransformSettings.csv(),
                )
                for number in range(1, self.steps + 1)
            ],
            batch=BatchPolicy(max_wait=Duration.seconds(0)),
            max_concurrent_runs=1,
            pipeline_id=self.name,
        )
        app.synth()
        return deployed(self.cloud, self.cloud.deploy(app.outdir)[self.name])

    def hold(self, pipeline: Pipeline, name: str) -> tuple[str, str]:
        """Upload a file and have its job begin but not end; return the keys of drop and job."""
        self.gate.touch()
        before = set(self.jobs())
        key = pipeline.drop(name, b"1\n")
        (job,) = eventually(lambda: set(self.jobs()) - before, bool)
        describe = self.cloud.client("sagemaker").describe_transform_job
        eventually(
            lambda: describe(TransformJobName=job), lambda found: "TransformStartTime" in found
        )
        return key, job

    def ask(self, *command: str) -> Any:
        """Return what the command prints for programs."""
        where = ["--pipeline", self.name, "--endpoint", self.cloud.endpoint, "--json"]
        ended = CliRunner().invoke(main.commands, [*command, *where], catch_exceptions=False)
        return json.loads(ended.stdout)

    def jobs(self) -> dict[str, str]:
        """Return the statuses of the pipeline's jobs by name."""
        pages = self.cloud.client("sagemaker").get_paginator("list_transform_jobs")
        return {
            job["TransformJobName"]: job["TransformJobStatus"]
            for page in pages.paginate(NameContains=f"{self.name}-")
            for job in page["TransformJobSummaries"]
        }

    def running_executions(self, pipeline: Pipeline) -> list[str]:
        """Return the ARNs of the executions in flight."""
        found = self.cloud.client("stepfunctions").list_executions(
            stateMachineArn=pipeline.client.state_machine_arn, statusFilter="RUNNING"
        )
        return [execution["executionArn"] for execution in found["executions"]]


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud(wait_scale=0.1) as cloud:
        yield cloud


@pytest.fixture(params=[1, 2], ids=["one step", "two steps"])
def site(request: pytest.FixtureRequest, cloud: LocalCloud, tmp_path: Path) -> Iterator[Site]:
    make_image(tmp_path / "image", serving(_REPLY))
    site = Site(cloud, tmp_path, f"held{next(_NUMBERS)}", request.param)
    yield site
    site.gate.unlink(missing_ok=True)
    cloud.client("cloudformation").delete_stack(StackName=site.name)
    eventually(lambda: stack_status(cloud, site.name), lambda status: status is None)


def test_a_run_that_is_stopped_stops_its_job_and_gives_the_drop_back(site: Site) -> None:
    pipeline = site.deploy("only")
    key, job = site.hold(pipeline, "stopped.csv")
    client = pipeline.client
    load = client.load(client.status(), now=datetime.now(UTC))
    assert (load.running_jobs, load.slots_free, load.slots) == (1, 0, 1)
    run_id = job.rpartition("-s")[0]
    assert site.ask("show", run_id)["jobs"][0]["status"] == "InProgress"

    stopped = site.ask("stop", run_id, "--yes")

    assert stopped["jobs"] == [job]
    assert eventually(lambda: site.jobs()[job], lambda status: status != "InProgress")
    site.gate.unlink()
    (drop,) = pipeline.wait(key)
    assert site.jobs()[job] == "Stopped"
    assert (drop.status, drop.attempts) == ("done", 2)
    assert pipeline.output(key) == b"1" + b",only" * site.steps + b"\n"
    assert len(site.jobs()) == 1 + site.steps
    told = site.ask("show", run_id)
    assert (told["run"]["outcome"], told["jobs"][0]["status"]) == ("Failed", "Stopped")
    assert told["links"]["settled by"].endswith(f":{run_id}-f1")
    (fate,) = told["drops"]
    assert fate["status"] == "waiting"
    assert fate["reason"].endswith(f"transform job {job} was stopped")
    assert site.ask("show", key)["output"].endswith(f"/predictions/{key}.out")


def test_a_run_ends_by_the_models_it_began_with_or_begins_anew_by_the_new_ones(site: Site) -> None:
    """Never by some of each: the job that runs goes on, a step that is still to begin cannot."""
    pipeline = site.deploy("older")
    key, job = site.hold(pipeline, "a.csv")

    site.deploy("newer")
    site.gate.unlink()

    (drop,) = pipeline.wait(key)
    assert site.jobs()[job] == "Completed"
    assert drop.status == "done"
    if site.steps == 1:
        assert (pipeline.output(key), drop.attempts) == (b"1,older\n", 1)
    else:
        assert (pipeline.output(key), drop.attempts) == (b"1,newer,newer\n", 2)


def test_deleting_the_stack_leaves_nothing_running(site: Site) -> None:
    pipeline = site.deploy("only")
    _, job = site.hold(pipeline, "deleted.csv")

    site.cloud.client("cloudformation").delete_stack(StackName=site.name)
    eventually(lambda: stack_status(site.cloud, site.name), lambda status: status is None)

    assert site.jobs()[job] in ("Stopping", "Stopped")
    assert eventually(lambda: site.jobs()[job], lambda status: status != "Stopping") == "Stopped"
    assert site.running_executions(pipeline) == []
    assert len(site.jobs()) == 1
