"""The bucket into which S3 writes who has read and changed what in other buckets."""

from aws_cdk import CfnResource, RemovalPolicy
from constructs import Construct

from batch_transform.deployed import place_of
from batch_transform.statements import allow_services, refuse_plain_http

_OLD_VERSIONS_DAYS = 30
_UNFINISHED_DAYS = 7


def define_access_logs(scope: Construct, *, days: int) -> str:
    """Define the bucket and return its name.

    With S3's own key, because S3 delivers to no bucket that another encrypts by default
    (https://docs.aws.amazon.com/AmazonS3/latest/userguide/enable-server-access-logging.html).
    """
    place = place_of(scope)
    bucket = CfnResource(
        scope,
        "AccessLogs",
        type="AWS::S3::Bucket",
        properties={
            "BucketEncryption": {
                "ServerSideEncryptionConfiguration": [
                    {"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
                ]
            },
            "LifecycleConfiguration": {
                "Rules": [
                    {
                        "Id": "Expire",
                        "Status": "Enabled",
                        "ExpirationInDays": days,
                        "NoncurrentVersionExpiration": {"NoncurrentDays": _OLD_VERSIONS_DAYS},
                        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": _UNFINISHED_DAYS},
                    }
                ]
            },
            "OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]},
            "PublicAccessBlockConfiguration": {
                "BlockPublicAcls": True,
                "BlockPublicPolicy": True,
                "IgnorePublicAcls": True,
                "RestrictPublicBuckets": True,
            },
            "VersioningConfiguration": {"Status": "Enabled"},
        },
    )
    bucket.apply_removal_policy(RemovalPolicy.RETAIN)
    name, arn = bucket.ref, bucket.get_att("Arn").to_string()
    policy = CfnResource(
        scope,
        "AccessLogsPolicy",
        type="AWS::S3::BucketPolicy",
        properties={
            "Bucket": name,
            "PolicyDocument": {
                "Version": "2012-10-17",
                "Statement": [
                    refuse_plain_http("s3:*", arn, f"{arn}/*"),
                    allow_services(
                        "S3DeliversAccessLogs",
                        "logging.s3.amazonaws.com",
                        actions=["s3:PutObject"],
                        conditions={"StringEquals": {"aws:SourceAccount": place.account}},
                        resources=[f"{arn}/*"],
                    ),
                ],
            },
        },
    )
    policy.apply_removal_policy(RemovalPolicy.RETAIN)
    return name
