"""A transform job as a task in a state machine that is not ours, deployed and run."""

import json
import os
from pathlib import Path
from typing import Any

# aws_cdk reads these when it is imported; its own validation costs 4 CPU seconds a template.
os.environ["CDK_VALIDATION"] = "false"
os.environ["JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION"] = "20"

import pytest
from aws_cdk import App, CfnOutput, RemovalPolicy, Stack
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_stepfunctions as sfn

from batch_transform import S3Location, TransformModel, TransformSettings, TransformTask
from local_cloud import LocalCloud

from .conftest import wait_until


@pytest.fixture(scope="module")
def outputs(cloud: LocalCloud, image_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Deploy it: one task reads a folder, one what a manifest names; both told by the input."""
    artifact = tmp_path_factory.mktemp("model")
    (artifact / "weights").write_text("1")
    app = App(outdir=str(tmp_path_factory.mktemp("assembly")), analytics_reporting=False)
    stack = Stack(app, "Own")
    bucket = s3.Bucket(stack, "Data", removal_policy=RemovalPolicy.DESTROY)
    options: dict[str, Any] = {
        "model": TransformModel.from_artifact(artifact, image_dir),
        "instance_type": "ml.m5.large",
        "settings": TransformSettings.csv(),
    }
    by_folder = TransformTask(
        stack,
        "Folder",
        source=S3Location(bucket=bucket, key="{% $states.input.folder %}", within="in/"),
        destination=S3Location(bucket=bucket, key="by-folder/"),
        outputs={"manifest": "{% $states.context.Execution.Input.manifest %}"},
        **options,
    )
    by_manifest = TransformTask(
        stack,
        "Manifest",
        source=S3Location(bucket=bucket, key="in/"),
        manifest=S3Location(bucket=bucket, key="{% $states.input.manifest %}", within="lists/"),
        destination=S3Location(bucket=bucket, key="by-manifest/"),
        **options,
    )
    chain = sfn.Pass(stack, "Begin").next(by_folder).next(by_manifest)
    machine = sfn.StateMachine(
        stack,
        "Mine",
        definition_body=sfn.DefinitionBody.from_chainable(chain.next(sfn.Succeed(stack, "End"))),
    )
    CfnOutput(stack, "Bucket", value=bucket.bucket_name)
    CfnOutput(stack, "Machine", value=machine.state_machine_arn)
    assembly = Path(app.synth().directory)
    return cloud.deploy(assembly)["Own"]


def run(cloud: LocalCloud, machine: str, **given: str) -> Any:
    states = cloud.client("stepfunctions")
    arn = states.start_execution(stateMachineArn=machine, input=json.dumps(given))["executionArn"]
    wait_until(
        lambda: states.describe_execution(executionArn=arn)["status"] != "RUNNING", within_s=60
    )
    return states.describe_execution(executionArn=arn)


def test_the_tasks_of_one_execution_score_a_folder_and_what_a_manifest_names(
    cloud: LocalCloud, outputs: dict[str, str]
) -> None:
    client, bucket = cloud.client("s3"), outputs["Bucket"]
    manifest = [{"prefix": f"s3://{bucket}/in/"}, "a/2.csv"]
    for key, body in {
        "in/a/1.csv": "one\ntwo\n",
        "in/a/2.csv": "three\n",
        "in/b/1.csv": "not asked for\n",
        "lists/today.json": json.dumps(manifest),
    }.items():
        client.put_object(Bucket=bucket, Key=key, Body=body.encode())

    ended = run(cloud, outputs["Machine"], folder="in/a/", manifest="lists/today.json")

    assert ended["status"] == "SUCCEEDED", ended
    found = {
        entry["Key"]: client.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read()
        for prefix in ("by-folder/", "by-manifest/")
        for entry in client.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])
    }
    assert found == {
        "by-folder/1.csv.out": b"ONE\nTWO\n",
        "by-folder/2.csv.out": b"THREE\n",
        "by-manifest/a/2.csv.out": b"THREE\n",
    }
    described = json.loads(ended["output"])
    assert described["TransformJobStatus"] == "Completed"
    assert described["TransformJobName"].startswith("manifest-job-")


def test_a_job_that_fails_fails_the_execution_with_the_job_s_description(
    cloud: LocalCloud, outputs: dict[str, str]
) -> None:
    cloud.client("s3").put_object(Bucket=outputs["Bucket"], Key="in/bad/1.csv", Body=b"FAIL\n")

    ended = run(cloud, outputs["Machine"], folder="in/bad/", manifest="lists/none.json")

    assert (ended["status"], ended["error"]) == ("FAILED", "States.TaskFailed")
    assert json.loads(ended["cause"])["TransformJobStatus"] == "Failed"


def test_an_input_that_points_beside_what_was_allowed_starts_no_job(
    cloud: LocalCloud, outputs: dict[str, str]
) -> None:
    ended = run(cloud, outputs["Machine"], folder="other/", manifest="lists/none.json")

    assert (ended["status"], ended["error"]) == ("FAILED", "States.QueryEvaluationError")
    assert "a key must begin with in/, got other/" in ended["cause"]
