"""The VPCs of yours that models and functions are connected to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aws_cdk import aws_ec2 as ec2

_MAX_SECURITY_GROUPS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelVpc:
    """The VPC that the containers of a model are connected to.

    Every instance of a job takes two or more addresses of a subnet. S3 has to be reachable from
    there: by a gateway endpoint, or through NAT.

    :param subnets: Default: the private ones.
    :param security_groups: Default: a new one, which lets HTTPS out and nothing in.
    :raises ValueError: more of them than a model can have.
    """

    vpc: ec2.IVpc
    subnets: ec2.SubnetSelection | None = None
    security_groups: Sequence[ec2.ISecurityGroup] = ()

    def __post_init__(self) -> None:
        if len(self.security_groups) > _MAX_SECURITY_GROUPS:
            raise ValueError(
                f"a model must have at most {_MAX_SECURITY_GROUPS} security groups, got "
                f"{len(self.security_groups)}; put their rules together"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class FunctionsVpc:
    """Subnets and security groups of the functions.

    From there they have to reach S3, DynamoDB, SQS, Step Functions, SageMaker and CloudWatch Logs:
    through NAT, or by the endpoints that docs/encryption.md lists.

    :param subnets: Default: the private ones.
    :param security_groups: Default: a new one, which lets HTTPS out and nothing in.
    """

    vpc: ec2.IVpc
    subnets: ec2.SubnetSelection | None = None
    security_groups: Sequence[ec2.ISecurityGroup] = ()
