import copy
from typing import Any

import pytest

from transform_request import InvalidRequest, validate, validate_model

_VALID: dict[str, Any] = {
    "TransformJobName": "job-1",
    "ModelName": "model",
    "TransformInput": {
        "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://data/in/"}},
        "ContentType": "text/csv",
        "SplitType": "Line",
    },
    "TransformOutput": {
        "S3OutputPath": "s3://data/out",
        "Accept": "text/csv",
        "AssembleWith": "Line",
    },
    "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
}


def _request(changes: dict[str, Any]) -> dict[str, Any]:
    """Return the valid request with members set by dotted name; None removes one."""
    request = copy.deepcopy(_VALID)
    for dotted, value in changes.items():
        *path, last = dotted.split(".")
        at = request
        for name in path:
            at = at.setdefault(name, {})
        if value is None:
            at.pop(last, None)
        else:
            at[last] = value
    return request


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="the least"),
        pytest.param({"MaxConcurrentTransforms": 10, "MaxPayloadInMB": 10}, id="product of 100"),
        pytest.param({"MaxConcurrentTransforms": 17}, id="product with the default is not checked"),
        pytest.param({"MaxPayloadInMB": 0, "MaxConcurrentTransforms": 200}, id="chunked"),
        pytest.param(
            {"DataProcessing": {"JoinSource": "Input", "OutputFilter": "$[0, -1]"}}, id="join"
        ),
        pytest.param({"ModelClientConfig.InvocationsMaxRetries": 0}, id="no retries"),
        pytest.param({"Tags": [{"Key": "équipe", "Value": ""}]}, id="tags"),
        pytest.param({"Environment": {"A": "1\n2"}}, id="environment"),
        pytest.param(
            {"TransformInput.SplitType": None, "BatchStrategy": "SingleRecord"},
            id="SingleRecord without a split",
        ),
    ],
)
def test_a_request_that_aws_takes_is_taken(changes: dict[str, Any]) -> None:
    validate(_request(changes))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        pytest.param({"ModelName": None}, "must have ModelName, got none; add", id="missing"),
        pytest.param({"Color": 1}, "got Color; remove it", id="unknown member"),
        pytest.param({"TransformJobName": "a" * 64}, "1 to 63 characters, got 64", id="long name"),
        pytest.param({"TransformJobName": "a_b"}, "letters, digits and inner", id="underscore"),
        pytest.param({"MaxPayloadInMB": 101}, "at most 100, got 101; lower it", id="payload"),
        pytest.param(
            {"MaxConcurrentTransforms": 11, "MaxPayloadInMB": 10}, "got 11 \\* 10", id="product"
        ),
        pytest.param(
            {"ModelClientConfig.InvocationsMaxRetries": 4}, "must be 0 to 3, got 4", id="retries"
        ),
        pytest.param(
            {"ModelClientConfig.InvocationsTimeoutInSeconds": True}, "whole number", id="boolean"
        ),
        pytest.param(
            {"TransformResources.InstanceType": "ml.t2.medium"}, "116 types", id="instance type"
        ),
        pytest.param({"TransformResources.InstanceCount": 101}, "at most 100", id="instances"),
        pytest.param(
            {
                "TransformResources.InstanceType": "ml.g5.xlarge",
                "TransformResources.VolumeKmsKeyId": "alias/k",
            },
            "must be absent for instance types with local storage",
            id="volume key on local storage",
        ),
        pytest.param(
            {"TransformInput.DataSource.S3DataSource.S3DataType": "Converse"},
            "one of ManifestFile, S3Prefix",
            id="data type of another API",
        ),
        pytest.param(
            {"TransformInput.DataSource.S3DataSource.S3DataType": "AugmentedManifestFile"},
            "one of ManifestFile, S3Prefix",
            id="augmented manifest",
        ),
        pytest.param(
            {"DataProcessing.OutputFilter": "$[0:2,246:]"}, "one range or only", id="two ranges"
        ),
        pytest.param(
            {
                "DataProcessing.OutputFilter": "$['account_id']",
                "TransformInput.ContentType": "application/jsonlines",
                "TransformOutput.Accept": "application/jsonlines",
            },
            'Unexpected "_" in JsonPath',
            id="underscore in a filter",
        ),
        pytest.param({"TransformOutput.S3OutputPath": "out/"}, "a URI such as s3://", id="no URI"),
        pytest.param({"Environment": {"1A": "x"}}, "a key of Environment", id="environment key"),
        pytest.param(
            {"Environment": dict.fromkeys("abcdefghijklmnopq", "")}, "at most 16", id="17"
        ),
        pytest.param(
            {"DataProcessing.JoinSource": "Input", "TransformOutput.Accept": "application/json"},
            "Accept must equal TransformInput.ContentType",
            id="join of two formats",
        ),
        pytest.param(
            {
                "DataProcessing.JoinSource": "Input",
                "TransformInput.SplitType": "None",
                "TransformOutput.AssembleWith": None,
            },
            "must both be Line when CSV is joined",
            id="join of CSV without lines",
        ),
        pytest.param(
            {"DataProcessing.JoinSource": "Input", "TransformOutput.AssembleWith": "None"},
            "SplitType must equal TransformOutput.AssembleWith",
            id="join with unequal split",
        ),
        pytest.param(
            {
                "DataProcessing.JoinSource": "Input",
                "TransformInput.ContentType": "image/png",
                "TransformOutput.Accept": "image/png",
            },
            "ContentType must be one of text/csv",
            id="join of images",
        ),
        pytest.param({"DataProcessing.InputFilter": "$.a"}, 'Unexpected "."', id="name in CSV"),
        pytest.param({"DataProcessing.InputFilter": "[0]"}, "write it like", id="no root"),
        pytest.param({"DataProcessing.InputFilter": "$" + "[0]" * 21}, "0 to 63", id="long filter"),
        pytest.param(
            {"DataProcessing.OutputFilter": "$[0,5:]"}, "one range or only", id="mixed bracket"
        ),
        pytest.param(
            {
                "DataCaptureConfig.DestinationS3Uri": "s3://b/c",
                "DataCaptureConfig.GenerateInferenceId": True,
                "TransformOutput.Accept": "image/png",
            },
            "when GenerateInferenceId is true",
            id="inference ids in images",
        ),
    ],
)
def test_fails_when_a_rule_is_broken(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidRequest, match=problem) as refusal:
        validate(_request(changes))
    for text in refusal.value.problems:
        assert "got " in text or text.startswith("Invalid ")


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(InvalidRequest) as refusal:
        validate(_request({"ModelName": None, "BatchStrategy": "Both"}))
    assert len(refusal.value.problems) == 2


