"""An app in an account that has all, or lets nobody look."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import boto3
import botocore.session
import pytest
from botocore import xform_name
from moto import mock_aws

from batch_transform_cli.doctor.assembly import AppStack
from batch_transform_cli.doctor.examination import Report, examine_places
from batch_transform_cli.doctor.findings import Finding, Place
from batch_transform_cli.doctor.reader import OPERATIONS, Reader
from tests.cli.doctor.answers import Answer, Answers
from tests.cli.doctor.asking import ACCOUNT, REGION, World, asking, container
from tests.documents import PROJECT, blocks_of

KEY_USERS = ["events.amazonaws.com", f"logs.{REGION}.amazonaws.com", "delivery.logs.amazonaws.com"]
READS = ("describe_", "get_", "head_", "list_", "batch_get_", "simulate_")

#: What moto does not have.
BEYOND_MOTO: Mapping[str, Answer] = {
    "s3.get_bucket_notification_configuration": {"EventBridgeConfiguration": {}},
    "service-quotas.list_service_quotas": {
        "Quotas": [
            {
                "QuotaName": "ml.m5.large for transform job usage",
                "QuotaCode": "L-236AE59F",
                "Value": 4.0,
            }
        ]
    },
    "service-quotas.list_aws_default_service_quotas": {
        "Quotas": [
            {
                "QuotaName": "Number of instances across all transform jobs",
                "QuotaCode": "L-60D2A6F0",
                "Value": 20.0,
            }
        ]
    },
    "iam.simulate_principal_policy": {
        "EvaluationResults": [{"EvalActionName": "s3:GetObject", "EvalDecision": "allowed"}]
    },
}


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """An account with all that the app asks for, which no test changes."""
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        for name, value in {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": REGION,
        }.items():
            patch.setenv(name, value)
        yield _made()


def _made() -> World:
    ec2, iam, s3 = boto3.client("ec2"), boto3.client("iam"), boto3.client("s3")
    sns, ssm, ecr = boto3.client("sns"), boto3.client("ssm"), boto3.client("ecr")
    statements = [
        _allow({"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "kms:*"),
        _allow({"Service": KEY_USERS}, "kms:*"),
    ]
    policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
    key = boto3.client("kms").create_key(Policy=policy)["KeyMetadata"]["Arn"]
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"]
    group = ec2.create_security_group(GroupName="g", Description="g", VpcId=vpc)["GroupId"]
    (table,) = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])[
        "RouteTables"
    ]
    for service in ("s3", "dynamodb"):
        ec2.create_vpc_endpoint(
            VpcId=vpc,
            ServiceName=f"com.amazonaws.{REGION}.{service}",
            RouteTableIds=[table["RouteTableId"]],
        )
    for service in ("sqs", "states", "sagemaker.api", "logs"):
        ec2.create_vpc_endpoint(
            VpcId=vpc,
            ServiceName=f"com.amazonaws.{REGION}.{service}",
            VpcEndpointType="Interface",
            SubnetIds=[subnet],
        )
    for bucket in ("arrivals", "models"):
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_object(Bucket="models", Key="model.tar.gz", Body=b"model")
    ecr.create_repository(repositoryName="churn")
    ecr.put_image(
        repositoryName="churn",
        imageManifest="{}",
        imageManifestMediaType="application/vnd.oci.image.manifest.v1+json",
        imageTag="1",
    )
    trust = {"Statement": [_allow({"Service": "sagemaker.amazonaws.com"}, "sts:AssumeRole")]}
    iam.create_role(RoleName="scoring", AssumeRolePolicyDocument=json.dumps(trust))
    anything = {"Version": "2012-10-17", "Statement": [_allow(None, "*") | {"Resource": "*"}]}
    iam.create_policy(PolicyName="boundary", PolicyDocument=json.dumps(anything))
    boto3.client("sagemaker").create_model(
        ModelName="churn-v1",
        ExecutionRoleArn=f"arn:aws:iam::{ACCOUNT}:role/scoring",
        PrimaryContainer=container(),
        VpcConfig={"Subnets": [subnet], "SecurityGroupIds": [group]},
    )
    topic = sns.create_topic(Name="alerts")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sms", Endpoint="+4930123456")
    boto3.client("budgets").create_budget(
        AccountId=ACCOUNT,
        Budget={
            "BudgetName": "monthly",
            "BudgetType": "COST",
            "TimeUnit": "MONTHLY",
            "BudgetLimit": {"Amount": "1000", "Unit": "USD"},
        },
    )
    for name, value in {
        "/cdk-bootstrap/hnb659fds/version": "32",
        "/batch-transform-account/subnet-1-id": subnet,
        "/churn/model": "churn-v1",
    }.items():
        ssm.put_parameter(Name=name, Value=value, Type="String")
    return World(key=key, subnet=subnet, group=group, topic=topic)


def test_an_account_that_has_all_is_good(world: World) -> None:
    report = _examine(asking(world), Answers(BEYOND_MOTO))

    assert [each for each in _findings(report) if each.level != "ok"] == []
    assert {each.topic for each in _findings(report)} == {
        *("credentials", "region", "bootstrap", "stack", "parameter", "boundary", "quota"),
        *("model", "artifact", "image", "role", "bucket", "key", "network", "alarms", "budget"),
    }


def test_credentials_that_may_nothing_are_told_what_they_need(world: World) -> None:
    denied: dict[str, Answer] = {name: "AccessDenied" for name in OPERATIONS}
    del denied["sts.get_caller_identity"]
    # So that there is something to look at: what is read before the checks is allowed.
    del denied["ssm.get_parameters"]
    report = _examine(asking(world), Answers(denied))

    assert report.count("fail") == 0
    refused = [each for each in _findings(report) if each.level == "warn"]
    assert {each.topic for each in refused} >= {"quota", "bucket", "key", "network", "budget"}
    for each in refused:
        assert "not looked at, needs " in each.found
        assert "docs/doctor.md" in each.fix
    assert len({(each.topic, each.found) for each in refused}) == len(refused)


def test_a_stack_that_cannot_be_looked_at_is_not_called_undeployed(world: World) -> None:
    denied = {"cloudformation.describe_stacks": "AccessDenied"}
    report = _examine(asking(world), Answers({**BEYOND_MOTO, **denied}))

    (stack,) = [each for each in _findings(report) if each.topic == "stack"]
    assert stack.found == "Churn: not looked at, needs cloudformation:DescribeStacks"


@pytest.mark.parametrize("code", ["AccessDeniedException", "UnauthorizedOperation", "403"])
def test_a_service_may_refuse_in_its_own_words(world: World, code: str) -> None:
    report = _examine(asking(world), Answers({**BEYOND_MOTO, "kms.get_key_policy": code}))

    (refused,) = [each for each in _findings(report) if each.level == "warn"]
    assert refused.topic == "key"
    assert "needs kms:GetKeyPolicy" in refused.found


def test_an_error_of_a_service_is_a_warning(world: World) -> None:
    report = _examine(
        asking(world), Answers({**BEYOND_MOTO, "kms.get_key_policy": "InternalFailure"})
    )

    (refused,) = [each for each in _findings(report) if each.level == "warn"]
    assert "got InternalFailure" in refused.found


def test_an_image_of_another_account_is_asked_for_as_a_pull_does(world: World) -> None:
    image = f"763104351884.dkr.ecr.{REGION}.amazonaws.com/pytorch-inference:2.1"
    pulled: Answer = {"images": [{"imageId": {"imageTag": "2.1"}}]}
    stack = asking(world, image=image)

    def images(answer: Answer) -> list[Finding]:
        told = {"ecr.describe_images": "AccessDeniedException", "ecr.batch_get_image": answer}
        report = _examine(stack, Answers({**BEYOND_MOTO, **told}))
        return [each for each in _findings(report) if image in each.found]

    assert [each.level for each in images(pulled)] == ["ok"]
    assert [each.level for each in images({"images": []})] == ["fail"]
    assert [each.level for each in images("AccessDeniedException")] == ["warn"]


def test_what_is_in_another_region_is_a_failure(world: World) -> None:
    elsewhere: dict[str, Answer] = {"s3.head_bucket": {"BucketRegion": "us-east-1"}}
    image = container()["Image"].replace(REGION, "us-east-1")
    report = _examine(asking(world, image=image), Answers({**BEYOND_MOTO, **elsewhere}))

    bad = [each for each in _findings(report) if each.level == "fail"]
    assert {each.topic for each in bad} == {"artifact", "bucket", "image"}
    assert all("is in us-east-1" in each.found for each in bad)


def test_a_role_must_read_the_drops_once_the_stack_is_deployed(world: World) -> None:
    drops = "arn:aws:s3:::arrivals/in/any"

    def simulated(deployed: Mapping[str, Answer]) -> str:
        answers = Answers({**BEYOND_MOTO, **deployed})
        _examine(asking(world), answers)
        return " ".join(answers.asked["iam.simulate_principal_policy"])

    now = datetime(2026, 3, 1, tzinfo=UTC)
    status = {"StackName": "Churn", "CreationTime": now, "StackStatus": "CREATE_COMPLETE"}
    deployed: dict[str, Answer] = {
        "cloudformation.describe_stacks": {"Stacks": [status]},
        "cloudformation.list_stack_resources": {"StackResourceSummaries": []},
    }
    assert drops in simulated(deployed)
    assert drops not in simulated({})


def test_credentials_of_another_account_look_at_nothing(world: World) -> None:
    report = _examine(asking(world, account="210987654321"), Answers(BEYOND_MOTO))

    (refused,) = [each for each in _findings(report) if each.level == "fail"]
    assert "the app's stacks are for 210987654321" in refused.found
    assert len(report.groups) == 1


def test_of_several_accounts_one_is_looked_at(world: World) -> None:
    stacks = [asking(world), asking(world, account="210987654321")]
    report = examine_places(stacks, Answers(BEYOND_MOTO), REGION, [], is_local=False)

    (other,) = [each for each in _findings(report) if each.level == "skipped"]
    assert "210987654321" in other.found
    assert [group.title for group in report.groups] == [
        "this machine",
        f"account {ACCOUNT}, region {REGION}",
    ]


def test_without_an_app_the_account_is_looked_at(world: World) -> None:
    report = examine_places([], Answers(BEYOND_MOTO), REGION, [], is_local=False)

    assert {each.topic for each in _findings(report)} == {
        *("credentials", "region", "bootstrap", "budget"),
    }
    assert report.count("fail") == 0


def test_a_region_must_be_set_for_an_app_that_names_none(world: World) -> None:
    stack = asking(world, region=None)
    report = examine_places([stack], Answers(BEYOND_MOTO), None, [], is_local=False)

    (refused,) = [each for each in _findings(report) if each.level == "fail"]
    assert (refused.topic, refused.found) == ("region", "none set")


def test_nothing_but_reads_is_ever_called(world: World) -> None:
    answers = Answers(BEYOND_MOTO)
    _examine(asking(world), answers)

    assert answers.asked.keys() <= OPERATIONS.keys()
    session = botocore.session.get_session()
    for name in OPERATIONS:
        service, operation = name.split(".")
        assert operation.startswith(READS), name
        model = session.get_service_model(service)
        assert operation in map(xform_name, model.operation_names), name


def test_what_is_not_declared_cannot_be_called() -> None:
    clients = Answers({})
    place = Place(account=ACCOUNT, region=REGION)
    with pytest.raises(AssertionError, match=r"s3.delete_bucket must stand in OPERATIONS"):
        Reader(place, clients).read("s3", "delete_bucket", Bucket="arrivals")


def test_the_page_has_the_policy_that_this_needs() -> None:
    (block,) = blocks_of(PROJECT / "docs" / "doctor.md", "json")
    (statement,) = json.loads(block.text)["Statement"]
    assert statement["Action"] == sorted({each for of in OPERATIONS.values() for each in of})
    assert (statement["Effect"], statement["Resource"]) == ("Allow", "*")


def _examine(stack: AppStack, clients: Answers) -> Report:
    return examine_places([stack], clients, REGION, [], is_local=False)


def _findings(report: Report) -> list[Finding]:
    return [finding for group in report.groups for finding in group.findings]


def _allow(principal: Any, action: str) -> dict[str, Any]:
    statement = {"Effect": "Allow", "Action": action}
    return statement if principal is None else {**statement, "Principal": principal}
