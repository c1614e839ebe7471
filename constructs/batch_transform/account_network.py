"""A VPC without a way to the internet, with the endpoints that models and functions need."""

from collections.abc import Mapping

from aws_cdk import CfnResource, Fn
from constructs import Construct

from batch_transform.account_facts import SECURITY_GROUP_ID, VPC_ID, subnet_id, zone
from batch_transform.account_settings import AccountVpc
from batch_transform.deployed import place_of
from batch_transform.statements import allow, service_role

_GATEWAYS = ("s3", "dynamodb")
# What functions call that has no gateway.
_INTERFACES = ("sqs", "states", "sagemaker.api", "logs")
_HTTPS = {"FromPort": 443, "IpProtocol": "tcp", "ToPort": 443}
_SPARE_BITS = 2  # so that there are four subnets, of which the zones take two or three


class AccountNetwork(Construct):
    """The VPC of an account.

    :ivar facts: its ids, by the names under which they are published.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, vpc: AccountVpc, key_arn: str
    ) -> None:
        super().__init__(scope, construct_id)
        self._cidr = str(vpc.network)
        self._vpc_id = self._define(
            "Vpc",
            "AWS::EC2::VPC",
            {
                "CidrBlock": self._cidr,
                "EnableDnsHostnames": True,
                "EnableDnsSupport": True,
                "Tags": _named("batch-transform"),
            },
        )
        cidrs = [*vpc.network.subnets(prefixlen_diff=_SPARE_BITS)][: vpc.zones]
        zones = [Fn.select(number, Fn.get_azs()) for number in range(vpc.zones)]
        subnets = [
            self._define(
                f"Subnet{number}",
                "AWS::EC2::Subnet",
                {
                    "AvailabilityZone": name,
                    "CidrBlock": str(cidr),
                    "Tags": _named(f"batch-transform-isolated-{number}"),
                    "VpcId": self._vpc_id,
                },
            )
            for number, (name, cidr) in enumerate(zip(zones, cidrs, strict=True), start=1)
        ]
        self._connect(subnets)
        group_id = self._security_group(
            "HttpsOnly",
            "Models and functions: HTTPS to AWS and nothing in",
            {"SecurityGroupEgress": [{**_HTTPS, "CidrIp": "0.0.0.0/0", "Description": "AWS"}]},
        )
        if vpc.functions:
            self._connect_functions(subnets)
        if vpc.flow_logs_days is not None:
            self._log(key_arn, days=vpc.flow_logs_days)
        self.facts = {VPC_ID: self._vpc_id, SECURITY_GROUP_ID: group_id}
        for number, (name, subnet) in enumerate(zip(zones, subnets, strict=True), start=1):
            self.facts |= {zone(number): name, subnet_id(number): subnet}

    def _define(self, construct_id: str, kind: str, properties: Mapping[str, object]) -> str:
        return CfnResource(self, construct_id, type=kind, properties=properties).ref

    def _connect(self, subnets: list[str]) -> None:
        """Route S3 and DynamoDB to their gateways, and nothing anywhere else."""
        table = self._define("Routes", "AWS::EC2::RouteTable", {"VpcId": self._vpc_id})
        for number, subnet in enumerate(subnets, start=1):
            self._define(
                f"Routes{number}",
                "AWS::EC2::SubnetRouteTableAssociation",
                {"RouteTableId": table, "SubnetId": subnet},
            )
        for service in _GATEWAYS:
            self._endpoint(service, {"RouteTableIds": [table], "VpcEndpointType": "Gateway"})

    def _connect_functions(self, subnets: list[str]) -> None:
        group_id = self._security_group(
            "EndpointsGroup",
            "Endpoints: HTTPS from the VPC",
            {"SecurityGroupIngress": [{**_HTTPS, "CidrIp": self._cidr, "Description": "VPC"}]},
        )
        for service in _INTERFACES:
            self._endpoint(
                service,
                {
                    "PrivateDnsEnabled": True,
                    "SecurityGroupIds": [group_id],
                    "SubnetIds": subnets,
                    "VpcEndpointType": "Interface",
                },
            )

    def _endpoint(self, service: str, properties: Mapping[str, object]) -> None:
        name = f"com.amazonaws.{place_of(self).region}.{service}"
        self._define(
            f"Endpoint-{service}",
            "AWS::EC2::VPCEndpoint",
            {**properties, "ServiceName": name, "VpcId": self._vpc_id},
        )

    def _security_group(
        self, construct_id: str, description: str, rules: Mapping[str, object]
    ) -> str:
        group = CfnResource(
            self,
            construct_id,
            type="AWS::EC2::SecurityGroup",
            properties={"GroupDescription": description, "VpcId": self._vpc_id, **rules},
        )
        return group.get_att("GroupId").to_string()

    def _log(self, key_arn: str, *, days: int) -> None:
        group = CfnResource(
            self,
            "FlowLogs",
            type="AWS::Logs::LogGroup",
            properties={"KmsKeyId": key_arn, "RetentionInDays": days},
        )
        arn = group.get_att("Arn").to_string()
        role = service_role(
            self,
            "FlowLogsRole",
            "vpc-flow-logs.amazonaws.com",
            statements=[
                allow(
                    actions=[
                        "logs:CreateLogStream",
                        "logs:DescribeLogStreams",
                        "logs:PutLogEvents",
                    ],
                    resources=[arn],
                ),
                allow(actions=["logs:DescribeLogGroups"], resources=["*"]),
            ],
            conditions={"StringEquals": {"aws:SourceAccount": place_of(self).account}},
        )
        self._define(
            "FlowLog",
            "AWS::EC2::FlowLog",
            {
                "DeliverLogsPermissionArn": role.attr_arn,
                "LogDestinationType": "cloud-watch-logs",
                "LogGroupName": group.ref,
                "ResourceId": self._vpc_id,
                "ResourceType": "VPC",
                "TrafficType": "ALL",
            },
        )


def _named(name: str) -> list[dict[str, str]]:
    return [{"Key": "Name", "Value": name}]
