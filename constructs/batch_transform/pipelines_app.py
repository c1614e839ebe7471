"""The pipelines of a YAML file as stacks: one for each pipeline, and a stage for each account.

A stack each, so that a pipeline that is added or removed moves no other, and a deployment that
fails is rolled back alone.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from aws_cdk import (
    Annotations,
    Environment,
    PermissionsBoundary,
    RemovalPolicy,
    Stack,
    Stage,
    TimeZone,
)
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_scheduler as scheduler
from constructs import Construct

from batch_transform.account_facts import ACCESS_LOG_BUCKET, KEY_ARN, parameter_name
from batch_transform.account_imports import note_of_account
from batch_transform.accounts_file import Account
from batch_transform.log_retention import LOG_RETENTION
from batch_transform.pipeline import BatchTransform
from batch_transform.pipelines_file import load
from batch_transform.yaml_existing import (
    BucketEntry,
    RepositoryEntry,
    ScheduleEntry,
    SsmParameter,
)

if TYPE_CHECKING:
    from aws_cdk import aws_ec2 as ec2
    from aws_cdk import aws_lambda as lambda_
    from aws_cdk import aws_sns as sns

_T = TypeVar("_T")
_Resource = TypeVar("_Resource", kms.IKey, s3.IBucket)
Named = str | SsmParameter


def define_pipelines(scope: Construct, path: Path, accounts: Path | None = None) -> None:
    """Define a stack for each pipeline of the file at `path`; with accounts, in a stage for each.

    :param accounts: the file of accounts. Default: `accounts.yaml` beside `path`, if it is there.
    :raises YamlError: the files, or what they ask for, are not valid.
    """
    for deployment in load(path, accounts):
        stacks = scope
        if deployment.account is not None:
            stacks = _stage(scope, str(deployment.stage), deployment.account)
        for name in deployment.members:
            stack = Stack(stacks, name)
            pipeline = deployment.read(name, _Existing(stack))
            try:
                defined = BatchTransform(stack, name, **pipeline.arguments)
            except ValueError as refused:
                raise deployment.refused(name, refused) from refused
            tags = {**(deployment.account.tags if deployment.account else {}), **pipeline.tags}
            for key, value in tags.items():
                stack.add_stack_tag(
                    key, value
                )  # which CloudFormation hands on to all that is in it
            for warning, reason in pipeline.acknowledge.items():
                Annotations.of(defined).acknowledge_warning(warning, reason)


def _stage(scope: Construct, name: str, account: Account) -> Stage:
    boundary = account.permissions_boundary
    return Stage(
        scope,
        name,
        env=Environment(account=account.account, region=account.region),
        permissions_boundary=None
        if boundary is None
        else PermissionsBoundary.from_arn(boundary)
        if boundary.startswith("arn:")
        else PermissionsBoundary.from_name(boundary),
    )


class _Existing:
    """What a program would import, made once in a stack."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._made: dict[str, Any] = {}

    def key(self, arn: Named) -> kms.IKey:
        return _noted(self._once(kms.Key.from_key_arn, arn), arn, KEY_ARN)

    def bucket(self, named: Named | BucketEntry) -> s3.IBucket:
        if not isinstance(named, BucketEntry) or named.encryption_key is None:
            name = named.name if isinstance(named, BucketEntry) else named
            bucket = self._once(s3.Bucket.from_bucket_name, name)
            return _noted(bucket, name, ACCESS_LOG_BUCKET)
        key = self.key(named.encryption_key)

        def make(stack: Stack, construct_id: str, name: str) -> s3.IBucket:
            return s3.Bucket.from_bucket_attributes(
                stack, construct_id, bucket_name=name, encryption_key=key
            )

        return self._once(make, named.name)

    # What few pipelines need is imported when one does: each takes a tenth of a second or more.

    def role(self, arn: Named) -> iam.IRole:
        return self._once(iam.Role.from_role_arn, arn)

    def repository(self, named: RepositoryEntry) -> ecr.IRepository:
        return self._once(ecr.Repository.from_repository_name, named.repository)

    def topic(self, arn: Named) -> "sns.ITopic":
        from aws_cdk import aws_sns as sns

        return self._once(sns.Topic.from_topic_arn, arn)

    def function(self, arn: Named) -> "lambda_.IFunction":
        from aws_cdk import aws_lambda as lambda_

        return self._once(lambda_.Function.from_function_arn, arn)

    def vpc(self, vpc_id: Named) -> "ec2.IVpc":
        from aws_cdk import aws_ec2 as ec2

        def make(stack: Stack, construct_id: str, name: str) -> ec2.IVpc:
            # CDK asks for the zones and nobody uses them: the subnets are named, too.
            return ec2.Vpc.from_vpc_attributes(
                stack, construct_id, vpc_id=name, availability_zones=["any"]
            )

        return self._once(make, vpc_id)

    def subnets(self, ids: Sequence[Named]) -> "ec2.SubnetSelection":
        from aws_cdk import aws_ec2 as ec2

        def make(stack: Stack, construct_id: str, name: str) -> ec2.ISubnet:
            # As with the zones of the VPC: without the others CDK warns, or refuses.
            return ec2.Subnet.from_subnet_attributes(
                stack, construct_id, subnet_id=name, availability_zone="any", route_table_id="any"
            )

        return ec2.SubnetSelection(subnets=[self._once(make, each) for each in ids])

    def security_group(self, group_id: Named) -> "ec2.ISecurityGroup":
        from aws_cdk import aws_ec2 as ec2

        return self._once(ec2.SecurityGroup.from_security_group_id, group_id)

    def schedule(self, when: str | ScheduleEntry) -> scheduler.ScheduleExpression:
        if isinstance(when, str):
            return scheduler.ScheduleExpression.expression(when)
        return scheduler.ScheduleExpression.expression(when.expression, TimeZone.of(when.time_zone))

    def removal_policy(self, name: str) -> RemovalPolicy:
        return RemovalPolicy[name]

    def log_retention(self, days: int) -> logs.RetentionDays:
        return logs.RetentionDays[LOG_RETENTION[days]]

    def _once(self, make: Callable[[Stack, str, str], _T], named: Named) -> _T:
        text = named if isinstance(named, str) else named.ssm
        construct_id = f"{make.__qualname__}-{text}"
        if construct_id not in self._made:
            if not isinstance(named, str):
                from aws_cdk import aws_ssm as ssm

                text = ssm.StringParameter.value_for_string_parameter(self._stack, named.ssm)
            self._made[construct_id] = make(self._stack, construct_id, text)
        made: _T = self._made[construct_id]
        return made


def _noted(resource: _Resource, named: Named, fact: str) -> _Resource:
    """Return a resource, which is not warned of if it is what an account publishes as a fact."""
    if not isinstance(named, str) and named.ssm == parameter_name(fact):
        note_of_account(resource)
    return resource
