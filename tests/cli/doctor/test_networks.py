"""Whether AWS can be reached from a subnet."""

from typing import Any

import pytest

from batch_transform_cli.doctor.networks import lets_https_out, reach_finding, unreachable

SUBNET = {"SubnetId": "subnet-1", "VpcId": "vpc-1"}
REGION = "eu-west-1"


def _table(*routes: dict[str, str], main: bool = False) -> dict[str, Any]:
    association = {"Main": True} if main else {"SubnetId": "subnet-1"}
    return {
        "RouteTableId": "rtb-main" if main else "rtb-1",
        "VpcId": "vpc-1",
        "Associations": [association],
        "Routes": [*routes],
    }


def _endpoint(service: str, kind: str = "Gateway", **members: Any) -> dict[str, Any]:
    return {
        "ServiceName": f"com.amazonaws.{REGION}.{service}",
        "VpcEndpointType": kind,
        "State": "available",
        **members,
    }


NAT = {"DestinationCidrBlock": "0.0.0.0/0", "NatGatewayId": "nat-1"}
INTERNET = {"DestinationCidrBlock": "0.0.0.0/0", "GatewayId": "igw-1"}


@pytest.mark.parametrize(
    ("tables", "endpoints", "missing"),
    [
        pytest.param([_table(NAT)], [], [], id="a NAT"),
        pytest.param([_table(NAT | {"State": "blackhole"})], [], ["s3"], id="a NAT that is gone"),
        pytest.param([_table(INTERNET)], [], ["s3"], id="no public address"),
        pytest.param(
            [_table()], [_endpoint("s3", RouteTableIds=["rtb-1"])], [], id="a gateway endpoint"
        ),
        pytest.param(
            [_table()], [_endpoint("s3", RouteTableIds=["rtb-2"])], ["s3"], id="of other subnets"
        ),
        pytest.param(
            [_table(main=True)], [_endpoint("s3", RouteTableIds=["rtb-main"])], [], id="main table"
        ),
        pytest.param([_table()], [_endpoint("s3", "Interface")], [], id="an interface endpoint"),
        pytest.param(
            [_table()], [_endpoint("s3", "Interface", State="pending")], ["s3"], id="not yet"
        ),
        pytest.param([_table()], [_endpoint("sqs", "Interface")], ["s3"], id="another service"),
    ],
)
def test_a_service_is_reached_by_a_nat_or_an_endpoint(
    tables: list[dict[str, Any]], endpoints: list[dict[str, Any]], missing: list[str]
) -> None:
    assert unreachable(SUBNET, tables, endpoints, ["s3"], REGION) == missing


def test_each_missing_service_has_its_command() -> None:
    found = reach_finding(
        "functions of Churn",
        {"subnet-1": ["s3", "sqs"], "subnet-2": []},
        vpc="vpc-1",
        tables=["rtb-1"],
        region=REGION,
    )

    assert found.level == "fail"
    assert found.fix.splitlines() == [
        "aws ec2 create-vpc-endpoint --vpc-id vpc-1 --service-name com.amazonaws.eu-west-1.s3 "
        "--region eu-west-1 --vpc-endpoint-type Gateway --route-table-ids rtb-1",
        "aws ec2 create-vpc-endpoint --vpc-id vpc-1 --service-name com.amazonaws.eu-west-1.sqs "
        "--region eu-west-1 --vpc-endpoint-type Interface --private-dns-enabled --subnet-ids "
        "subnet-1 subnet-2 --security-group-ids SG_THAT_LETS_HTTPS_IN",
    ]


@pytest.mark.parametrize(
    ("rules", "lets"),
    [
        pytest.param([{"IpProtocol": "-1"}], True, id="everything"),
        pytest.param([{"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443}], True, id="HTTPS"),
        pytest.param([{"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80}], False, id="HTTP"),
        pytest.param([], False, id="nothing"),
    ],
)
def test_a_security_group_must_let_https_out(rules: list[dict[str, Any]], lets: bool) -> None:
    assert lets_https_out({"IpPermissionsEgress": rules}) is lets
