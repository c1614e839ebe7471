"""Models of two containers, and models that an SSM parameter names: promoted, also in a run."""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from batch_transform_cli.synthesis import synthesize
from local_cloud import LocalCloud

from .conftest import Pipeline, deployed, eventually, make_image, serving

ROLE = "arn:aws:iam::000000000000:role/model"
PARAMETER = "/churn/model"

# Each line comes back with the container's mark behind it: from its artifact, or its environment.
_REPLY = """
mark = pathlib.Path(os.environ.get("SM_MODEL_DIR", "."), "mark")
MARK = (mark.read_text() if mark.exists() else os.environ["MARK"]).encode()

def reply(rows):
    return 400 if b"refuses" in MARK else 200, [row + MARK for row in rows]
"""
_APP = f"""
from aws_cdk import App, Duration, Stack
from batch_transform import (
    BatchPolicy, BatchTransform, ModelContainer, TransformModel, TransformSettings,
)

app = App()
for name, model in {{
    "TwoContainers": TransformModel.pipeline(
        [ModelContainer(image="image", artifact=mark) for mark in ("first", "second")]
    ),
    "Promoted": TransformModel.from_ssm_parameter("{PARAMETER}", allowed_models="churn-*"),
}}.items():
    BatchTransform(
        Stack(app, name),
        name,
        model=model,
        instance_type="ml.m5.large",
        settings=TransformSettings.csv(),
        batch=BatchPolicy(max_wait=Duration.seconds(0)),
        max_attempts=1,
    )
app.synth()
"""


@pytest.fixture(scope="module")
def outputs(
    cloud: LocalCloud, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, str]]:
    """Deploy both pipelines, and let the cloud know the image of models that are made by hand."""
    project = tmp_path_factory.mktemp("models")
    image = make_image(project / "image", serving(_REPLY))
    for mark in ("first", "second"):
        (project / mark).mkdir()
        (project / mark / "mark").write_text(f",{mark}")
    (project / "app.py").write_text(_APP)
    (project / "cdk.json").write_text('{"app": "python3 app.py"}')
    synthesize(project, project / "cdk.out")
    cloud.images.register("marks:1", image)
    return cloud.deploy(project / "cdk.out")


@pytest.fixture(scope="module")
def two_containers(cloud: LocalCloud, outputs: dict[str, dict[str, str]]) -> Pipeline:
    return deployed(cloud, outputs["TwoContainers"])


@pytest.fixture(scope="module")
def promoted(cloud: LocalCloud, outputs: dict[str, dict[str, str]]) -> Pipeline:
    return deployed(cloud, outputs["Promoted"])


@pytest.fixture
def make_model(cloud: LocalCloud) -> Callable[[str], None]:
    def make(name: str) -> None:
        cloud.client("sagemaker").create_model(
            ModelName=name,
            ExecutionRoleArn=ROLE,
            PrimaryContainer={"Image": "marks:1", "Environment": {"MARK": f",{name}"}},
        )

    return make


@pytest.fixture
def promote(cloud: LocalCloud) -> Callable[[str], None]:
    def put(model: str) -> None:
        cloud.client("ssm").put_parameter(
            Name=PARAMETER, Value=model, Type="String", Overwrite=True
        )

    return put


def test_a_record_passes_both_containers_in_their_order(two_containers: Pipeline) -> None:
    key = two_containers.drop("a.csv", b"1\n2\n")

    (drop,) = two_containers.wait(key)

    assert (drop.status, drop.reason) == ("done", "")
    assert two_containers.output(key) == b"1,first,second\n2,first,second\n"


def test_without_the_parameter_a_drop_fails_and_says_so(promoted: Pipeline) -> None:
    key = promoted.drop("early.csv", b"1\n")

    (drop,) = promoted.wait(key)

    assert drop.status == "failed"
    assert "Ssm.ParameterNotFound" in drop.reason


