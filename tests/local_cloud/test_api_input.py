"""What the API takes of a request, and the service's words for what it refuses."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.loaders import create_loader
from botocore.model import ServiceModel, Shape

from local_cloud import api_input
from local_cloud.refusals import Refusal

from .conftest import transform_request

ARN = "arn:aws:sagemaker:us-east-1:000000000000:model/m"
OPERATIONS = (
    "CreateModel",
    "DescribeModel",
    "DeleteModel",
    "ListModels",
    "CreateTransformJob",
    "DescribeTransformJob",
    "ListTransformJobs",
    "StopTransformJob",
    "AddTags",
    "ListTags",
    "DeleteTags",
)
TAG_PATTERN = r"Member must satisfy regular expression pattern: ([\p{L}\p{Z}\p{N}_.:/=+\-@]*)"


def job(**changes: Any) -> dict[str, Any]:
    return transform_request("a-job", "a-model", "a-bucket", **changes)


def value(at: str, shown: str, constraint: str) -> str:
    return f"Value {shown} at '{at}' failed to satisfy constraint: {constraint}"


@pytest.mark.parametrize(
    ("operation", "request_", "violations"),
    [
        pytest.param(
            "CreateTransformJob",
            job(TransformJobName="a_job"),
            [
                value(
                    "transformJobName",
                    "'a_job'",
                    "Member must satisfy regular expression pattern: "
                    "[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}",
                )
            ],
            id="pattern",
        ),
        pytest.param(
            "CreateTransformJob",
            {},
            [
                value(member, "null", "Member must not be null")
                for member in (
                    "transformJobName",
                    "modelName",
                    "transformInput",
                    "transformOutput",
                    "transformResources",
                )
            ],
            id="all that is missing, at once",
        ),
        pytest.param(
            "CreateTransformJob",
            job(TransformOutput={"S3OutputPath": None}),
            [value("transformOutput.s3OutputPath", "null", "Member must not be null")],
            id="null inside a structure",
        ),
        pytest.param(
            "CreateTransformJob",
            job(MaxPayloadInMB=-1),
            [value("maxPayloadInMB", "'-1'", "Member must have value greater than or equal to 0")],
            id="number too small",
        ),
        pytest.param(
            "CreateTransformJob",
            job(ModelClientConfig={"InvocationsMaxRetries": 4}),
            [
                value(
                    "modelClientConfig.invocationsMaxRetries",
                    "'4'",
                    "Member must have value less than or equal to 3",
                )
            ],
            id="number too big",
        ),
        pytest.param(
            "CreateTransformJob",
            job(BatchStrategy="Some"),
            [
                value(
                    "batchStrategy",
                    "'Some'",
                    "Member must satisfy enum value set: [MultiRecord, SingleRecord]",
                )
            ],
            id="enum",
        ),
        pytest.param(
            "CreateTransformJob",
            job(DataProcessing={"InputFilter": "$" * 64}),
            [
                value(
                    "dataProcessing.inputFilter",
                    f"'{'$' * 64}'",
                    "Member must have length less than or equal to 63",
                )
            ],
            id="text too long",
        ),
        pytest.param(
            "CreateTransformJob",
            job(Environment={"1st": "x"}),
            [
                value(
                    "environment",
                    "'{1st=x}'",
                    "Map keys must satisfy constraint: [Member must have length less than or equal "
                    "to 1024, Member must have length greater than or equal to 0, Member must "
                    "satisfy regular expression pattern: [a-zA-Z_][a-zA-Z0-9_]{0,1023}]",
                )
            ],
            id="key of a map",
        ),
        pytest.param(
            "CreateTransformJob",
            job(Environment={"A": "x" * 10241}),
            [
                value(
                    "environment",
                    f"'{{A={'x' * 10241}}}'",
                    "Map value must satisfy constraint: [Member must have length less than or "
                    "equal to 10240, Member must have length greater than or equal to 0, Member "
                    r"must satisfy regular expression pattern: [\S\s]*]",
                )
            ],
            id="value of a map",
        ),
        pytest.param(
            "AddTags",
            {"ResourceArn": ARN, "Tags": [{"Key": "a b", "Value": "é1"}, {"Key": "*"}]},
            [
                value("tags.2.member.key", "'*'", TAG_PATTERN),
                value("tags.2.member.value", "null", "Member must not be null"),
            ],
            id="structures of a list",
        ),
        pytest.param(
            "CreateModel",
            {"ModelName": "m", "Containers": [{"Image": "i"}] * 16},
            [
                value(
                    "containers",
                    "'[" + ", ".join(["ContainerDefinition(image=i)"] * 16) + "]'",
                    "Member must have length less than or equal to 15",
                )
            ],
            id="list too long",
        ),
        pytest.param(
            "DeleteTags",
            {"ResourceArn": ARN, "TagKeys": ["a", ""]},
            [
                value(
                    "tagKeys",
                    "'[a, ]'",
                    "Member must satisfy constraint: [Member must have length less than or equal "
                    "to 128, Member must have length greater than or equal to 1, "
                    + TAG_PATTERN
                    + "]",
                )
            ],
            id="strings of a list",
        ),
        pytest.param(
            "ListTransformJobs",
            {"MaxResults": 101, "SortBy": "Size"},
            [
                value(
                    "sortBy",
                    "'Size'",
                    "Member must satisfy enum value set: [Name, CreationTime, Status]",
                ),
                value("maxResults", "'101'", "Member must have value less than or equal to 100"),
            ],
            id="listing",
        ),
        pytest.param(
            "ListTags",
            {"ResourceArn": ARN, "MaxResults": 49},
            [value("maxResults", "'49'", "Member must have value greater than or equal to 50")],
            id="page of tags",
        ),
    ],
)
def test_names_every_limit_that_a_request_breaks(
    operation: str, request_: dict[str, Any], violations: list[str]
) -> None:
    errors = "error" if len(violations) == 1 else "errors"
    with pytest.raises(Refusal) as refused:
        api_input.accept(operation, request_)
    assert refused.value.code == "ValidationException"
    assert refused.value.message == (
        f"{len(violations)} validation {errors} detected: {'; '.join(violations)}"
    )


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        pytest.param(job(MaxPayloadInMB="6"), "STRING_VALUE can not be converted to an Integer"),
        pytest.param(job(MaxPayloadInMB=1.5), "DECIMAL_VALUE can not be converted to an Integer"),
        pytest.param(job(MaxPayloadInMB=True), "TRUE_VALUE can not be converted to an Integer"),
        pytest.param(job(ModelName=5), "NUMBER_VALUE can not be converted to a String"),
        pytest.param(job(ModelName=["m"]), "Start of list found where not expected"),
        pytest.param(
            job(ModelName={"m": 1}), "Start of structure or map found where not expected."
        ),
        pytest.param(job(Environment="A=b"), "Expected map or null"),
        pytest.param(job(Tags="team"), "Expected list or null"),
        pytest.param(job(TransformInput="s3://b/k"), "Expected null"),
        pytest.param([], "Start of list found where not expected"),
        pytest.param("text", "Expected null"),
    ],
    ids=json.dumps,
)
def test_refuses_another_json_type(request_: Any, message: str) -> None:
    with pytest.raises(Refusal) as refused:
        api_input.accept("CreateTransformJob", request_)
    assert (refused.value.code, refused.value.message) == ("SerializationException", message)


def test_a_null_or_unknown_member_is_as_if_it_were_not_there() -> None:
    request = job(BatchStrategy=None, Unknown=1)
    request["TransformInput"] = {**request["TransformInput"], "Other": 1}
    assert api_input.accept("CreateTransformJob", request) == job()


def test_an_unknown_member_is_found_however_deep_it_is() -> None:
    deep = job(Environment={"Any": "name"}, Tags=[{"Key": "a", "Value": "b", "Colour": "red"}])
    assert api_input.unknown_member("CreateTransformJob", job()) is None
    assert api_input.unknown_member("CreateTransformJob", deep) == "Colour"


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_type_and_pattern_of_the_services_model_is_understood(operation: str) -> None:
    """Fails when the model of a new botocore has what we cannot read."""
    model = ServiceModel(create_loader().load_service_model("sagemaker", "service-2"), "sagemaker")

    def parts(shape: Shape) -> Iterator[Shape]:
        yield shape
        for name in ("member", "key", "value"):
            if shape.type_name in ("list", "map") and hasattr(shape, name):
                yield from parts(getattr(shape, name))
        for member in getattr(shape, "members", {}).values():
            yield from parts(member)

    for shape in parts(model.operation_model(operation).input_shape):
        assert shape.type_name in (*api_input.TYPES, "structure", "list", "map")
        if "pattern" in shape.metadata:
            api_input.pattern(shape.metadata["pattern"])
