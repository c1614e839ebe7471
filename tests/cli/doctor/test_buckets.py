"""Buckets that exist already."""

import json
import shlex
from typing import Any

import pytest

from batch_transform_cli.doctor.buckets import encryption_finding, events_finding

KEY = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd"


def test_a_bucket_that_tells_eventbridge_is_good() -> None:
    assert events_finding("in", {"EventBridgeConfiguration": {}}, "eu-west-1").level == "ok"


def test_the_remedy_keeps_the_notifications_that_are_there() -> None:
    others = [
        {"QueueArn": "arn:aws:sqs:eu-west-1:111122223333:q", "Events": ["s3:ObjectCreated:*"]}
    ]
    found = events_finding("in", {"QueueConfigurations": others}, "eu-west-1")

    assert found.level == "fail"
    command = shlex.split(found.fix.splitlines()[1])
    assert command[:3] == ["aws", "s3api", "put-bucket-notification-configuration"]
    assert json.loads(command[-1]) == {
        "QueueConfigurations": others,
        "EventBridgeConfiguration": {},
    }


@pytest.mark.parametrize(
    ("default", "level"),
    [
        pytest.param({"SSEAlgorithm": "AES256"}, "ok", id="S3's own"),
        pytest.param({"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": KEY}, "ok", id="known"),
        pytest.param({"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "1234abcd"}, "ok", id="by id"),
        pytest.param({"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "5678"}, "fail", id="another"),
        pytest.param({"SSEAlgorithm": "aws:kms"}, "fail", id="aws/s3"),
    ],
)
def test_the_app_has_to_know_the_key_of_a_bucket(default: dict[str, Any], level: str) -> None:
    rules = {"Rules": [{"ApplyServerSideEncryptionByDefault": default}]}
    assert encryption_finding("in", rules, frozenset({KEY})).level == level