def test_a_promotion_needs_no_deployment(
    promoted: Pipeline, make_model: Callable[[str], None], promote: Callable[[str], None]
) -> None:
    for model in ("churn-a", "churn-b"):
        make_model(model)
        promote(model)
        key = promoted.drop(f"{model}.csv", b"1\n")

        (drop,) = promoted.wait(key)

        assert (drop.status, drop.reason) == ("done", "")
        assert promoted.output(key) == f"1,{model}\n".encode()


def test_a_run_ends_with_the_model_that_it_began_with(
    cloud: LocalCloud,
    outputs: dict[str, dict[str, str]],
    promoted: Pipeline,
    make_model: Callable[[str], None],
    promote: Callable[[str], None],
) -> None:
    promote("churn-late")  # There is no such model yet, so the run has to try again.
    make_model("churn-next")
    key = promoted.drop("late.csv", b"1\n")
    machine = outputs["Promoted"]["StateMachineArn"]
    eventually(lambda: _histories(cloud, machine), lambda seen: "Could not find model" in seen)

    promote("churn-next")
    make_model("churn-late")

    (drop,) = promoted.wait(key)
    assert (drop.status, drop.reason) == ("done", "")
    assert promoted.output(key) == b"1,churn-late\n"


def test_what_failed_by_a_model_is_scored_by_another_one_after_a_redrive(
    cloud: LocalCloud,
    promoted: Pipeline,
    make_model: Callable[[str], None],
    promote: Callable[[str], None],
) -> None:
    def redrive(*arguments: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "batch_transform_cli", "redrive", "--json"]
        where = ["--endpoint", cloud.endpoint, "--pipeline", promoted.client.pipeline_id]
        ended = subprocess.run([*command, *where, *arguments], check=True, stdout=subprocess.PIPE)
        told: dict[str, Any] = json.loads(ended.stdout)
        return told

    make_model("churn-refuses")
    promote("churn-refuses")
    key = promoted.drop("redriven.csv", b"1\n")
    (drop,) = promoted.wait(key)
    assert drop.status == "failed"

    make_model("churn-mended")
    promote("churn-mended")
    before = redrive("--key", key, "--dry-run")
    asked = redrive("--key", key)
    eventually(lambda: promoted.versions(key)[0].status, lambda status: status != "failed")
    again = redrive("--key", key)

    assert [drop["key"] for drop in asked["drops"]] == [key]
    assert {**before, "dry_run": False} == asked
    assert again["drops"] == []
    (drop,) = promoted.wait(key)
    assert (drop.status, drop.reason) == ("done", "")
    assert promoted.output(key) == b"1,churn-mended\n"


def test_a_dead_letter_is_a_drop_when_it_has_moved_back(
    cloud: LocalCloud,
    promoted: Pipeline,
    make_model: Callable[[str], None],
    promote: Callable[[str], None],
) -> None:
    make_model("churn-alive")
    promote("churn-alive")
    key = promoted.drop("dead.csv", b"1\n")
    (drop,) = promoted.wait(key)
    uploads = promoted.client.dead_letters()[0]
    event = {
        "time": drop.dropped_at,
        "detail": {"object": {"key": key, "size": 2, "etag": "late", "sequencer": "F" * 16}},
    }
    cloud.client("sqs").send_message(QueueUrl=uploads.url, MessageBody=json.dumps(event))

    assert [promoted.client.move_back(queue) for queue in promoted.client.dead_letters()] == [1, 0]

    assert len(promoted.wait(key, versions=2)) == 2
    assert [queue.count for queue in promoted.client.dead_letters()] == [0, 0]


def _histories(cloud: LocalCloud, machine: str) -> str:
    """Return all that running executions have seen."""
    states = cloud.client("stepfunctions")
    running = states.list_executions(stateMachineArn=machine, statusFilter="RUNNING")["executions"]
    return json.dumps(
        [
            states.get_execution_history(executionArn=execution["executionArn"])["events"]
            for execution in running
        ],
        default=str,
    )
