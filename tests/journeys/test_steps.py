"""Two steps, of which the second finds no instance of its first type, in a local cloud."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from aws_cdk import App, Duration, Size, Stack

from batch_transform import (
    BatchPolicy,
    BatchTransform,
    InstanceCount,
    PredictionIndex,
    TransformModel,
    TransformSettings,
    TransformStep,
)
from batch_transform_cli.pipelines.records import Drop
from local_cloud import LocalCloud

from .conftest import Pipeline, deployed, make_image, serving

RARE, COMMON = "ml.g5.xlarge", "ml.m5.large"

# Both steps add a number to the second column, and refuse 13.
_REPLY = """
ADD = json.load(open(os.path.join(os.environ["SM_MODEL_DIR"], "add.json")))

def reply(rows):
    try:
        cells = [row.decode().split(",") for row in rows]
        if any(float(number) == 13 for _, number in cells):
            raise ValueError("13 is refused")
        return 200, [f"{name},{float(number) + ADD:g}".encode() for name, number in cells]
    except ValueError as error:
        return 400, [str(error).encode()]
"""


def _model(folder: Path, *, adds: int) -> TransformModel:
    model = folder / f"adds-{adds}"
    model.mkdir()
    (model / "add.json").write_text(str(adds))
    return TransformModel.from_artifact(model, folder / "image")


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud(no_capacity=[RARE], wait_scale=0.1) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def pipeline(cloud: LocalCloud, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    folder = tmp_path_factory.mktemp("steps")
    make_image(folder / "image", serving(_REPLY))
    app = App(outdir=str(folder / "cdk.out"))
    BatchTransform(
        Stack(app, "Chain"),
        "Chain",
        steps=[
            TransformStep(
                name="clean",
                model=_model(folder, adds=1),
                instance_type=COMMON,
                settings=TransformSettings.csv(),
            ),
            TransformStep(
                name="score",
                model=_model(folder, adds=10),
                instance_type=[RARE, COMMON],
                instance_count=InstanceCount.from_batch(
                    bytes_per_instance=Size.gibibytes(1), objects_per_instance=1, maximum=2
                ),
                settings=TransformSettings.csv(),
            ),
        ],
        index=PredictionIndex(record_id=0),
        batch=BatchPolicy(max_wait=Duration.seconds(2)),
        output_prefix="scores/",
    )
    app.synth()
    return deployed(cloud, cloud.deploy(folder / "cdk.out")["Chain"])


@pytest.fixture(scope="module")
def drops(pipeline: Pipeline) -> dict[str, Drop]:
    """Three files of which one ends in each step, and one comes through; they are one run."""
    rows = {"good": b"a,1\nb,2\n", "unclean": b"c,x\n", "unfit": b"d,12\n", "fit": b"e,14\n"}
    keys = {name: pipeline.drop(f"{name}.csv", body) for name, body in rows.items()}
    ended = {drop.key: drop for drop in pipeline.wait(*keys.values())}
    return {name: ended[key] for name, key in keys.items()}


def _read(pipeline: Pipeline, key: str) -> bytes:
    found = pipeline.s3.get_object(Bucket=pipeline.client.output_bucket, Key=key)
    body: bytes = found["Body"].read()
    return body


def test_the_second_step_reads_what_the_first_has_written(
    pipeline: Pipeline, drops: dict[str, Drop]
) -> None:
    assert len({drop.run_id for drop in drops.values()}) == 1
    assert {name: drop.status for name, drop in drops.items()} == {
        "good": "done",
        "fit": "done",
        "unclean": "failed",
        "unfit": "failed",
    }
    assert _read(pipeline, "scores/input/good.csv.out") == b"a,12\nb,13\n"
    assert _read(pipeline, "scores/input/fit.csv.out") == b"e,25\n"
    found = pipeline.client.lookup("e")
    assert found is not None
    assert (found.prediction, found.source_key) == ([25], "input/fit.csv")


def test_a_drop_says_in_which_step_it_was_lost_and_why(drops: dict[str, Drop]) -> None:
    assert drops["unclean"].reason.startswith("input/unclean.csv in step 'clean': ClientError: 400")
    assert "could not convert string to float: 'x'" in drops["unclean"].reason
    assert drops["unfit"].reason.startswith("input/unfit.csv in step 'score': ClientError: 400")
    assert "13 is refused" in drops["unfit"].reason


def test_a_type_without_capacity_is_followed_by_the_next_one(
    cloud: LocalCloud, pipeline: Pipeline, drops: dict[str, Drop]
) -> None:
    run_id = drops["good"].run_id
    report = json.loads(_read(pipeline, f"reports/{run_id}.json"))
    names = [job["name"] for job in report["jobs"]]
    sagemaker = cloud.client("sagemaker")
    jobs = [sagemaker.describe_transform_job(TransformJobName=name) for name in names]

    assert names == [f"{run_id}-s2-1000", f"{run_id}-s2-0", f"{run_id}-s1-0"]
    assert [job["TransformResources"]["InstanceType"] for job in jobs] == [COMMON, RARE, COMMON]
    assert jobs[1]["FailureReason"].startswith("CapacityError: Unable to provision")
    # One instance for each of the three objects that step 1 has left, but no more than two.
    assert [job["TransformResources"]["InstanceCount"] for job in jobs] == [2, 2, 1]


def test_the_report_names_a_manifest_of_what_the_run_has_made(
    pipeline: Pipeline, drops: dict[str, Drop]
) -> None:
    bucket = pipeline.client.output_bucket
    report = json.loads(_read(pipeline, f"reports/{drops['good'].run_id}.json"))
    head, *names = json.loads(_read(pipeline, report["outputs"].removeprefix(f"s3://{bucket}/")))

    assert head == {"prefix": f"s3://{bucket}/scores/"}
    assert sorted(names) == ["input/fit.csv.out", "input/good.csv.out"]
