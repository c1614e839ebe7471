"""The apps of examples/ in one local cloud: what is in drops/ comes out as in predictions/."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from local_cloud import LocalCloud
from tests.documents import PROJECT
from tests.journeys.conftest import Pipeline, deployed, eventually

from .programs import APPS, synthesize

RUN = [example for example in APPS if (example / "drops").is_dir()]
PIPELINES = [example for example in RUN if example.name != "own_state_machine"]


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud() as cloud:
        yield cloud


@pytest.fixture(scope="module")
def outputs(cloud: LocalCloud) -> dict[str, Mapping[str, str]]:
    """What the stack of each example says of itself, when all are deployed."""
    return {example.name: _only_stack(cloud.deploy(synthesize(example))) for example in RUN}


def _only_stack(stacks: Mapping[str, Mapping[str, str]]) -> Mapping[str, str]:
    (outputs,) = stacks.values()
    return outputs


@pytest.fixture(scope="module")
def pipelines(cloud: LocalCloud, outputs: dict[str, Mapping[str, str]]) -> dict[str, Pipeline]:
    """The pipelines, with their drops uploaded, so that they run at the same time."""
    found = {}
    for example in PIPELINES:
        found[example.name] = deployed(cloud, outputs[example.name])
        for path in sorted((example / "drops").iterdir()):
            found[example.name].drop(path.name, path.read_bytes())
    return found


@pytest.mark.parametrize("example", PIPELINES, ids=lambda path: path.name)
def test_what_is_dropped_comes_out_as_the_example_says(
    example: Path, pipelines: dict[str, Pipeline]
) -> None:
    pipeline = pipelines[example.name]
    names = sorted(path.name for path in (example / "drops").iterdir())
    keys = [f"{pipeline.client.input_prefix}{name}" for name in names]

    drops = pipeline.wait(*keys)

    assert {(drop.key, drop.status, drop.reason) for drop in drops} == {
        (key, "done", "") for key in keys
    }
    predictions = example / "predictions"
    assert {f"{name}.out": pipeline.output(key) for name, key in zip(names, keys, strict=True)} == {
        path.name: path.read_bytes() for path in predictions.iterdir()
    }


def test_the_state_machine_of_ones_own_scores_a_folder(
    cloud: LocalCloud, outputs: dict[str, Mapping[str, str]]
) -> None:
    example = PROJECT / "examples" / "own_state_machine"
    bucket, machine = outputs[example.name]["Bucket"], outputs[example.name]["StateMachine"]
    s3, states = cloud.client("s3"), cloud.client("stepfunctions")
    for path in (example / "drops").iterdir():
        s3.put_object(Bucket=bucket, Key=f"customers/today/{path.name}", Body=path.read_bytes())

    started = states.start_execution(
        stateMachineArn=machine, input=json.dumps({"folder": "customers/today/"})
    )
    ended = eventually(
        lambda: states.describe_execution(executionArn=started["executionArn"]),
        lambda execution: execution["status"] != "RUNNING",
    )

    assert ended["status"] == "SUCCEEDED", ended
    for path in (example / "predictions").iterdir():
        found = s3.get_object(Bucket=bucket, Key=f"scores/{path.name}")
        assert found["Body"].read() == path.read_bytes()


@pytest.mark.parametrize(
    ("example", "record_id", "prediction"),
    [
        pytest.param("csv_join_lookup", "C-1002", 0.026, id="CSV"),
        pytest.param("gzip_json_lines", "r1", 2, id="JSON Lines"),
    ],
)
def test_a_prediction_is_found_by_its_id(
    example: str, record_id: str, prediction: object, pipelines: dict[str, Pipeline]
) -> None:
    found = pipelines[example].client.lookup(record_id)
    assert found is not None
    assert found.prediction == prediction
