"""What the doctor reads from the templates that the constructs write."""

from collections.abc import Callable
from pathlib import Path

import pytest
from aws_cdk import App, Size, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3

from batch_transform import (
    BatchTransform,
    InstanceCount,
    TransformModel,
    TransformSettings,
    TransformStep,
    Uploads,
)
from batch_transform_cli.doctor.assembly import AppStack, read_assembly
from batch_transform_cli.doctor.findings import Place
from batch_transform_cli.doctor.needs import Bucket, Jobs, Needs, Scoring, needs_of, parameters_of
from tests.examples.programs import FOLDER
from tests.examples.programs import synthesize as synthesize_example

PLACE = Place(account="111122223333", region="eu-west-1")
IMAGE = "111122223333.dkr.ecr.eu-west-1.amazonaws.com/fraud:7"
ARTIFACT = "s3://models/fraud/model.tar.gz"
ROLE = "arn:aws:iam::111122223333:role/scoring"


@pytest.fixture(scope="module")
def stacks(new_stack: Callable[[], Stack]) -> list[AppStack]:
    stack = new_stack()
    role = iam.Role.from_role_arn(stack, "Role", ROLE, mutable=False)
    csv = TransformSettings.csv()
    BatchTransform(
        stack,
        "Fraud",
        pipeline_id="fraud",
        model=TransformModel.from_artifact(ARTIFACT, IMAGE, role=role),
        instance_type="ml.m5.large",
        settings=csv,
        input_bucket=s3.Bucket.from_bucket_name(stack, "Arrivals", "arrivals"),
        output_bucket=s3.Bucket.from_bucket_name(stack, "Results", "results"),
        uploads=Uploads(prefix="fraud/"),
    )
    BatchTransform(
        stack,
        "Steps",
        pipeline_id="steps",
        max_concurrent_runs=3,
        steps=[
            TransformStep(
                name="prepare",
                model=TransformModel.from_model_name("prepare-v1"),
                instance_type=["ml.c5.xlarge", "ml.m5.xlarge"],
                instance_count=InstanceCount.from_batch(
                    bytes_per_instance=Size.gibibytes(1), maximum=7
                ),
                settings=csv,
            ),
            TransformStep(
                name="predict",
                model=TransformModel.from_ssm_parameter("/steps/model", allowed_models="s-*"),
                instance_type="ml.m5.xlarge",
                instance_count=2,
                settings=csv,
            ),
        ],
    )
    return _read(stack)


@pytest.fixture(scope="module")
def needs(stacks: list[AppStack]) -> Needs:
    return needs_of(PLACE, stacks, {})


def test_the_jobs_of_a_pipeline_are_those_of_its_largest_step(needs: Needs) -> None:
    assert sorted(needs.jobs, key=lambda each: each.owner) == [
        Jobs(owner="fraud", runs=2, instances={"ml.m5.large": 1}),
        Jobs(owner="steps", runs=3, instances={"ml.c5.xlarge": 7, "ml.m5.xlarge": 7}),
    ]


def test_buckets_that_exist_are_known_and_own_ones_left_out(needs: Needs) -> None:
    assert needs.buckets == [
        Bucket(name="arrivals", owner="fraud", events=True),
        Bucket(name="results", owner="fraud", events=False),
    ]


def test_models_are_known_by_artifact_and_role_or_by_name(needs: Needs) -> None:
    (model,) = needs.models
    (container,) = model.containers
    assert (container["ModelDataUrl"], container["Image"], model.role) == (ARTIFACT, IMAGE, ROLE)
    assert needs.model_names == ["prepare-v1"]
    assert [(each.name, each.names_model) for each in needs.parameters] == [("/steps/model", True)]


def test_it_is_known_what_a_model_has_to_read(needs: Needs) -> None:
    (model,) = needs.models
    assert sorted(needs.scorings, key=lambda each: each.pipeline) == [
        Scoring(pipeline="fraud", stack="Scoring", model=model.name, prefix="fraud/"),
        Scoring(pipeline="steps", stack="Scoring", model="prepare-v1", prefix="input/"),
    ]
    assert {each.bucket_fact for each in needs.scorings} <= needs.facts["Scoring"].keys()


def test_facts_are_what_commands_find_a_pipeline_by(needs: Needs) -> None:
    (facts,) = needs.facts.values()
    assert facts["/batch-transform/fraud/input-bucket"] == "arrivals"
    assert "/batch-transform/steps/ledger-table" in facts


def test_the_bootstrap_is_the_one_that_the_assembly_asks_for(needs: Needs) -> None:
    assert needs.bootstraps == {"/cdk-bootstrap/hnb659fds/version": 6}


@pytest.fixture(scope="module")
def account() -> list[AppStack]:
    return read_assembly(synthesize_example(FOLDER / "account"))


def test_what_an_account_publishes_is_read_and_made_by_its_stack(account: list[AppStack]) -> None:
    parameters = parameters_of(account)
    assert {each.made_by for each in parameters} == {"Account"}
    assert "/batch-transform-account/vpc-id" in {each.name for each in parameters}
    (made_by,) = needs_of(PLACE, account, {}).boundaries.values()
    assert made_by == "Account"


def test_what_parameters_name_exists_already(account: list[AppStack]) -> None:
    key = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd"
    topic = "arn:aws:sns:eu-west-1:111122223333:alerts"
    values = {
        "key-arn": key,
        "alert-topic-arn": topic,
        "subnet-1-id": "subnet-1",
        "subnet-2-id": "subnet-2",
        "security-group-id": "sg-1",
    }
    values = {f"/batch-transform-account/{name}": value for name, value in values.items()}
    needs = needs_of(PLACE, account, values)

    assert needs.topics == [topic]
    assert needs.keys == {
        key: {
            "events.amazonaws.com",
            "logs.eu-west-1.amazonaws.com",
            "delivery.logs.amazonaws.com",
        }
    }
    assert [(each.of_functions, each.subnets) for each in needs.networks] == [
        (False, ("subnet-1", "subnet-2")),
        (True, ("subnet-1", "subnet-2")),
    ]
    assert {each.security_groups for each in needs.networks} == {("sg-1",)}


def test_what_a_deployment_uploads_is_not_looked_for(account: list[AppStack]) -> None:
    needs = needs_of(PLACE, account, {})
    (container,) = needs.models[0].containers
    assert container["ModelDataUrl"] in needs.uploaded
    assert container["Image"].partition("/")[2] in needs.uploaded


def _read(stack: Stack) -> list[AppStack]:
    app = App.of(stack)
    assert isinstance(app, App)
    return read_assembly(Path(app.synth().directory))
