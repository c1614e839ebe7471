"""The SageMaker API and transform jobs, against a model server of the standard library."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from local_cloud import LocalCloud
from local_cloud import processes as cloud_processes

from .conftest import ROLE, Queue, run_machine, transform_request, wait_until

CREATE = "arn:aws:states:::sagemaker:createTransformJob"


def _drop(cloud: LocalCloud, bucket: str, name: str, **objects: bytes) -> None:
    for key, body in objects.items():
        cloud.client("s3").put_object(Bucket=bucket, Key=f"{name}/in/{key}.csv", Body=body)


def _wait(cloud: LocalCloud, name: str) -> dict[str, Any]:
    describe = cloud.client("sagemaker").describe_transform_job

    def over() -> dict[str, Any] | None:
        job: dict[str, Any] = describe(TransformJobName=name)
        return job if job["TransformJobStatus"] not in ("InProgress", "Stopping") else None

    job: dict[str, Any] = wait_until(over, within_s=40)
    return job


def _output(cloud: LocalCloud, bucket: str, name: str) -> dict[str, bytes]:
    s3, prefix = cloud.client("s3"), f"{name}/out/"
    listed = s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])
    return {
        entry["Key"].removeprefix(prefix): s3.get_object(Bucket=bucket, Key=entry["Key"])[
            "Body"
        ].read()
        for entry in listed
    }


def _machine(request: dict[str, Any], resource: str = f"{CREATE}.sync") -> dict[str, Any]:
    task = {"Type": "Task", "Resource": resource, "Arguments": request, "End": True}
    return {"QueryLanguage": "JSONata", "StartAt": "Job", "States": {"Job": task}}


def test_a_job_scores_its_objects(
    cloud: LocalCloud, model: str, bucket: str, queue: Callable[[str], Queue]
) -> None:
    changes = queue("job-changes")
    events = cloud.client("events")
    pattern = {
        "source": ["aws.sagemaker"],
        "detail-type": ["SageMaker Transform Job State Change"],
        "detail": {"TransformJobName": ["scores"]},
    }
    events.put_rule(Name="job-changes", EventPattern=json.dumps(pattern))
    events.put_targets(Rule="job-changes", Targets=[{"Id": "q", "Arn": changes.arn}])
    _drop(cloud, bucket, "scores", a=b"1,x\n2,y\n", b=b"3,z\n")
    sagemaker = cloud.client("sagemaker")

    created = sagemaker.create_transform_job(
        **transform_request("scores", model, bucket, Tags=[{"Key": "team", "Value": "churn"}])
    )
    job = _wait(cloud, "scores")

    assert job["TransformJobStatus"] == "Completed", job
    assert _output(cloud, bucket, "scores") == {
        "a.csv.out": b"1,X\n2,Y\n",
        "b.csv.out": b"3,Z\n",
    }
    assert job["TransformJobArn"] == created["TransformJobArn"]
    assert job["TransformInput"]["CompressionType"] == "None"
    assert job["TransformOutput"]["KmsKeyId"] == ""
    assert job["DataProcessing"] == {
        "InputFilter": "$",
        "OutputFilter": "$",
        "JoinSource": "None",
    }
    assert job["CreationTime"] <= job["TransformStartTime"] <= job["TransformEndTime"]
    assert not {"MaxPayloadInMB", "BatchStrategy", "Tags", "FailureReason"} & job.keys()
    tags = sagemaker.list_tags(ResourceArn=created["TransformJobArn"])["Tags"]
    assert tags == [{"Key": "team", "Value": "churn"}]
    states = [event["detail"]["TransformJobStatus"] for event in changes.receive(2)]
    assert sorted(states) == ["Completed", "InProgress"]


def test_one_bad_object_fails_the_job_and_the_good_outputs_stay(
    cloud: LocalCloud, model: str, bucket: str
) -> None:
    _drop(cloud, bucket, "partly", good=b"1\n", bad=b"FAIL\n")
    cloud.client("sagemaker").create_transform_job(**transform_request("partly", model, bucket))

    job = _wait(cloud, "partly")

    assert job["TransformJobStatus"] == "Failed"
    assert job["FailureReason"] == "ClientError: See job logs for more information"
    assert _output(cloud, bucket, "partly") == {"good.csv.out": b"1\n"}
    logs = cloud.client("logs").filter_log_events(
        logGroupName="/aws/sagemaker/TransformJobs", logStreamNamePrefix="partly/"
    )["events"]
    assert any("bad.csv: ClientError: 400" in event["message"] for event in logs)


def test_a_stopped_job_leaves_no_output_and_no_process(
    cloud: LocalCloud, model: str, bucket: str
) -> None:
    before = cloud_processes.family(cloud.marker)
    _drop(cloud, bucket, "halted", quick=b"1\n", slow=b"SLOW\n")
    sagemaker = cloud.client("sagemaker")
    sagemaker.create_transform_job(**transform_request("halted", model, bucket))
    wait_until(lambda: len(cloud_processes.family(cloud.marker) - before) >= 2)

    sagemaker.stop_transform_job(TransformJobName="halted")

    assert _wait(cloud, "halted")["TransformJobStatus"] == "Stopped"
    assert _output(cloud, bucket, "halted") == {}
    wait_until(lambda: not cloud_processes.family(cloud.marker) - before)
    with pytest.raises(ClientError, match=r"ValidationException.*status Stopped"):
        sagemaker.stop_transform_job(TransformJobName="halted")


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        pytest.param(
            {"ModelName": "nobody"},
            "ValidationException",
            'Could not find model "arn:aws:sagemaker:us-east-1:000000000000:model/nobody".',
            id="unknown model",
        ),
        pytest.param(
            {"MaxConcurrentTransforms": 20, "MaxPayloadInMB": 6},
            "ValidationException",
            "must be at most 100",
            id="too much at once",
        ),
        pytest.param(
            {"DataProcessing": {"OutputFilter": "$['a_b']"}},
            "ValidationException",
            "OutputFilter",
            id="a filter that AWS refuses",
        ),
        pytest.param(
            {"TransformOutput": {}}, "ValidationException", "s3OutputPath", id="missing member"
        ),
    ],
)
def test_refuses_what_the_service_refuses(
    cloud: LocalCloud, model: str, bucket: str, changes: Any, code: str, message: str
) -> None:
    _drop(cloud, bucket, "refused", a=b"1\n")
    with pytest.raises(ClientError) as refused:
        _unchecked(cloud).create_transform_job(
            **transform_request("refused", model, bucket, **changes)
        )
    assert refused.value.response["Error"]["Code"] == code
    assert message in refused.value.response["Error"]["Message"]


def _unchecked(cloud: LocalCloud) -> Any:
    """A client that leaves checking to the service."""
    return boto3.client(
        "sagemaker",
        endpoint_url=cloud.endpoint,
        region_name=cloud.region,
        aws_access_key_id="000000000000",
        aws_secret_access_key="local",
        config=Config(parameter_validation=False),
    )


def test_refuses_a_job_without_input_objects(cloud: LocalCloud, model: str, bucket: str) -> None:
    with pytest.raises(ClientError) as refused:
        cloud.client("sagemaker").create_transform_job(**transform_request("empty", model, bucket))
    message = refused.value.response["Error"]["Message"]
    assert message.startswith('No S3 objects found under S3 URL "s3://shared-bucket/empty/in/"')
    assert f'that the role "{ROLE}" has "s3:ListBucket" permissions' in message


def test_refuses_a_name_that_was_used_before(cloud: LocalCloud, model: str, bucket: str) -> None:
    _drop(cloud, bucket, "used", a=b"1\n")
    sagemaker = cloud.client("sagemaker")
    sagemaker.create_transform_job(**transform_request("used", model, bucket))
    _wait(cloud, "used")
    with pytest.raises(sagemaker.exceptions.ResourceInUse, match="transform-job/used"):
        sagemaker.create_transform_job(**transform_request("used", model, bucket))


def test_refuses_to_tell_of_a_job_that_is_not_there(cloud: LocalCloud) -> None:
    sagemaker = cloud.client("sagemaker")
    for call in (sagemaker.describe_transform_job, sagemaker.stop_transform_job):
        with pytest.raises(sagemaker.exceptions.ResourceNotFound):
            call(TransformJobName="never")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param(
            {
                "PrimaryContainer": {
                    "Image": "capitals:1",
                    "ModelDataSource": {
                        "S3DataSource": {
                            "S3Uri": "s3://b/k/",
                            "S3DataType": "S3Prefix",
                            "CompressionType": "None",
                        }
                    },
                }
            },
            "currently doesn't support Model entity with container definitions which use "
            "ModelDataSource attribute",
            id="model data source",
        ),
        pytest.param(
            {"PrimaryContainer": {"Image": "capitals:1", "Mode": "MultiModel"}},
            "MultiModel",
            id="multi-model",
        ),
    ],
)
def test_refuses_a_model_that_batch_cannot_run(
    cloud: LocalCloud, model: str, bucket: str, changes: Any, message: str
) -> None:
    sagemaker, name = cloud.client("sagemaker"), f"odd-{len(message)}"
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, **changes)
    _drop(cloud, bucket, name, a=b"1\n")
    with pytest.raises(ClientError, match=message):
        sagemaker.create_transform_job(**transform_request(name, name, bucket))


def test_models_are_kept_listed_tagged_and_deleted(
    cloud: LocalCloud, image_dir: Path, model: str
) -> None:
    sagemaker = cloud.client("sagemaker")
    created = sagemaker.create_model(
        ModelName="short-lived",
        Containers=[{"Image": "capitals:1"}, {"Image": "capitals:1"}],
        ExecutionRoleArn=ROLE,
        Tags=[{"Key": "a", "Value": "1"}],
    )
    sagemaker.add_tags(ResourceArn=created["ModelArn"], Tags=[{"Key": "b", "Value": "2"}])

    tags = sagemaker.list_tags(ResourceArn=created["ModelArn"])["Tags"]
    assert {tag["Key"]: tag["Value"] for tag in tags} == {"a": "1", "b": "2"}
    assert len(sagemaker.describe_model(ModelName="short-lived")["Containers"]) == 2
    (listed,) = sagemaker.list_models(NameContains="short")["Models"]
    assert listed["ModelArn"] == created["ModelArn"]
    with pytest.raises(ClientError, match="already existing model"):
        sagemaker.create_model(
            ModelName="short-lived",
            PrimaryContainer={"Image": "capitals:1"},
            ExecutionRoleArn=ROLE,
        )
    sagemaker.delete_model(ModelName="short-lived")
    with pytest.raises(ClientError, match="Could not find model"):
        sagemaker.describe_model(ModelName="short-lived")


def test_refuses_a_model_package(cloud: LocalCloud) -> None:
    with pytest.raises(ClientError, match="must have an Image"):
        cloud.client("sagemaker").create_model(
            ModelName="x", PrimaryContainer={"ModelPackageName": "p"}, ExecutionRoleArn=ROLE
        )


def test_refuses_a_model_whose_image_is_not_registered(cloud: LocalCloud) -> None:
    with pytest.raises(ClientError, match=r"Requested image no/such:1 not found.*register"):
        cloud.client("sagemaker").create_model(
            ModelName="x", PrimaryContainer={"Image": "no/such:1"}, ExecutionRoleArn=ROLE
        )


def test_jobs_are_listed_by_filter_and_page(cloud: LocalCloud, model: str, bucket: str) -> None:
    sagemaker, names = cloud.client("sagemaker"), [f"page-{n}" for n in range(3)]
    for name in names:
        _drop(cloud, bucket, name, a=b"1\n")
        sagemaker.create_transform_job(**transform_request(name, model, bucket))
    for name in names:
        _wait(cloud, name)
    pages = sagemaker.get_paginator("list_transform_jobs").paginate(
        NameContains="page-",
        StatusEquals="Completed",
        SortBy="Name",
        SortOrder="Ascending",
        PaginationConfig={"PageSize": 2},
    )
    summaries = [page["TransformJobSummaries"] for page in pages]
    assert [[job["TransformJobName"] for job in page] for page in summaries] == [
        ["page-0", "page-1"],
        ["page-2"],
    ]
    second = summaries[0][1]["CreationTime"]
    later = sagemaker.list_transform_jobs(NameContains="page-", CreationTimeAfter=second)
    assert [job["TransformJobName"] for job in later["TransformJobSummaries"]] == ["page-2"]


def test_a_sync_task_returns_what_describe_shows(
    cloud: LocalCloud, model: str, bucket: str
) -> None:
    _drop(cloud, bucket, "by-machine-0", a=b"x\n")
    request = transform_request("by-machine-0", model, bucket)
    request["TransformJobName"] = "{% 'by-machine-' & $string($states.context.State.RetryCount) %}"
    ended = run_machine(cloud, "by-machine", _machine(request))

    assert ended["status"] == "SUCCEEDED", ended
    result = json.loads(ended["output"])
    assert result["TransformJobStatus"] == "Completed"
    assert result["TransformEndTime"] >= result["CreationTime"] > 1_000_000_000_000
    tags = cloud.client("sagemaker").list_tags(ResourceArn=result["TransformJobArn"])["Tags"]
    assert {"Key": "MANAGED_BY_AWS", "Value": "STARTED_BY_STEP_FUNCTIONS"} in tags


def test_a_failed_job_fails_its_task_with_describe_as_cause(
    cloud: LocalCloud, model: str, bucket: str
) -> None:
    _drop(cloud, bucket, "fails-task", a=b"FAIL\n")
    request = transform_request("fails-task", model, bucket)
    ended = run_machine(cloud, "fails-task", _machine(request))

    assert ended["error"] == "States.TaskFailed"
    cause = json.loads(ended["cause"])
    assert cause["TransformJobStatus"] == "Failed"
    assert cause["FailureReason"] == "ClientError: See job logs for more information"


@pytest.mark.parametrize(
    ("name", "changes", "error"),
    [
        pytest.param(
            "no-input-x", {}, "SageMaker.AmazonSageMakerException", id="a validation error"
        ),
        pytest.param(
            "in-use-x",
            {"TransformJobName": "in-use-x"},
            "SageMaker.ResourceInUseException",
            id="a modelled error",
        ),
    ],
)
def test_a_refusal_has_the_error_name_of_step_functions(
    cloud: LocalCloud, model: str, bucket: str, name: str, changes: Any, error: str
) -> None:
    if changes:
        _drop(cloud, bucket, name, a=b"1\n")
        request = transform_request(name, model, bucket)
        cloud.client("sagemaker").create_transform_job(**request)
    ended = run_machine(cloud, name, _machine(transform_request(name, model, bucket, **changes)))
    assert ended["error"] == error


def test_a_task_without_sync_returns_at_once(cloud: LocalCloud, model: str, bucket: str) -> None:
    _drop(cloud, bucket, "at-once", a=b"1\n")
    request = transform_request("at-once", model, bucket)
    ended = run_machine(cloud, "at-once", _machine(request, CREATE))

    assert json.loads(ended["output"]).keys() == {"TransformJobArn"}
    assert _wait(cloud, "at-once")["TransformJobStatus"] == "Completed"


def test_a_machine_can_describe_a_job_by_the_sdk(
    cloud: LocalCloud, model: str, bucket: str
) -> None:
    resource = "arn:aws:states:::aws-sdk:sagemaker:describeTransformJob"
    ended = run_machine(cloud, "by-sdk", _machine({"TransformJobName": "never"}, resource))
    assert ended["error"] == "SageMaker.ResourceNotFoundException"


def test_a_job_of_another_account_and_region_works_there(cloud: LocalCloud, model: str) -> None:
    there = {"account": "111122223333", "region": "eu-west-1"}
    s3, sagemaker = cloud.client("s3", **there), cloud.client("sagemaker", **there)
    s3.create_bucket(
        Bucket="elsewhere", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    )
    s3.put_object(Bucket="elsewhere", Key="there/in/a.csv", Body=b"a\n")
    sagemaker.create_model(
        ModelName="there", PrimaryContainer={"Image": "capitals:1"}, ExecutionRoleArn=ROLE
    )
    sagemaker.create_transform_job(**transform_request("there", "there", "elsewhere"))

    def status() -> str:
        job = sagemaker.describe_transform_job(TransformJobName="there")
        return str(job["TransformJobStatus"])

    wait_until(lambda: status() == "Completed")
    output = s3.get_object(Bucket="elsewhere", Key="there/out/a.csv.out")["Body"].read()
    assert output == b"A\n"
    groups = cloud.client("logs", **there).describe_log_groups()["logGroups"]
    assert "/aws/sagemaker/TransformJobs" in [group["logGroupName"] for group in groups]


def test_the_words_of_a_server_that_does_not_answer_are_in_the_jobs_log(
    tmp_path: Path,
) -> None:
    serve = tmp_path / "serve"
    serve.write_text(
        "#!/usr/bin/env python3\nimport time\nprint('still loading', flush=True)\ntime.sleep(60)\n"
    )
    serve.chmod(0o755)
    with LocalCloud(ping_timeout_s=1) as cloud:
        cloud.images.register("silent", tmp_path)
        cloud.client("s3").create_bucket(Bucket="some-bucket")
        cloud.client("sagemaker").create_model(
            ModelName="silent", PrimaryContainer={"Image": "silent"}, ExecutionRoleArn=ROLE
        )
        _drop(cloud, "some-bucket", "silent", a=b"1\n")
        cloud.client("sagemaker").create_transform_job(
            **transform_request("silent", "silent", "some-bucket")
        )
        job = _wait(cloud, "silent")
        assert job["FailureReason"].startswith(
            "AlgorithmError: Model container failed to respond to ping."
        )
        events = cloud.client("logs").filter_log_events(
            logGroupName="/aws/sagemaker/TransformJobs", logStreamNamePrefix="silent/"
        )["events"]
        assert any("still loading" in event["message"] for event in events)
        assert "still loading" in cloud.log_file.read_text()


def test_refuses_a_job_over_the_quota_and_a_machine_can_wait_for_its_turn(
    image_dir: Path,
) -> None:
    with LocalCloud(instance_quota=1, wait_scale=0.1) as cloud:
        cloud.images.register("capitals:1", image_dir)
        cloud.client("s3").create_bucket(Bucket="some-bucket")
        sagemaker = cloud.client("sagemaker")
        sagemaker.create_model(
            ModelName="m", PrimaryContainer={"Image": "capitals:1"}, ExecutionRoleArn=ROLE
        )
        _drop(cloud, "some-bucket", "first", a=b"SLOW\n")
        _drop(cloud, "some-bucket", "second", a=b"1\n")
        sagemaker.create_transform_job(**transform_request("first", "m", "some-bucket"))
        second = transform_request("second", "m", "some-bucket")
        with pytest.raises(
            sagemaker.exceptions.ResourceLimitExceeded,
            match=r"'ml\.m5\.large for transform job usage' is 1 Instances, with current "
            "utilization of 1 Instances and a request delta of 1 Instances",
        ):
            sagemaker.create_transform_job(**second)

        machine = _machine(second)
        machine["States"]["Job"]["Retry"] = [
            {
                "ErrorEquals": ["SageMaker.ResourceLimitExceededException"],
                "IntervalSeconds": 5,
                "BackoffRate": 1,
                "MaxAttempts": 90,
            }
        ]
        waiting = run_machine(cloud, "waiting", machine, wait=False)
        sagemaker.stop_transform_job(TransformJobName="first")
        states = cloud.client("stepfunctions")
        wait_until(
            lambda: (
                states.describe_execution(executionArn=waiting["executionArn"])["status"]
                == "SUCCEEDED"
            )
        )


def test_a_job_in_flight_has_failed_after_a_restart(tmp_path: Path, image_dir: Path) -> None:
    with LocalCloud(state_dir=tmp_path) as first:
        first.images.register("capitals:1", image_dir)
        first.client("s3").create_bucket(Bucket="kept-bucket")
        sagemaker = first.client("sagemaker")
        sagemaker.create_model(
            ModelName="kept", PrimaryContainer={"Image": "capitals:1"}, ExecutionRoleArn=ROLE
        )
        _drop(first, "kept-bucket", "cut-off", a=b"SLOW\n")
        sagemaker.create_transform_job(**transform_request("cut-off", "kept", "kept-bucket"))
        wait_until(lambda: len(cloud_processes.family(first.marker)) >= 3)
    assert cloud_processes.family(first.marker) == set()
    with LocalCloud(state_dir=tmp_path) as second:
        job = second.client("sagemaker").describe_transform_job(TransformJobName="cut-off")
        assert job["TransformJobStatus"] == "Failed"
        assert job["FailureReason"].startswith("InternalServerError: We encountered")
        second.client("sagemaker").create_transform_job(
            **transform_request(
                "goes-on",
                "kept",
                "kept-bucket",
                TransformInput=transform_request("cut-off", "", "kept-bucket")["TransformInput"],
            )
        )
