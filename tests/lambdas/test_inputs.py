"""Whether a drop is still what its key holds."""

from typing import Any

import boto3

from transform_lambdas.drops import Drop
from transform_lambdas.inputs import Inputs

World = Any  # conftest's


def test_a_drop_is_overtaken_by_the_next_version_of_its_key_and_not_by_its_removal(
    world: World,
) -> None:
    first = world.drop("input/a.csv", b"1\n")
    inputs = Inputs(world.s3, "input-bucket")
    assert not inputs.is_overtaken(first)

    second = world.drop("input/a.csv", b"2\n")
    assert inputs.is_overtaken(first)
    assert not inputs.is_overtaken(second)

    world.s3.delete_object(Bucket="input-bucket", Key="input/a.csv")
    assert not inputs.is_overtaken(second)


def test_without_versions_the_content_tells() -> None:
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="plain")
    etag = s3.put_object(Bucket="plain", Key="a", Body=b"1\n")["ETag"].strip('"')
    drop = Drop(
        key="a", order="0", size=2, etag=etag, version_id="", dropped_at="2026-03-01T12:00:00.000Z"
    )
    inputs = Inputs(s3, "plain")
    assert not inputs.is_overtaken(drop)

    s3.put_object(Bucket="plain", Key="a", Body=b"2\n")
    assert inputs.is_overtaken(drop)
