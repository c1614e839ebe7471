"""What the values of a template come to."""

from typing import Any

import pytest

from batch_transform_cli.doctor.findings import Place
from batch_transform_cli.doctor.values import UNKNOWN, Values

VALUES = Values(
    Place(account="111122223333", region="eu-west-1"),
    {"Vpc": "vpc-1", "Subnets": ["subnet-1", "subnet-2"]},
)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("text", "text"),
        ({"Ref": "AWS::AccountId"}, "111122223333"),
        ({"Ref": "Vpc"}, "vpc-1"),
        ({"Ref": "Bucket"}, UNKNOWN),
        ({"Fn::GetAtt": ["Role", "Arn"]}, UNKNOWN),
        ({"Fn::Join": ["", ["arn:", {"Ref": "AWS::Partition"}, ":x"]]}, "arn:aws:x"),
        ({"Fn::Join": ["", ["a", {"Ref": "Bucket"}]]}, UNKNOWN),
        ({"Fn::Sub": "b-${AWS::AccountId}-${AWS::Region}"}, "b-111122223333-eu-west-1"),
        ({"Fn::Sub": "${!kept} ${Vpc}"}, "${kept} vpc-1"),
        ({"Fn::Sub": "${Bucket}"}, UNKNOWN),
        ({"Fn::Select": [1, {"Ref": "Subnets"}]}, "subnet-2"),
        ({"Fn::Select": ["0", {"Fn::Split": [":", "a:b"]}]}, "a"),
        ({"Fn::Select": [7, ["a"]]}, UNKNOWN),
        ({"Fn::Select": [0, {"Fn::GetAZs": ""}]}, UNKNOWN),
        ([{"Ref": "Vpc"}, 1], ["vpc-1", 1]),
        ({"Name": {"Ref": "Vpc"}}, {"Name": "vpc-1"}),
    ],
)
def test_a_value_is_what_is_known_of_it(value: Any, found: Any) -> None:
    assert VALUES.of(value) == found


def test_a_document_has_a_mark_where_it_is_not_known() -> None:
    definition = {"Fn::Join": ["", ['{"a": "', {"Fn::GetAtt": ["Model", "ModelName"]}, '"}']]}
    assert VALUES.document(definition) == '{"a": "?Model"}'


@pytest.mark.parametrize(
    ("region", "partition", "suffix"),
    [
        ("cn-north-1", "aws-cn", "amazonaws.com.cn"),
        ("us-gov-west-1", "aws-us-gov", "amazonaws.com"),
    ],
)
def test_other_partitions_have_other_names(region: str, partition: str, suffix: str) -> None:
    values = Values(Place(account="111122223333", region=region), {})
    assert values.of({"Fn::Sub": "${AWS::Partition} ${AWS::URLSuffix}"}) == f"{partition} {suffix}"
