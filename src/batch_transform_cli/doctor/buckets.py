"""Buckets that exist already: whether they are there, tell of uploads, and can be decrypted."""

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from batch_transform_cli.doctor.findings import Finding, fail, ok
from batch_transform_cli.doctor.needs import Bucket
from batch_transform_cli.doctor.reader import Absent
from batch_transform_cli.doctor.site import Check, Site

_NO_ENCRYPTION_OF_ITS_OWN = "AES256"


def events_finding(name: str, notifications: Mapping[str, Any], region: str) -> Finding:
    """Say whether a bucket sends its events to EventBridge."""
    if "EventBridgeConfiguration" in notifications:
        return ok("bucket", f"{name} sends its events to EventBridge")
    # The call replaces all that is there, so what is there is said again.
    whole = {
        **{key: value for key, value in notifications.items() if key.endswith("Configurations")},
        "EventBridgeConfiguration": {},
    }
    return fail(
        "bucket",
        f"{name} sends no events to EventBridge: no upload starts a run",
        "in the console: Properties, Amazon EventBridge, On; or\naws s3api "
        f"put-bucket-notification-configuration --bucket {name} --region {region} "
        f"--notification-configuration {shlex.quote(json.dumps(whole))}",
    )


def encryption_finding(name: str, encryption: Mapping[str, Any], keys: frozenset[str]) -> Finding:
    """Say whether the app knows the key of a bucket.

    :param keys: those that its templates name.
    """
    rules = encryption.get("Rules", [])
    default = rules[0].get("ApplyServerSideEncryptionByDefault", {}) if rules else {}
    algorithm = default.get("SSEAlgorithm", _NO_ENCRYPTION_OF_ITS_OWN)
    if algorithm == _NO_ENCRYPTION_OF_ITS_OWN:
        return ok("bucket", f"{name} is encrypted by S3's own key")
    key = default.get("KMSMasterKeyID", "")
    if any(each == key or each.endswith(f":key/{key}") for each in keys):
        return ok("bucket", f"{name} is encrypted with a key that the app names")
    return fail(
        "bucket",
        f"{name} is encrypted with {key or 'the key aws/s3'}, which no role of the app may use",
        "import the bucket with its encryption_key (Bucket.from_bucket_attributes; in "
        "pipelines.yaml: {name: NAME, encryption_key: ARN})",
    )


def _there(bucket: Bucket, site: Site) -> Iterator[Finding]:
    try:
        region = site.reader.read("s3", "head_bucket", Bucket=bucket.name).get("BucketRegion")
    except Absent:
        fix = f"mend the name, or\naws s3 mb s3://{bucket.name} --region {site.region}"
        yield fail("bucket", f"{bucket.name} of {bucket.owner} is not there", fix)
        return
    if region not in (None, site.region):
        yield fail(
            "bucket",
            f"{bucket.name} of {bucket.owner} is in {region}: transform jobs read and write in "
            "their own region",
            f"deploy the stack in {region}, or take a bucket of {site.region}",
        )
        return
    yield ok("bucket", f"{bucket.name} of {bucket.owner} can be listed")


def _events(bucket: Bucket, site: Site) -> Iterator[Finding]:
    found = _unless_absent(site, "get_bucket_notification_configuration", bucket)
    if found is not None:
        yield events_finding(bucket.name, found, site.region)


def _encryption(bucket: Bucket, site: Site) -> Iterator[Finding]:
    found = _unless_absent(site, "get_bucket_encryption", bucket)
    if found is not None:
        rules = found["ServerSideEncryptionConfiguration"]
        yield encryption_finding(bucket.name, rules, frozenset(site.needs.keys))


def _unless_absent(site: Site, operation: str, bucket: Bucket) -> Mapping[str, Any] | None:
    try:
        return site.reader.read("s3", operation, Bucket=bucket.name)
    except Absent:
        return None  # which the first check has told, or it has no such configuration


CHECKS = (
    Check(
        topic="bucket",
        items=lambda site: {each.name: each for each in site.needs.buckets},
        examine=_there,
    ),
    Check(
        topic="bucket",
        items=lambda site: {each.name: each for each in site.needs.buckets if each.events},
        examine=_events,
    ),
    Check(
        topic="bucket",
        items=lambda site: {each.name: each for each in site.needs.buckets},
        examine=_encryption,
        not_local="a local cloud encrypts nothing",
    ),
)
