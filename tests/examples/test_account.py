"""The example of an account in the local cloud: what makes it ready, and the pipeline in it."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from local_cloud import LocalCloud
from tests.documents import PROJECT, blocks_of
from tests.journeys.conftest import Pipeline, deployed

from .programs import FOLDER, synthesize

CDK = Path(sys.executable).with_name("cdk")
ACCOUNT = "000000000000"
POLICY = f"arn:aws:iam::{ACCOUNT}:policy/batch-transform-deployment"
# The page's, for this account and region.
COMMANDS = [
    shlex.split(
        block.text.removeprefix("cdk ")
        .replace("\\\n", "")
        .replace("111122223333", ACCOUNT)
        .replace("eu-west-1", "us-east-1")
    )
    for block in blocks_of(PROJECT / "docs" / "accounts.md", "bash")
]
# What the emulator does not know; nothing else of the template refers to it.
UNKNOWN = {
    "AWS::AccessAnalyzer::Analyzer",
    "AWS::Budgets::Budget",
    "AWS::CE::AnomalyMonitor",
    "AWS::CE::AnomalySubscription",
    "AWS::EC2::FlowLog",
}


@pytest.fixture(scope="module")
def assembly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("account") / "cdk.out"
    shutil.copytree(synthesize(FOLDER / "account"), folder)
    path = folder / "Account.template.json"
    template = json.loads(path.read_text())
    left_out = {n for n, each in template["Resources"].items() if each["Type"] in UNKNOWN}
    assert {template["Resources"][name]["Type"] for name in left_out} == UNKNOWN
    for name in left_out:
        del template["Resources"][name]
    path.write_text(json.dumps(template))
    scoring = folder / "ScoringChurn.template.json"
    at_once, count = re.subn(r'("MAX_WAIT_S": )"60"', r'\1"1"', scoring.read_text())
    assert count == 1, "a drop would wait a minute for others"
    scoring.write_text(at_once)
    return folder


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud() as cloud:
        yield cloud


@pytest.fixture(scope="module")
def outputs(cloud: LocalCloud, assembly: Path) -> Mapping[str, str]:
    return cloud.deploy(assembly)["ScoringChurn"]


@pytest.fixture(scope="module")
def facts(cloud: LocalCloud, outputs: Mapping[str, str]) -> dict[str, str]:
    """What the account says of itself."""
    prefix = "/batch-transform-account/"
    found = cloud.client("ssm").get_parameters_by_path(Path=prefix)["Parameters"]
    return {each["Name"].removeprefix(prefix): each["Value"] for each in found}


def resources(cloud: LocalCloud, stack: str, kind: str) -> list[str]:
    found = cloud.client("cloudformation").describe_stack_resources(StackName=stack)
    return [
        each["PhysicalResourceId"]
        for each in found["StackResources"]
        if each["ResourceType"] == kind
    ]


def test_each_fact_names_what_is_there(cloud: LocalCloud, facts: dict[str, str]) -> None:
    key = cloud.client("kms").describe_key(KeyId=facts["key-arn"])["KeyMetadata"]
    assert key["KeyState"] == "Enabled"
    cloud.client("s3").head_bucket(Bucket=facts["access-log-bucket"])
    cloud.client("sns").get_topic_attributes(TopicArn=facts["alert-topic-arn"])
    policy = cloud.client("iam").get_policy(PolicyArn=facts["boundary-arn"])["Policy"]
    assert policy["PolicyName"] == "batch-transform-boundary"
    ec2 = cloud.client("ec2")
    ids = [facts["subnet-1-id"], facts["subnet-2-id"]]
    subnets = ec2.describe_subnets(SubnetIds=ids)["Subnets"]
    assert {each["VpcId"] for each in subnets} == {facts["vpc-id"]}
    assert [each["AvailabilityZone"] for each in subnets] == [facts["zone-1"], facts["zone-2"]]
    endpoints = ec2.describe_vpc_endpoints()["VpcEndpoints"]
    assert len([each for each in endpoints if each["VpcId"] == facts["vpc-id"]]) == 6


def test_the_pipeline_uses_each_of_them(cloud: LocalCloud, facts: dict[str, str]) -> None:
    """As far as the emulator keeps it: not functions' key and VPC, boundaries, access logs."""
    (model,) = resources(cloud, "ScoringChurn", "AWS::SageMaker::Model")
    name = model.rpartition("/")[2]
    vpc = cloud.client("sagemaker").describe_model(ModelName=name)["VpcConfig"]
    assert vpc == {
        "SecurityGroupIds": [facts["security-group-id"]],
        "Subnets": [facts["subnet-1-id"], facts["subnet-2-id"]],
    }
    alarms = cloud.client("cloudwatch").describe_alarms()["MetricAlarms"]
    assert alarms
    assert all(each["AlarmActions"] == [facts["alert-topic-arn"]] for each in alarms)


def test_a_drop_is_scored_in_it(cloud: LocalCloud, outputs: Mapping[str, str]) -> None:
    pipeline: Pipeline = deployed(cloud, outputs)

    key = pipeline.drop("customers.csv", b"a,1,2,30\nb,3,4,50\n")

    (drop,) = pipeline.wait(key)
    assert (drop.status, drop.reason) == ("done", "")
    assert [line.partition(",")[0] for line in pipeline.output(key).decode().splitlines()] == [
        "a",
        "b",
    ]
    assert pipeline.client.lookup("a") is not None


@pytest.mark.skipif(not CDK.exists(), reason="scripts/setup installs the CDK CLI")
def test_the_cdk_cli_bootstraps_with_the_policy_of_the_account(assembly: Path) -> None:
    """By the commands of docs/accounts.md, before any other bootstrap."""
    with LocalCloud() as cloud:
        for command in COMMANDS[:2]:
            run_cdk(cloud, assembly, *command)
        name = f"cdk-batch-cfn-exec-role-{ACCOUNT}-us-east-1"
        iam = cloud.client("iam")
        attached: Any = iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]
        assert [each["PolicyArn"] for each in attached] == [POLICY]
        # The emulator keeps no boundaries of roles, so that what the role was to get is looked at.
        (stack,) = cloud.client("cloudformation").describe_stacks(StackName="CDKToolkit-batch")[
            "Stacks"
        ]
        given = {each["ParameterKey"]: each["ParameterValue"] for each in stack["Parameters"]}
        assert given["InputPermissionsBoundary"] == "batch-transform-deployment"
        assert given["Qualifier"] == "batch"


def run_cdk(cloud: LocalCloud, assembly: Path, *command: str) -> None:
    app = ("--app", str(assembly))
    done = subprocess.run(
        [CDK, *command, *app, "--require-approval", "never"],
        env={
            **os.environ,
            **cloud.cdk_environment(),
            "CI": "1",
            "PATH": os.pathsep.join([str(CDK.parent), os.environ["PATH"]]),
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