def test_what_fails_only_at_run_time_is_taken_when_nothing_is_to_be_foreseen() -> None:
    validate(_request({"DataProcessing.OutputFilter": "$[0:2,246:]"}), foresee=False)


def test_a_partial_request_may_lack_members_but_not_break_rules() -> None:
    validate({"TransformInput": {"ContentType": "text/csv"}}, partial=True)
    validate({"DataProcessing": {"JoinSource": "Input", "InputFilter": "$[1:]"}}, partial=True)
    with pytest.raises(InvalidRequest, match="at most 100"):
        validate({"MaxPayloadInMB": 101}, partial=True)


def test_tokens_are_not_looked_at() -> None:
    request = _request(
        {
            "ModelName": "${Token[1]}",
            "TransformInput.ContentType": "${Token[2]}",
            "MaxPayloadInMB": "${Token[3]}",
            "MaxConcurrentTransforms": 20,
            "DataProcessing": {"JoinSource": "Input", "InputFilter": "$.a_b"},
            "Environment": {"${Token[4]}": "${Token[5]}"},
        }
    )
    validate(request, is_token=lambda value: isinstance(value, str) and "${Token" in value)


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        pytest.param(
            {"PrimaryContainer": {"ModelDataSource": {"S3DataSource": {}}}},
            "SageMaker Batch currently doesn't support Model entity with container definitions "
            "which use ModelDataSource attribute",
            id="model data source",
        ),
        pytest.param({"Containers": [{"Mode": "MultiModel"}]}, "SingleModel", id="multi model"),
        pytest.param({"InferenceExecutionConfig": {"Mode": "Direct"}}, "Serial", id="direct"),
    ],
)
def test_fails_when_batch_cannot_run_the_model(model: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidRequest, match=problem):
        validate_model(model)


def test_a_plain_model_and_a_serial_pipeline_are_taken() -> None:
    validate_model({"PrimaryContainer": {"Image": "i", "ModelDataUrl": "s3://b/m.tar.gz"}})
    validate_model({"Containers": [{"Image": "a"}, {"Image": "b"}]})
