"""Subnets and security groups that exist already, and whether AWS can be reached from them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from batch_transform_cli.doctor.findings import Finding, fail, ok, warn
from batch_transform_cli.doctor.needs import Network
from batch_transform_cli.doctor.reader import Absent
from batch_transform_cli.doctor.site import Check, Site
from batch_transform_cli.screen import counted

# docs/models.md and docs/encryption.md say why. SageMaker itself pulls images and writes logs.
_OF_MODELS = ("s3",)
_OF_FUNCTIONS = ("s3", "dynamodb", "sqs", "states", "sagemaker.api", "logs")
_GATEWAYS = ("s3", "dynamodb")
_FEW_ADDRESSES = 16
_HTTPS = 443

Subnet = Mapping[str, Any]
RouteTable = Mapping[str, Any]
Endpoint = Mapping[str, Any]


def unreachable(
    subnet: Subnet,
    tables: Sequence[RouteTable],
    endpoints: Sequence[Endpoint],
    services: Sequence[str],
    region: str,
) -> list[str]:
    """Return the services that cannot be reached from a subnet, as far as its routes tell.

    An internet gateway is no way out: jobs and functions have no public address.
    """
    table = _table_of(subnet, tables)
    if table is not None and _leads_out(table):
        return []
    there = {
        each["ServiceName"].removeprefix(f"com.amazonaws.{region}.")
        for each in endpoints
        if each["State"].lower() == "available"
        and (
            each.get("VpcEndpointType", "Gateway") != "Gateway"
            or (table is not None and table["RouteTableId"] in each.get("RouteTableIds", []))
        )
    }
    return [service for service in services if service not in there]


def lets_https_out(group: Mapping[str, Any]) -> bool:
    """Whether a security group has a rule for HTTPS to anywhere."""
    return any(
        rule["IpProtocol"] == "-1"
        or (
            rule["IpProtocol"] == "tcp"
            and rule.get("FromPort", 0) <= _HTTPS <= rule.get("ToPort", 0)
        )
        for rule in group.get("IpPermissionsEgress", [])
    )


def egress_finding(owner: str, group: str, region: str) -> Finding:
    """Say that a security group lets no HTTPS out."""
    rule = f"IpProtocol=tcp,FromPort={_HTTPS},ToPort={_HTTPS},IpRanges=[{{CidrIp=0.0.0.0/0}}]"
    return fail(
        "network",
        f"{group} of {owner} lets no HTTPS out",
        f"aws ec2 authorize-security-group-egress --group-id {group} --ip-permissions '{rule}' "
        f"--region {region}",
    )


def reach_finding(
    who: str,
    missing: Mapping[str, Sequence[str]],
    *,
    vpc: str,
    tables: Sequence[str],
    region: str,
) -> Finding:
    """Say which services cannot be reached, and how they can be.

    :param missing: the services, by subnet.
    """
    services = sorted({service for each in missing.values() for service in each})
    if not services:
        return ok("network", f"{who} reach AWS from {vpc}")
    command = "aws ec2 create-vpc-endpoint --vpc-id"
    fixes = [
        f"{command} {vpc} --service-name com.amazonaws.{region}.{service} --region {region} "
        + (
            f"--vpc-endpoint-type Gateway --route-table-ids {' '.join(tables) or 'ROUTE_TABLE'}"
            if service in _GATEWAYS
            else "--vpc-endpoint-type Interface --private-dns-enabled --subnet-ids "
            f"{' '.join(sorted(missing))} --security-group-ids SG_THAT_LETS_HTTPS_IN"
        )
        for service in services
    ]
    return fail(
        "network",
        f"{who} have no way to {', '.join(services)} from "
        f"{', '.join(sorted(subnet for subnet, each in missing.items() if each))}: no endpoint, "
        "and no route to a NAT",
        "\n".join(fixes),
    )


def network_findings(network: Network, site: Site) -> Iterator[Finding]:
    """Look at subnets, security groups, routes and endpoints."""
    try:
        subnets = site.reader.read("ec2", "describe_subnets", SubnetIds=[*network.subnets])
        groups: Mapping[str, Any] = {"SecurityGroups": []}
        if network.security_groups:
            groups = site.reader.read(
                "ec2", "describe_security_groups", GroupIds=[*network.security_groups]
            )
    except Absent as absent:
        fix = "mend the id; both must be of this account, or shared with it"
        yield fail("network", f"{network.who}: {absent}", fix)
        return
    for subnet in subnets["Subnets"]:
        if subnet["AvailableIpAddressCount"] < _FEW_ADDRESSES:
            yield warn(
                "network",
                f"{subnet['SubnetId']} has {subnet['AvailableIpAddressCount']} addresses left; "
                "each instance takes two or more",
                "add a larger subnet",
            )
    for group in groups["SecurityGroups"]:
        if not lets_https_out(group):
            yield egress_finding(network.owner, group["GroupId"], site.region)
    yield from _reach(network, subnets["Subnets"], site)


def _reach(network: Network, subnets: Sequence[Subnet], site: Site) -> Iterator[Finding]:
    of_vpc = [{"Name": "vpc-id", "Values": sorted({each["VpcId"] for each in subnets})}]
    tables = [*site.reader.each("ec2", "describe_route_tables", "RouteTables", Filters=of_vpc)]
    endpoints = [*site.reader.each("ec2", "describe_vpc_endpoints", "VpcEndpoints", Filters=of_vpc)]
    services = _OF_FUNCTIONS if network.of_functions else _OF_MODELS
    used = [table for each in subnets if (table := _table_of(each, tables)) is not None]
    yield reach_finding(
        f"{network.who}, in {counted(len(subnets), 'subnet')},",
        {
            each["SubnetId"]: unreachable(each, tables, endpoints, services, site.region)
            for each in subnets
        },
        vpc=subnets[0]["VpcId"],
        tables=[*dict.fromkeys(table["RouteTableId"] for table in used)],
        region=site.region,
    )


def _table_of(subnet: Subnet, tables: Sequence[RouteTable]) -> RouteTable | None:
    main = None
    for table in tables:
        for association in table.get("Associations", []):
            if association.get("SubnetId") == subnet["SubnetId"]:
                return table
            if association.get("Main") and table["VpcId"] == subnet["VpcId"]:
                main = table
    return main


def _leads_out(table: RouteTable) -> bool:
    return any(
        route.get("DestinationCidrBlock") == "0.0.0.0/0"
        and route.get("State") != "blackhole"
        and not route.get("GatewayId", "").startswith("igw-")
        for route in table.get("Routes", [])
    )


CHECKS = (
    Check(
        topic="network",
        items=lambda site: {
            f"{each.who} in {' '.join(each.subnets)}": each for each in site.needs.networks
        },
        examine=network_findings,
        not_local="a local cloud has no networks",
    ),
)
