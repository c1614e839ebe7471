"""What pipelines find of their account: what `AccountBaseline` has published there."""

from functools import cached_property
from typing import TYPE_CHECKING, cast

from aws_cdk import CfnParameter, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from constructs import Construct, IConstruct

from batch_transform.account_facts import (
    ACCESS_LOG_BUCKET,
    ALERT_TOPIC_ARN,
    BOUNDARY_ARN,
    KEY_ARN,
    SECURITY_GROUP_ID,
    VPC_ID,
    parameter_name,
    subnet_id,
    zone,
)
from batch_transform.account_imports import note_of_account
from batch_transform.names import pascal

if TYPE_CHECKING:
    from aws_cdk import aws_ec2 as ec2
    from aws_cdk import aws_sns as sns

_ID = "BatchTransformAccount"


class Account(Construct):
    """The key, topic, boundary, bucket and VPC of the account and region that a stack goes to.

    Each is read from SSM when the stack is deployed, and only if it is asked for:

        account = Account.of(stack)
        BatchTransform(
            stack,
            "Churn",
            …,
            encryption_key=account.key,
            access_logs=account.access_logs,
            monitoring=Monitoring(topic=account.alerts),
        )
    """

    def __init__(self, scope: Construct, construct_id: str) -> None:
        super().__init__(scope, construct_id)
        self._vpcs: dict[int, ec2.IVpc] = {}

    @classmethod
    def of(cls, scope: IConstruct) -> "Account":
        """Return the account of the stack that `scope` is in."""
        stack = Stack.of(scope)
        made = cast("Account | None", stack.node.try_find_child(_ID))
        return made or cls(stack, _ID)

    @cached_property
    def key(self) -> kms.IKey:
        """Encrypts what pipelines keep."""
        key = kms.Key.from_key_arn(self, "Key", self._read(KEY_ARN))
        note_of_account(key)
        return key

    @cached_property
    def alerts(self) -> "sns.ITopic":
        """Tells people of alarms."""
        from aws_cdk import aws_sns as sns

        return sns.Topic.from_topic_arn(self, "Alerts", self._read(ALERT_TOPIC_ARN))

    @cached_property
    def boundary(self) -> iam.IManagedPolicy:
        """The most that roles may have, for `iam.PermissionsBoundary.of(stack).apply(…)`."""
        return iam.ManagedPolicy.from_managed_policy_arn(self, "Boundary", self._read(BOUNDARY_ARN))

    @cached_property
    def access_logs(self) -> s3.IBucket:
        """Into which S3 writes who has read and changed what in other buckets."""
        bucket = s3.Bucket.from_bucket_name(self, "AccessLogs", self._read(ACCESS_LOG_BUCKET))
        note_of_account(bucket)
        return bucket

    def vpc(self, *, zones: int = 2) -> "ec2.IVpc":
        """Return the VPC, if the account was given one.

        :param zones: as many as the baseline's, since CDK has to know.
        """
        if zones not in self._vpcs:
            from aws_cdk import aws_ec2 as ec2

            numbers = range(1, zones + 1)
            # As private subnets: CDK warns of isolated ones, whose endpoints it cannot see here.
            self._vpcs[zones] = ec2.Vpc.from_vpc_attributes(
                self,
                f"Vpc{zones}",
                vpc_id=self._read(VPC_ID),
                availability_zones=[self._read(zone(number)) for number in numbers],
                private_subnet_ids=[self._read(subnet_id(number)) for number in numbers],
            )
        return self._vpcs[zones]

    @cached_property
    def https_only(self) -> "ec2.ISecurityGroup":
        """A security group of the VPC that lets HTTPS out and nothing in."""
        from aws_cdk import aws_ec2 as ec2

        return ec2.SecurityGroup.from_security_group_id(
            self, "HttpsOnly", self._read(SECURITY_GROUP_ID), mutable=False
        )

    def _read(self, fact: str) -> str:
        name = f"{pascal(fact)}Parameter"
        read = cast(CfnParameter | None, self.node.try_find_child(name))
        if read is None:
            read = CfnParameter(
                self,
                name,
                type="AWS::SSM::Parameter::Value<String>",
                default=parameter_name(fact),
            )
        return read.value_as_string
