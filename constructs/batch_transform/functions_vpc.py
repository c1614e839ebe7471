"""The VPC that the functions run in, for accounts in which every function has to be in one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from constructs import Construct

from batch_transform.deployed import Place, place_of
from batch_transform.model_roles import https_only, select_subnets
from batch_transform.networks import FunctionsVpc
from batch_transform.statements import Statement, allow, deny


@dataclass(frozen=True, kw_only=True, slots=True)
class FunctionsNetwork:
    """The VPC as Lambda has it.

    :ivar statements: what the role of a function needs to be connected to it.
    """

    config: Mapping[str, object]
    statements: Sequence[Statement]


def connect_functions(scope: Construct, functions_vpc: FunctionsVpc) -> FunctionsNetwork:
    """Define what all functions share, and say what each needs.

    :raises ValueError: a subnet is public, from where a function reaches nothing.
    """
    subnets = select_subnets(functions_vpc.vpc, functions_vpc.subnets)
    if subnets.has_public or not subnets.subnet_ids:
        raise ValueError(
            "functions_vpc must have private subnets, got "
            f"{'public ones' if subnets.has_public else 'none'}, from where no function reaches "
            "AWS; select others with ec2.SubnetSelection"
        )
    groups = list(functions_vpc.security_groups) or [
        https_only(
            scope,
            "FunctionsSecurityGroup",
            functions_vpc.vpc,
            of="Functions of a batch transform pipeline",
        )
    ]
    subnet_ids = list(subnets.subnet_ids)
    group_ids = [group.security_group_id for group in groups]
    return FunctionsNetwork(
        config={"SecurityGroupIds": group_ids, "SubnetIds": subnet_ids},
        statements=_network_statements(place_of(scope), subnet_ids, group_ids),
    )


def _network_statements(
    place: Place, subnet_ids: Sequence[str], group_ids: Sequence[str]
) -> list[Statement]:
    def arns(resource: str, names: Sequence[str], account: str | None = None) -> list[str]:
        return [place.arn("ec2", f"{resource}/{name}", account=account) for name in names]

    interfaces = arns("network-interface", ["*"])
    # Subnets may be shared by another account, which their ARNs have.
    places = [*arns("subnet", subnet_ids, "*"), *arns("security-group", group_ids, "*")]
    changes = ["ec2:CreateNetworkInterface", "ec2:DeleteNetworkInterface"]
    addresses = ["ec2:AssignPrivateIpAddresses", "ec2:UnassignPrivateIpAddresses"]
    looks = ["ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets"]
    return [
        allow(actions=["ec2:CreateNetworkInterface"], resources=[*places, *interfaces]),
        allow(actions=["ec2:DeleteNetworkInterface", *addresses], resources=interfaces),
        allow(actions=looks, resources=["*"]),  # EC2 takes no resource for these
        # All that is for Lambda, which acts with the role; code of a function is told by this key.
        deny(
            actions=[*changes, *addresses, *looks],
            conditions={"Null": {"lambda:SourceFunctionArn": "false"}},
            resources=["*"],
        ),
    ]
