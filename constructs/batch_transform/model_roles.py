"""The execution role of a model: it runs the containers, and reads and writes for the jobs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from aws_cdk import Annotations
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from batch_transform.deployed import place_of
from batch_transform.networks import ModelVpc
from batch_transform.statements import Statement, allow, own_policy

S3_ENDPOINT_WARNING = "@batch-transform:modelS3Endpoint"

_MAX_SUBNETS = 16

if TYPE_CHECKING:
    # Importing it takes a tenth of a second, and few models are in a VPC.
    from aws_cdk import aws_ec2 as ec2


def execution_role(scope: Construct, statements: Iterable[Statement]) -> iam.Role:
    """Define the role; only models and transform jobs of this account may act as it."""
    place = place_of(scope)
    # A model is checked when it is made and used by jobs; nothing else may act as this role.
    callers = [place.arn("sagemaker", f"{resource}/*") for resource in ("model", "transform-job")]
    return iam.Role(
        scope,
        "Role",
        assumed_by=iam.ServicePrincipal(
            "sagemaker.amazonaws.com",
            conditions={
                "StringEquals": {"aws:SourceAccount": place.account},
                "ArnLike": {"aws:SourceArn": callers},
            },
        ),
        description="What the model's container may do in a transform job",
        inline_policies=own_policy(statements),
    )


def bind_vpc(
    scope: Construct, model_vpc: ModelVpc
) -> tuple[sagemaker.CfnModel.VpcConfigProperty, list[Statement]]:
    """Return the VPC as CreateModel has it, and what the role needs to connect to it.

    :raises ValueError: it has no such subnets, or too many.
    """
    vpc = model_vpc.vpc
    subnets = select_subnets(vpc, model_vpc.subnets)
    ids = list(subnets.subnet_ids)
    if not 1 <= len(ids) <= _MAX_SUBNETS:
        raise ValueError(
            f"a model must have 1 to {_MAX_SUBNETS} subnets, got {len(ids)}; "
            "select others with ec2.SubnetSelection"
        )
    _warn_without_s3(scope, vpc, subnets)
    groups = list(model_vpc.security_groups) or [
        https_only(scope, "SecurityGroup", vpc, of="A model in transform jobs")
    ]
    group_ids = [group.security_group_id for group in groups]
    config = sagemaker.CfnModel.VpcConfigProperty(security_group_ids=group_ids, subnets=ids)
    return config, _network_statements(scope, ids, group_ids)


def select_subnets(vpc: ec2.IVpc, selection: ec2.SubnetSelection | None) -> ec2.SelectedSubnets:
    """Return the subnets of a VPC that a selection means, the private ones by default."""
    if selection is None:
        return vpc.select_subnets()
    return vpc.select_subnets(
        availability_zones=selection.availability_zones,
        one_per_az=selection.one_per_az,
        subnet_filters=selection.subnet_filters,
        subnet_group_name=selection.subnet_group_name,
        subnets=selection.subnets,
        subnet_type=selection.subnet_type,
    )


def https_only(scope: Construct, construct_id: str, vpc: ec2.IVpc, *, of: str) -> ec2.SecurityGroup:
    """Define a security group that lets HTTPS out and nothing in."""
    from aws_cdk import aws_ec2 as ec2

    group = ec2.SecurityGroup(
        scope,
        construct_id,
        vpc=vpc,
        allow_all_outbound=False,
        description=f"{of}: HTTPS to AWS and nothing in",
    )
    group.add_egress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(443), "AWS by HTTPS")
    return group


def _warn_without_s3(scope: Construct, vpc: ec2.IVpc, subnets: ec2.SelectedSubnets) -> None:
    from aws_cdk import aws_ec2 as ec2

    isolated = {subnet.subnet_id for subnet in vpc.isolated_subnets}
    endpoints = any(isinstance(part, ec2.CfnVPCEndpoint) for part in vpc.node.find_all())
    if not isolated.isdisjoint(subnets.subnet_ids) and not endpoints:
        Annotations.of(scope).add_warning_v2(
            S3_ENDPOINT_WARNING,
            "the subnets of a model must reach S3, got isolated ones of a VPC without an endpoint "
            "that CDK can see; add a gateway endpoint for S3 before the pipeline, or acknowledge "
            "this when there is one",
        )


def _network_statements(
    scope: Construct, subnet_ids: Sequence[str], group_ids: Sequence[str]
) -> list[Statement]:
    place = place_of(scope)

    def arns(resource: str, names: Sequence[str], account: str | None = None) -> list[str]:
        return [place.arn("ec2", f"{resource}/{name}", account=account) for name in names]

    # Subnets may be shared by another account, which their ARNs have.
    subnets = arns("subnet", subnet_ids, "*")
    interfaces = arns("network-interface", ["*"])
    return [
        allow(
            actions=["ec2:CreateNetworkInterface"],
            resources=[*subnets, *arns("security-group", group_ids), *interfaces],
        ),
        allow(
            actions=["ec2:CreateNetworkInterfacePermission", "ec2:DeleteNetworkInterface"],
            conditions={"ArnLike": {"ec2:Subnet": subnets}},
            resources=interfaces,
        ),
        allow(
            # The call names a permission and no interface, and EC2 does not always look it up.
            actions=["ec2:DeleteNetworkInterfacePermission"],
            conditions={"StringEquals": {"aws:RequestedRegion": place.region}},
            resources=["*"],
        ),
        allow(
            # EC2 takes no resource for these.
            actions=[
                "ec2:DescribeDhcpOptions",
                "ec2:DescribeNetworkInterfaces",
                "ec2:DescribeSecurityGroups",
                "ec2:DescribeSubnets",
                "ec2:DescribeVpcs",
            ],
            resources=["*"],
        ),
    ]
