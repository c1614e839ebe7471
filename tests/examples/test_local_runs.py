"""The apps of examples/ in one local cloud: what is in drops/ comes out as in predictions/."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from local_cloud import LocalCloud
from tests.journeys.conftest import Pipeline, deployed

from .programs import APPS, synthesize

RUN = [example for example in APPS if (example / "drops").is_dir()]


@pytest.fixture(scope="module")
def pipelines() -> Iterator[dict[str, Pipeline]]:
    """All of them, with their drops uploaded, so that they run at the same time."""
    assemblies = {example: synthesize(example) for example in RUN}
    with LocalCloud() as cloud:
        found = {}
        for example, assembly in assemblies.items():
            (outputs,) = cloud.deploy(assembly).values()
            found[example.name] = deployed(cloud, outputs)
            for path in sorted((example / "drops").iterdir()):
                found[example.name].drop(path.name, path.read_bytes())
        yield found


@pytest.mark.parametrize("example", RUN, ids=lambda path: path.name)
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


@pytest.mark.parametrize(
    ("example", "record_id", "prediction"),
    [
        pytest.param("csv_join_lookup", "C-1002", [0.026], id="CSV"),
        pytest.param("gzip_json_lines", "r1", {"SageMakerOutput": 2, "id": "r1"}, id="JSON Lines"),
    ],
)
def test_a_prediction_is_found_by_its_id(
    example: str, record_id: str, prediction: object, pipelines: dict[str, Pipeline]
) -> None:
    found = pipelines[example].client.lookup(record_id)
    assert found is not None
    assert found.prediction == prediction
