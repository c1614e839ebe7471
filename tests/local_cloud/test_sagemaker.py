"""The SageMaker API and transform jobs, against a model server of the standard library."""

import json
import os
import re
import signal
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
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


def _call(cloud: LocalCloud, operation: str, body: object) -> tuple[int, dict[str, Any]]:
    """Call the API as it is on the wire, with nothing checked before."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {
        "X-Amz-Target": f"SageMaker.{operation}",
        "Content-Type": "application/x-amz-json-1.1",
    }
    try:
        with urllib.request.urlopen(
            urllib.request.Request(cloud.endpoint, data, headers), timeout=20
        ) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def _changes(
    cloud: LocalCloud, queue: Callable[[str], Queue], name: str
) -> Callable[[int], list[dict[str, Any]]]:
    """Listen to the job of that name; returns how to receive so many of its events."""
    changes, events = queue(f"changes-{name}"), cloud.client("events")
    pattern = {
        "source": ["aws.sagemaker"],
        "detail-type": ["SageMaker Transform Job State Change"],
        "detail": {"TransformJobName": [name]},
    }
    events.put_rule(Name=f"changes-{name}", EventPattern=json.dumps(pattern))
    events.put_targets(Rule=f"changes-{name}", Targets=[{"Id": "queue", "Arn": changes.arn}])
    return changes.receive


def test_a_job_scores_its_objects_and_describe_shows_the_defaults_that_are_written_back(
    cloud: LocalCloud, model: str, bucket: str
) -> None:
    _drop(cloud, bucket, "scores", a=b"1,x\n2,y\n", b=b"3,z\n")
    request = transform_request("scores", model, bucket)
    # The service ignores a member that it does not have.
    _, created = _call(cloud, "CreateTransformJob", {**request, "SpotInstances": True})
    _wait(cloud, "scores")
    _, job = _call(cloud, "DescribeTransformJob", {"TransformJobName": "scores"})

    assert _output(cloud, bucket, "scores") == {
        "a.csv.out": b"1,X\n2,Y\n",
        "b.csv.out": b"3,Z\n",
    }
    times = [job.pop(f"{name}Time") for name in ("Creation", "TransformStart", "TransformEnd")]
    assert times == sorted(times)
    assert all(time == round(time, 3) > 1_000_000_000 for time in times)
    assert any(time % 1 for time in times), "milliseconds are lost"
    assert job == {
        **request,
        **created,
        "TransformJobArn": "arn:aws:sagemaker:us-east-1:000000000000:transform-job/scores",
        "TransformJobStatus": "Completed",
        "TransformInput": {**request["TransformInput"], "CompressionType": "None"},
        "TransformOutput": {**request["TransformOutput"], "KmsKeyId": ""},
        "DataProcessing": {"InputFilter": "$", "OutputFilter": "$", "JoinSource": "None"},
    }


def test_describe_shows_every_member_of_the_request_but_its_tags(
    cloud: LocalCloud, model: str, bucket: str
) -> None:
    _drop(cloud, bucket, "fullest", a=b"1,x\n")
    request = transform_request(
        "fullest",
        model,
        bucket,
        MaxConcurrentTransforms=2,
        MaxPayloadInMB=1,
        BatchStrategy="SingleRecord",
        ModelClientConfig={"InvocationsTimeoutInSeconds": 60, "InvocationsMaxRetries": 0},
        Environment={"COLOUR": "red"},
        DataProcessing={"InputFilter": "$[0]", "OutputFilter": "$[0,1]", "JoinSource": "Input"},
        DataCaptureConfig={
            "DestinationS3Uri": f"s3://{bucket}/fullest/captured",
            "GenerateInferenceId": False,
        },
        ExperimentConfig={"ExperimentName": "autumn", "RunName": "nightly"},
        Tags=[{"Key": "team", "Value": "churn"}],
    )
    request["TransformOutput"]["Accept"] = "text/csv"
    cloud.client("sagemaker").create_transform_job(**request)
    assert _wait(cloud, "fullest")["TransformJobStatus"] == "Completed"
    _, job = _call(cloud, "DescribeTransformJob", {"TransformJobName": "fullest"})

    del request["Tags"]
    request["TransformInput"]["CompressionType"] = "None"
    request["TransformOutput"]["KmsKeyId"] = ""
    assert {member: job[member] for member in request} == request
    assert "Tags" not in job


def test_each_change_of_a_jobs_status_is_an_event(
    cloud: LocalCloud, model: str, bucket: str, queue: Callable[[str], Queue]
) -> None:
    receive = _changes(cloud, queue, "told")
    _drop(cloud, bucket, "told", a=b"FAIL\n")
    request = transform_request(
        "told",
        model,
        bucket,
        MaxPayloadInMB=1,
        Environment={"A": "b"},
        Tags=[{"Key": "team", "Value": "churn"}],
    )
    cloud.client("sagemaker").create_transform_job(**request)
    _wait(cloud, "told")
    began, ended = receive(2)

    arn = "arn:aws:sagemaker:us-east-1:000000000000:transform-job/told"
    for event, status in ((began, "InProgress"), (ended, "Failed")):
        assert event["resources"] == [arn]
        assert event["account"] == "000000000000"
        assert event["region"] == "us-east-1"
        detail = event["detail"]
        assert detail["TransformJobStatus"] == status
        assert detail["TransformJobArn"] == arn
        assert detail["Tags"] == {"team": "churn"}
        assert detail["TransformInput"]["CompressionType"] == "None"
        for member in ("TransformResources", "ModelName", "MaxPayloadInMB", "Environment"):
            assert detail[member] == request[member]
        times = [text for member, text in detail.items() if member.endswith("Time")]
        assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{3}Z", text) for text in times)
    assert began["detail"].keys() & {"TransformEndTime", "FailureReason"} == set()
    assert ended["detail"]["TransformEndTime"] > ended["detail"]["CreationTime"]
    assert ended["detail"]["FailureReason"] == "ClientError: See job logs for more information"


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
    cloud: LocalCloud, model: str, bucket: str, queue: Callable[[str], Queue]
) -> None:
    receive = _changes(cloud, queue, "halted")
    before = cloud_processes.family(cloud.marker)
    _drop(cloud, bucket, "halted", quick=b"1\n", slow=b"SLOW\n")
    sagemaker = cloud.client("sagemaker")
    sagemaker.create_transform_job(**transform_request("halted", model, bucket))
    wait_until(lambda: len(cloud_processes.family(cloud.marker) - before) >= 2)

    sagemaker.stop_transform_job(TransformJobName="halted")

    assert _wait(cloud, "halted")["TransformJobStatus"] == "Stopped"
    assert _output(cloud, bucket, "halted") == {}
    wait_until(lambda: not cloud_processes.family(cloud.marker) - before)
    states = [event["detail"]["TransformJobStatus"] for event in receive(3)]
    assert states == ["InProgress", "Stopping", "Stopped"]
    with pytest.raises(
        ClientError,
        match=r"ValidationException.* The request was rejected because the transform job is in "
        r"status Stopped\.",
    ):
        sagemaker.stop_transform_job(TransformJobName="halted")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param(
            {"ModelName": "nobody"},
            'Could not find model "arn:aws:sagemaker:us-east-1:000000000000:model/nobody".',
            id="unknown model",
        ),
        pytest.param(
            {"MaxConcurrentTransforms": 20, "MaxPayloadInMB": 6},
            "MaxConcurrentTransforms * MaxPayloadInMB must be at most 100, got 20 * 6; "
            "lower one of them",
            id="too much at once",
        ),
        pytest.param(
            {"MaxPayloadInMB": 101},
            "MaxPayloadInMB must be at most 100, got 101; lower it, or give 0 to send payloads of "
            "any size in chunks",
            id="payloads too big",
        ),
        pytest.param(
            {
                "TransformOutput": {"S3OutputPath": "s3://b/o", "Accept": "application/jsonlines"},
                "DataProcessing": {"OutputFilter": "$['a_b']"},
            },
            """Invalid OutputFilter: "$['a_b']". Unexpected "_" in JsonPath. Supported """
            """operators for "application/jsonlines" are """
            """['$', '[', ']', '*', '.', ' ', ',', ':', '-', ''']""",
            id="a filter that AWS refuses",
        ),
        pytest.param(
            {
                "TransformResources": {
                    "InstanceType": "ml.g5.xlarge",
                    "InstanceCount": 1,
                    "VolumeKmsKeyId": "alias/mine",
                }
            },
            "TransformResources.VolumeKmsKeyId must be absent for instance types with local "
            "storage (g4dn, g5, g6, g6e, trn1), got it with ml.g5.xlarge; remove it, because those "
            "encrypt in hardware",
            id="a key for disks that have one",
        ),
        pytest.param(
            {"TransformOutput": {}},
            "1 validation error detected: Value null at 'transformOutput.s3OutputPath' failed to "
            "satisfy constraint: Member must not be null",
            id="missing member",
        ),
        pytest.param(
            {"TransformOutput": {"S3OutputPath": "https://s3.amazonaws.com/b/o"}},
            "a place in the local cloud's S3 must be an s3:// URI, got "
            "https://s3.amazonaws.com/b/o; write s3://bucket/key",
            id="another address of S3",
        ),
    ],
)
def test_refuses_what_the_service_refuses(
    cloud: LocalCloud, model: str, bucket: str, changes: Any, message: str
) -> None:
    _drop(cloud, bucket, "refused", a=b"1\n")
    request = transform_request("refused", model, bucket, **changes)
    assert _call(cloud, "CreateTransformJob", request) == (
        400,
        {"__type": "ValidationException", "message": message},
    )
    assert _call(cloud, "DescribeTransformJob", {"TransformJobName": "refused"})[0] == 400


@pytest.mark.parametrize(
    ("operation", "body", "code"),
    [
        pytest.param("DescribeModel", b"{", "SerializationException", id="half of a body"),
        pytest.param("DescribeModel", b"\xff", "SerializationException", id="no text"),
        pytest.param("DescribeModel", b"[" * 100_000, "SerializationException", id="too deep"),
        pytest.param("DescribeModel", b"[]", "SerializationException", id="another type"),
        pytest.param("DescribeModel", b"", "ValidationException", id="no body"),
        pytest.param("CreateEndpoint", b"{}", "UnknownOperationException", id="another operation"),
        pytest.param(
            "ListModels", {"NextToken": "x"}, "ValidationException", id="no page of models"
        ),
        pytest.param(
            "ListTransformJobs", {"NextToken": "x"}, "ValidationException", id="no page of jobs"
        ),
    ],
)
def test_refuses_what_it_cannot_read(
    cloud: LocalCloud, operation: str, body: object, code: str
) -> None:
    status, answer = _call(cloud, operation, body)
    assert (status, answer["__type"]) == (400, code)


def test_refuses_a_job_without_input_objects(cloud: LocalCloud, model: str, bucket: str) -> None:
    with pytest.raises(ClientError) as refused:
        cloud.client("sagemaker").create_transform_job(**transform_request("empty", model, bucket))
    assert refused.value.response["Error"] == {
        "Code": "ValidationException",
        "Message": 'No S3 objects found under S3 URL "s3://shared-bucket/empty/in/" given in input '
        "data source. Please ensure that the bucket exists in the selected region (us-east-1), "
        f'that objects exist under that S3 prefix, and that the role "{ROLE}" has '
        '"s3:ListBucket" permissions on bucket "shared-bucket".',
    }


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
        pytest.param(
            {
                "Containers": [{"Image": "capitals:1"}] * 2,
                "InferenceExecutionConfig": {"Mode": "Direct"},
            },
            "must be Serial, got Direct",
            id="containers that are called one by one",
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


def test_models_are_kept_until_they_are_deleted(cloud: LocalCloud, model: str) -> None:
    sagemaker = cloud.client("sagemaker")
    request: dict[str, Any] = {
        "ModelName": "short-lived",
        "Containers": [
            {"Image": "capitals:1", "ContainerHostname": "one", "Environment": {"A": "1"}},
            {"Image": "capitals:1", "ContainerHostname": "two"},
        ],
        "ExecutionRoleArn": ROLE,
        "VpcConfig": {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]},
        "EnableNetworkIsolation": True,
    }
    created = sagemaker.create_model(**request)

    described = sagemaker.describe_model(ModelName="short-lived")
    assert {member: described[member] for member in request} == request
    assert described["ModelArn"] == created["ModelArn"]
    with pytest.raises(ClientError, match=r'already existing model "arn:.*model/short-lived"'):
        sagemaker.create_model(**request)
    sagemaker.delete_model(ModelName="short-lived")
    for call in (sagemaker.describe_model, sagemaker.delete_model):
        with pytest.raises(ClientError, match=r'Could not find model "arn:.*model/short-lived"'):
            call(ModelName="short-lived")


def test_models_are_listed_by_filter_order_and_page(cloud: LocalCloud, model: str) -> None:
    sagemaker = cloud.client("sagemaker")
    for name in ("listed-b", "listed-c", "listed-a"):
        sagemaker.create_model(ModelName=name, PrimaryContainer={"Image": "capitals:1"})

    def names(**asked: Any) -> list[str]:
        _, answer = _call(cloud, "ListModels", {"NameContains": "listed-", **asked})
        return [listed["ModelName"].removeprefix("listed-") for listed in answer["Models"]]

    assert names() == ["a", "c", "b"]
    assert names(SortBy="Name", SortOrder="Ascending") == ["a", "b", "c"]
    (middle,) = _call(cloud, "ListModels", {"NameContains": "listed-c"})[1]["Models"]
    assert middle.keys() == {"ModelName", "ModelArn", "CreationTime"}
    assert names(CreationTimeAfter=middle["CreationTime"]) == ["a"]
    assert names(CreationTimeBefore=middle["CreationTime"]) == ["b"]
    pages = sagemaker.get_paginator("list_models").paginate(
        NameContains="listed-", PaginationConfig={"PageSize": 2}
    )
    assert [len(page["Models"]) for page in pages] == [2, 1]


def test_tags_are_added_listed_replaced_and_deleted(cloud: LocalCloud, model: str) -> None:
    sagemaker = cloud.client("sagemaker")
    request: dict[str, Any] = {
        "ModelName": "tagged",
        "PrimaryContainer": {"Image": "capitals:1"},
        "Tags": [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}],
    }
    arn = sagemaker.create_model(**request)["ModelArn"]

    def tags() -> dict[str, str]:
        pages = sagemaker.get_paginator("list_tags").paginate(ResourceArn=arn)
        return {tag["Key"]: tag["Value"] for page in pages for tag in page["Tags"]}

    added = sagemaker.add_tags(
        ResourceArn=arn, Tags=[{"Key": "b", "Value": "3"}, {"Key": "c", "Value": ""}]
    )["Tags"]
    assert {tag["Key"]: tag["Value"] for tag in added} == {"a": "1", "b": "3", "c": ""}
    sagemaker.delete_tags(ResourceArn=arn, TagKeys=["a", "none"])
    assert tags() == {"b": "3", "c": ""}
    many = [{"Key": f"k{number}", "Value": ""} for number in range(49)]
    with pytest.raises(ClientError, match="at most 50 tags, got 51"):
        sagemaker.add_tags(ResourceArn=arn, Tags=many)
    assert tags() == {"b": "3", "c": ""}
    assert _call(cloud, "ListTags", {"ResourceArn": arn, "NextToken": "x"})[0] == 400

    sagemaker.delete_model(ModelName="tagged")
    with pytest.raises(ClientError, match=r"Could not find resource arn:.*:model/tagged"):
        sagemaker.list_tags(ResourceArn=arn)
    del request["Tags"]
    sagemaker.create_model(**request)
    assert tags() == {}


def test_a_template_may_write_the_values_of_a_model_as_another_type(
    cloud: LocalCloud, model: str
) -> None:
    formation = cloud.client("cloudformation")
    properties = {
        "PrimaryContainer": {
            "Image": "capitals:1",
            "Environment": {"WORKERS": 2, "DEBUG": False, "NAME": "x"},
        },
        "EnableNetworkIsolation": "true",
        "Tags": [{"Key": "year", "Value": 2026}],
    }
    template = {
        "Resources": {"Model": {"Type": "AWS::SageMaker::Model", "Properties": properties}},
        "Outputs": {
            "Name": {"Value": {"Fn::GetAtt": ["Model", "ModelName"]}},
            "Arn": {"Value": {"Ref": "Model"}},
        },
    }
    formation.create_stack(StackName="typed", TemplateBody=json.dumps(template))
    formation.get_waiter("stack_create_complete").wait(
        StackName="typed", WaiterConfig={"Delay": 0.1, "MaxAttempts": 100}
    )
    (stack,) = formation.describe_stacks(StackName="typed")["Stacks"]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    described = cloud.client("sagemaker").describe_model(ModelName=outputs["Name"])
    assert described["ModelArn"] == outputs["Arn"]
    container = described["PrimaryContainer"]
    assert container["Environment"] == {"WORKERS": "2", "DEBUG": "false", "NAME": "x"}
    assert described["EnableNetworkIsolation"] is True
    tags = cloud.client("sagemaker").list_tags(ResourceArn=described["ModelArn"])["Tags"]
    assert tags == [{"Key": "year", "Value": "2026"}]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        pytest.param(
            {"PrimaryContainer": {"ModelPackageName": "p"}}, "must have an Image", id="package"
        ),
        pytest.param({}, "exactly one of PrimaryContainer and Containers", id="no container"),
        pytest.param(
            {"PrimaryContainer": {"Image": "i"}, "Containers": [{"Image": "i"}]},
            "exactly one of PrimaryContainer and Containers",
            id="both ways",
        ),
        pytest.param(
            {
                "PrimaryContainer": {
                    "Image": "capitals:1",
                    "ModelDataUrl": "https://s3.amazonaws.com/b/m.tar.gz",
                }
            },
            "must be an s3:// URI, got https",
            id="another address of S3",
        ),
    ],
)
def test_refuses_a_model_that_the_local_cloud_cannot_have(
    cloud: LocalCloud, model: str, request_: dict[str, Any], message: str
) -> None:
    with pytest.raises(ClientError, match=message) as refused:
        cloud.client("sagemaker").create_model(ModelName="x", **request_)
    assert refused.value.response["Error"]["Code"] == "ValidationException"


def test_refuses_a_model_whose_image_is_not_registered(cloud: LocalCloud) -> None:
    with pytest.raises(ClientError, match=r"Requested image no/such:1 not found.*register"):
        cloud.client("sagemaker").create_model(
            ModelName="x", PrimaryContainer={"Image": "no/such:1"}, ExecutionRoleArn=ROLE
        )


def test_jobs_are_listed_by_filter_order_and_page(
    cloud: LocalCloud, model: str, bucket: str
) -> None:
    sagemaker = cloud.client("sagemaker")
    for name, body in (("page-b", b"1\n"), ("page-c", b"FAIL\n"), ("page-a", b"1\n")):
        _drop(cloud, bucket, name, a=body)
        sagemaker.create_transform_job(**transform_request(name, model, bucket))
    for name in ("page-a", "page-b", "page-c"):
        _wait(cloud, name)

    def listed(**asked: Any) -> list[dict[str, Any]]:
        answer = _call(cloud, "ListTransformJobs", {"NameContains": "page-", **asked})[1]
        summaries: list[dict[str, Any]] = answer["TransformJobSummaries"]
        return summaries

    def names(**asked: Any) -> str:
        return "".join(job["TransformJobName"].removeprefix("page-") for job in listed(**asked))

    assert names() == "acb"
    assert names(SortBy="Name", SortOrder="Ascending") == "abc"
    assert names(SortBy="Status", SortOrder="Ascending") == "abc"
    assert names(StatusEquals="Completed") == "ab"
    (middle,) = listed(StatusEquals="Failed")
    assert middle.keys() == {
        "TransformJobName",
        "TransformJobArn",
        "CreationTime",
        "TransformEndTime",
        "LastModifiedTime",
        "TransformJobStatus",
        "FailureReason",
    }
    for time in ("CreationTime", "LastModifiedTime"):
        later = names(**{f"{time}After": middle[time]})
        sooner = names(**{f"{time}Before": middle[time]})
        assert sorted(later + sooner) == ["a", "b"]
    pages = sagemaker.get_paginator("list_transform_jobs").paginate(
        NameContains="page-",
        SortBy="Name",
        SortOrder="Ascending",
        PaginationConfig={"PageSize": 2},
    )
    assert [
        [job["TransformJobName"] for job in page["TransformJobSummaries"]] for page in pages
    ] == [["page-a", "page-b"], ["page-c"]]


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


def test_a_member_that_step_functions_does_not_have_ends_the_execution(
    cloud: LocalCloud, model: str, bucket: str
) -> None:
    request = transform_request("odd-task", model, bucket, SpotInstances=True)
    ended = run_machine(cloud, "odd-task", _machine(request))

    assert (ended["status"], ended["error"], ended["cause"]) == (
        "FAILED",
        "States.Runtime",
        'The field "SpotInstances" is not supported by Step Functions',
    )


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


def _prepare(cloud: LocalCloud, image_dir: Path) -> Any:
    """Give a cloud of its own a bucket and the model `m`, and return its client for SageMaker."""
    cloud.images.register("capitals:1", image_dir)
    cloud.client("s3").create_bucket(Bucket="some-bucket")
    sagemaker = cloud.client("sagemaker")
    sagemaker.create_model(
        ModelName="m", PrimaryContainer={"Image": "capitals:1"}, ExecutionRoleArn=ROLE
    )
    return sagemaker


def test_refuses_a_job_over_the_quota_and_a_machine_can_wait_for_its_turn(
    image_dir: Path,
) -> None:
    with LocalCloud(instance_quota=1, wait_scale=0.1) as cloud:
        sagemaker = _prepare(cloud, image_dir)
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


def test_no_file_is_left_of_a_job_whose_server_is_killed(tmp_path: Path, image_dir: Path) -> None:
    def files() -> list[Path]:
        return [*tmp_path.rglob("spec.json")]

    with LocalCloud(state_dir=tmp_path) as cloud:
        sagemaker = _prepare(cloud, image_dir)
        _drop(cloud, "some-bucket", "slow", a=b"SLOW\n")
        sagemaker.create_transform_job(**transform_request("slow", "m", "some-bucket"))
        wait_until(lambda: files() != [])
        os.kill(cloud.server_pid, signal.SIGKILL)
    assert files() == []


def test_models_jobs_and_tags_outlive_a_restart_and_a_job_in_flight_has_failed(
    tmp_path: Path, image_dir: Path
) -> None:
    tags = [{"Key": "team", "Value": "churn"}]
    with LocalCloud(state_dir=tmp_path) as first:
        first.images.register("capitals:1", image_dir)
        first.client("s3").create_bucket(Bucket="kept-bucket")
        sagemaker = first.client("sagemaker")
        model_arn = sagemaker.create_model(
            ModelName="kept",
            PrimaryContainer={"Image": "capitals:1"},
            ExecutionRoleArn=ROLE,
            Tags=tags,
        )["ModelArn"]
        receive = _changes(first, lambda name: Queue(first, name), "cut-off")
        for name, body in (("whole", b"1\n"), ("cut-off", b"SLOW\n")):
            _drop(first, "kept-bucket", name, a=body)
            request = transform_request(name, "kept", "kept-bucket", Tags=tags)
            sagemaker.create_transform_job(**request)
        whole = _wait(first, "whole")
        assert [event["detail"]["TransformJobStatus"] for event in receive(1)] == ["InProgress"]
        wait_until(lambda: len(cloud_processes.family(first.marker)) >= 3)
        port = int(first.endpoint.rpartition(":")[2])  # It is in the URLs of queues.
    assert cloud_processes.family(first.marker) == set()
    with LocalCloud(state_dir=tmp_path, port=port) as second:
        sagemaker = second.client("sagemaker")
        described = sagemaker.describe_transform_job(TransformJobName="whole")
        del whole["ResponseMetadata"], described["ResponseMetadata"]
        assert described == whole
        assert sagemaker.list_tags(ResourceArn=whole["TransformJobArn"])["Tags"] == tags
        assert sagemaker.list_tags(ResourceArn=model_arn)["Tags"] == tags

        job = sagemaker.describe_transform_job(TransformJobName="cut-off")
        reason = "InternalServerError: We encountered an internal error. Please try again."
        assert (job["TransformJobStatus"], job["FailureReason"]) == ("Failed", reason)
        (event,) = Queue(second, "changes-cut-off").receive(1)
        assert event["resources"] == [job["TransformJobArn"]]
        assert event["detail"]["TransformJobStatus"] == "Failed"
        assert event["detail"]["FailureReason"] == reason
        assert event["detail"]["Tags"] == {"team": "churn"}

        again = transform_request("goes-on", "kept", "kept-bucket")
        again["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"] = "s3://kept-bucket/whole/in"
        sagemaker.create_transform_job(**again)
        assert _wait(second, "goes-on")["TransformJobStatus"] == "Completed"
        with pytest.raises(sagemaker.exceptions.ResourceInUse):
            sagemaker.create_transform_job(**again)
