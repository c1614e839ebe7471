"""What a transform job reads and writes, which is all that its model's role may."""

from dataclasses import dataclass

from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3


@dataclass(frozen=True, kw_only=True, slots=True)
class JobData:
    """The data of one job, or of one kind of jobs.

    :ivar read: ARN patterns of objects and manifests.
    :ivar listed: the buckets in which the service looks whether there is anything to read.
    :ivar written: ARN patterns of outputs.
    :ivar keys: the KMS keys of all that.
    """

    read: tuple[str, ...]
    listed: tuple[str, ...]
    written: tuple[str, ...]
    keys: tuple[kms.IKey, ...]


def distinct_keys(*keys: kms.IKey | None) -> tuple[kms.IKey, ...]:
    """Return the keys that there are, each once."""
    return tuple({key.key_arn: key for key in keys if key is not None}.values())


def distinct_buckets(*buckets: s3.IBucket) -> tuple[str, ...]:
    """Return the ARNs of buckets, each once."""
    return tuple(dict.fromkeys(bucket.bucket_arn for bucket in buckets))
