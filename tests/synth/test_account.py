"""What makes an account ready, and a pipeline that uses all of it."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aws_cdk import App, BootstraplessSynthesizer, Stack
from aws_cdk import aws_iam as iam
from aws_cdk.assertions import Annotations, Match
from cfnlint.api import lint  # type: ignore[import-untyped]

from batch_transform import (
    Account,
    AccountBaseline,
    AccountBaselineStackSet,
    AccountSettings,
    AccountVpc,
    BatchTransform,
    TransformModel,
    define_pipelines,
)
from batch_transform.account_boundary import ROLES_DO
from batch_transform.account_deployment import NEEDED, PASSED_TO
from batch_transform.account_stack_set import baseline_template
from tests.policies import actions_of, statements_of_roles

from .conftest import ROOT, Template
from .test_policies import REFERENCE

EVERYTHING = AccountSettings(
    emails=["a@example.com", "b@example.com"],
    budget_usd=500,
    anomaly_usd=50,
    vpc=AccountVpc(zones=3, functions=True),
    stack_prefix="Scoring",
    home_region="eu-west-1",
)
NOTHING = AccountSettings(
    analyzer=False,
    key="arn:aws:kms:eu-west-1:111122223333:key/1234-abcd",
    access_logs="access-logs",
    alerts="arn:aws:sns:eu-west-1:111122223333:on-call",
    boundary="workloads",
    qualifier=None,
)
# Limits of IAM, without white space, and of CloudFormation for a template that is no file in S3.
POLICY_CHARACTERS = 6144
TEMPLATE_BYTES = 51_200
# Those that stand for the account in a template, as long as they get.
PSEUDO = {
    "AWS::AccountId": "1" * 12,
    "AWS::Partition": "aws-us-gov",
    "AWS::Region": "ap-southeast-1",
}


@pytest.fixture(scope="module")
def everything() -> Template:
    return baseline_template(EVERYTHING)


@pytest.fixture(scope="module")
def account_templates(templates: dict[str, Template]) -> dict[str, Template]:
    """Those of the example: of the account, and of the pipeline in it."""
    return {
        name.partition("-")[2]: template
        for name, template in templates.items()
        if name.startswith("account-")
    }


@pytest.fixture(scope="module")
def deployed_by_the_policy(templates: dict[str, Template]) -> dict[str, Template]:
    """All templates but the account's own, which is there before the policy is."""
    return {name: each for name, each in templates.items() if name != "account-Account"}


def of_type(template: Template, kind: str) -> list[dict[str, Any]]:
    found = template["Resources"].values()
    return [each["Properties"] for each in found if each["Type"] == kind]


def resolved(value: Any) -> Any:
    """A value as CloudFormation fills it in."""
    if isinstance(value, list):
        return [resolved(each) for each in value]
    if not isinstance(value, dict):
        return value
    if "Ref" in value:
        return PSEUDO.get(value["Ref"], value["Ref"])
    if "Fn::Join" in value:
        separator, parts = value["Fn::Join"]
        return separator.join(resolved(parts))
    return {name: resolved(each) for name, each in value.items()}


def documents(template: Template) -> dict[str, dict[str, Any]]:
    """The policies by name; what a statement has one of is a list here, too."""
    found = {
        policy["ManagedPolicyName"]: resolved(policy["PolicyDocument"])
        for policy in of_type(template, "AWS::IAM::ManagedPolicy")
    }
    for document in found.values():
        for statement in document["Statement"]:
            for member in ("Action", "Resource"):
                if isinstance(statement.get(member), str):
                    statement[member] = [statement[member]]
    return found


def needed() -> set[str]:
    return {action for actions in NEEDED.values() for action in actions}


# The template


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(EVERYTHING, id="everything"),
        pytest.param(AccountSettings(), id="by default"),
        pytest.param(NOTHING, id="nothing"),
    ],
)
def test_the_template_is_valid_small_and_needs_no_bootstrap(settings: AccountSettings) -> None:
    template = baseline_template(settings)

    assert [f"{match.path} {match.message}" for match in lint(json.dumps(template))] == []
    assert len(json.dumps(template)) <= TEMPLATE_BYTES
    assert {"Parameters", "Rules"} & set(template) == set()
    assert "cdk-hnb659fds" not in json.dumps(template)
    kinds = {each["Type"] for each in template["Resources"].values()}
    assert not any("Lambda" in kind or "Custom" in kind for kind in kinds)


def test_what_the_account_has_is_published_and_not_made() -> None:
    template = baseline_template(NOTHING)

    assert {each["Type"] for each in template["Resources"].values()} == {"AWS::SSM::Parameter"}
    found = {
        each["Name"]: resolved(each["Value"]) for each in of_type(template, "AWS::SSM::Parameter")
    }
    assert found == {
        "/batch-transform-account/key-arn": NOTHING.key,
        "/batch-transform-account/access-log-bucket": "access-logs",
        "/batch-transform-account/alert-topic-arn": NOTHING.alerts,
        "/batch-transform-account/boundary-arn": (
            f"arn:aws-us-gov:iam::{PSEUDO['AWS::AccountId']}:policy/workloads"
        ),
    }


def test_what_an_account_has_once_is_made_at_home_only(everything: Template) -> None:
    conditional = {each["Type"] for each in everything["Resources"].values() if "Condition" in each}

    assert conditional == {
        "AWS::Budgets::Budget",
        "AWS::CE::AnomalyMonitor",
        "AWS::CE::AnomalySubscription",
        "AWS::IAM::ManagedPolicy",
    }
    (condition,) = everything["Conditions"].values()
    assert condition == {"Fn::Equals": [{"Ref": "AWS::Region"}, "eu-west-1"]}


def test_publishers_come_after_the_policy_that_admits_them(everything: Template) -> None:
    publishing = {
        each["Type"]: each.get("DependsOn", [])
        for each in everything["Resources"].values()
        if each["Type"]
        in ("AWS::Budgets::Budget", "AWS::CE::AnomalySubscription", "AWS::Events::Rule")
    }

    assert len(publishing) == 3
    for kind, before in publishing.items():
        assert any("AlertsPolicy" in name for name in before), kind


def test_the_topic_is_told_at_each_mark_of_the_budget(everything: Template) -> None:
    (budget,) = of_type(everything, "AWS::Budgets::Budget")

    told = [each["Notification"] for each in budget["NotificationsWithSubscribers"]]
    assert [(each["NotificationType"], each["Threshold"]) for each in told] == [
        ("ACTUAL", 80),
        ("ACTUAL", 100),
        ("FORECASTED", 100),
    ]
    assert budget["Budget"]["BudgetLimit"] == {"Amount": 500, "Unit": "USD"}


def test_a_monitor_that_the_account_has_is_taken() -> None:
    arn = "arn:aws:ce::111122223333:anomalymonitor/1234"

    template = baseline_template(AccountSettings(anomaly_usd=12.5, anomaly_monitor=arn))

    (subscription,) = of_type(template, "AWS::CE::AnomalySubscription")
    assert subscription["MonitorArnList"] == [arn]
    assert json.loads(subscription["ThresholdExpression"])["Dimensions"]["Values"] == ["12.5"]
    assert of_type(template, "AWS::CE::AnomalyMonitor") == []


def test_no_subnet_has_a_way_to_the_internet(everything: Template) -> None:
    kinds = [each["Type"] for each in everything["Resources"].values()]

    assert kinds.count("AWS::EC2::Subnet") == 3
    assert not {"AWS::EC2::Route", "AWS::EC2::InternetGateway", "AWS::EC2::NatGateway"} & {*kinds}
    blocks = [each["CidrBlock"] for each in of_type(everything, "AWS::EC2::Subnet")]
    assert blocks == ["10.0.0.0/18", "10.0.64.0/18", "10.0.128.0/18"]


def test_the_endpoints_are_those_that_the_page_says(everything: Template) -> None:
    page = (ROOT / "docs" / "encryption.md").read_text()
    sentence = page[page.index("Without NAT the") :].partition("Public subnets")[0]

    services = {
        str(each["VpcEndpointType"]): set[str]()
        for each in of_type(everything, "AWS::EC2::VPCEndpoint")
    }
    for each in of_type(everything, "AWS::EC2::VPCEndpoint"):
        name = resolved(each["ServiceName"]).removeprefix("com.amazonaws.ap-southeast-1.")
        services[each["VpcEndpointType"]].add(name)

    assert services["Interface"] == set(re.findall(r"`([\w.]+)`", sentence))
    assert services["Gateway"] == {"s3", "dynamodb"}


def test_the_library_does_not_import_lambda_or_ec2_for_a_baseline() -> None:
    program = (
        "import sys\n"
        "from batch_transform import Account, AccountBaseline, AccountBaselineStackSet\n"
        "print(*sys.modules)"
    )
    imported = subprocess.run(
        [sys.executable, "-c", program],
        env={"PATH": str(Path(sys.executable).parent), "PYTHONPATH": "constructs:src"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()

    assert {"aws_cdk.aws_ec2", "aws_cdk.aws_lambda"} & set(imported) == set()


# The policies


def test_a_policy_fits_wherever_the_account_is(everything: Template) -> None:
    longest = replace(EVERYTHING, qualifier="q" * 10, stack_prefix="S" * 24, boundary="b" * 64)
    found = [*documents(everything).items(), *documents(baseline_template(longest)).items()]

    assert len(found) == 3
    for name, document in found:
        assert len(json.dumps(document, separators=(",", ":"))) <= POLICY_CHARACTERS, name


def test_the_boundary_allows_what_roles_of_templates_do_and_no_more(
    templates: dict[str, Template],
) -> None:
    done = {
        action
        for template in templates.values()
        for statements in statements_of_roles(template).values()
        for action in actions_of([each for each in statements if each["Effect"] == "Allow"])
    }

    assert {f"{service}:{name}" for service, names in ROLES_DO.items() for name in names} == done


def test_the_templates_have_every_action_that_the_library_can_give_a_role() -> None:
    """What no template here has, the boundary would not allow: each literal of the sources."""
    literals = {
        action
        for path in (ROOT / "constructs" / "batch_transform").glob("*.py")
        if not path.name.startswith("account")
        for action in re.findall(r'"([a-z0-9-]+:[A-Z]\w+)"', path.read_text())
        if action.partition(":")[2].lower()
        in REFERENCE.get(action.partition(":")[0], {"Actions": ()})["Actions"]
    }

    literals.discard("sts:AssumeRole")  # what a service does with a role, not the role itself
    assert literals
    assert (
        literals - {f"{service}:{name}" for service, names in ROLES_DO.items() for name in names}
        == set()
    )


def test_the_deployment_policy_knows_the_types_of_the_templates_and_no_more(
    deployed_by_the_policy: dict[str, Template],
) -> None:
    kinds = {
        resource["Type"]
        for template in deployed_by_the_policy.values()
        for resource in template["Resources"].values()
    }

    assert set(NEEDED) == kinds


def test_the_deployment_policy_allows_what_its_types_need_and_no_more(everything: Template) -> None:
    statements = documents(everything)["batch-transform-deployment"]["Statement"]
    allowed = [each for each in statements if each["Effect"] == "Allow"]

    assert actions_of(allowed) == needed()
    assert sum(len(each["Action"]) for each in allowed) == len(needed()), "an action stands twice"
    assert {
        action
        for action in needed()
        if action.partition(":")[2].lower() not in REFERENCE[action.partition(":")[0]]["Actions"]
    } == set()


def limits(template: Template, action: str) -> list[tuple[list[str], dict[str, Any]]]:
    return [
        (each["Resource"], each.get("Condition", {}))
        for each in documents(template)["batch-transform-deployment"]["Statement"]
        if each["Effect"] == "Allow" and action in each["Action"]
    ]


@pytest.mark.parametrize(
    "action",
    ["CreateRole", "PutRolePolicy", "DeleteRolePolicy", "PutRolePermissionsBoundary"],
)
def test_a_role_gets_permissions_with_the_boundary_only(action: str, everything: Template) -> None:
    account = f"arn:aws-us-gov:iam::{PSEUDO['AWS::AccountId']}"

    assert limits(everything, f"iam:{action}") == [
        (
            [f"{account}:role/Scoring*"],
            {
                "StringEquals": {
                    "iam:PermissionsBoundary": f"{account}:policy/batch-transform-boundary"
                }
            },
        )
    ]
    assert not {"iam:DeleteRolePermissionsBoundary", "iam:AttachRolePolicy"} & needed()


def test_a_role_is_passed_to_the_services_of_the_templates_only(
    everything: Template, deployed_by_the_policy: dict[str, Template]
) -> None:
    assert set(PASSED_TO) == set().union(*map(passed, deployed_by_the_policy.values()))
    ((_, condition),) = limits(everything, "iam:PassRole")
    assert condition == {"StringEquals": {"iam:PassedToService": [*PASSED_TO]}}


def passed(template: Template) -> set[str]:
    """The services that assume a role which some resource is given."""
    given = set(
        re.findall(r'{"Fn::GetAtt": \["(\w+)", "Arn"\]}', json.dumps(template["Resources"]))
    )
    return {
        statement["Principal"]["Service"]
        for name in given
        if template["Resources"][name]["Type"] == "AWS::IAM::Role"
        for statement in template["Resources"][name]["Properties"]["AssumeRolePolicyDocument"][
            "Statement"
        ]
        if "Service" in statement["Principal"]
    }


def test_the_roles_of_the_bootstrap_are_out_of_reach(everything: Template) -> None:
    statements = documents(everything)["batch-transform-deployment"]["Statement"]

    (denied,) = [each for each in statements if each["Effect"] == "Deny"]
    assert (denied["Action"], denied["Resource"]) == (
        ["iam:*"],
        [f"arn:aws-us-gov:iam::{PSEUDO['AWS::AccountId']}:role/cdk-*"],
    )


# A pipeline that uses it


def test_a_pipeline_finds_each_fact(account_templates: dict[str, Template]) -> None:
    published = {
        each["Name"] for each in of_type(account_templates["Account"], "AWS::SSM::Parameter")
    }
    template = account_templates["ScoringChurn"]
    read = {
        each["Default"]
        for name, each in template["Parameters"].items()
        if name != "BootstrapVersion"
    }

    # Its boundary is known by name.
    assert published - read == {"/batch-transform-account/boundary-arn"}
    assert read - published == set()


def test_every_part_of_a_pipeline_uses_the_account_s(
    account_templates: dict[str, Template],
) -> None:
    template = account_templates["ScoringChurn"]

    buckets = of_type(template, "AWS::S3::Bucket")
    logged = [each["LoggingConfiguration"]["LogFilePrefix"] for each in buckets]
    assert sorted(prefix.partition("/")[2] for prefix in logged) == ["input/", "output/"]
    assert all("DestinationBucketName" in each["LoggingConfiguration"] for each in buckets)
    for alarm in of_type(template, "AWS::CloudWatch::Alarm"):
        assert "AlertTopicArn" in alarm["AlarmActions"][0]["Ref"]
    for function in of_type(template, "AWS::Lambda::Function"):
        assert "KeyArn" in function["KmsKeyArn"]["Ref"]
        assert len(function["VpcConfig"]["SubnetIds"]) == 2
    for role in of_type(template, "AWS::IAM::Role"):
        assert "policy/batch-transform-boundary" in json.dumps(role["PermissionsBoundary"])
    assert of_type(template, "AWS::EC2::SecurityGroup") == []


def test_a_pipeline_that_uses_it_is_not_warned(
    model_files: Path,
) -> None:
    stack = Stack(App(), "Scoring")
    account = Account.of(stack)
    BatchTransform(
        stack,
        "Churn",
        model=TransformModel.from_artifact(model_files / "model", model_files / "image"),
        instance_type="ml.m5.large",
        encryption_key=account.key,
        access_logs=account.access_logs,
    )

    assert Annotations.from_stack(stack).find_warning("*", Match.any_value()) == []
    assert Account.of(stack) is account


@pytest.mark.parametrize(
    ("name", "warnings"),
    [
        pytest.param("/batch-transform-account/", 0, id="the account's"),
        pytest.param("/somebody-else/", 2, id="somebody else's"),
    ],
)
def test_the_file_of_pipelines_names_the_same_facts(
    name: str, warnings: int, model_files: Path, tmp_path: Path
) -> None:
    (tmp_path / "pipelines.yaml").write_text(f"""
pipelines:
  Churn:
    model: {{artifact: {model_files}/model, image: {model_files}/image}}
    instance_type: ml.m5.large
    encryption_key: {{ssm: {name}key-arn}}
    access_logs: {{ssm: {name}access-log-bucket}}
""")
    app = App()

    define_pipelines(app, tmp_path / "pipelines.yaml")

    made = app.synth().get_stack_by_name("Churn")
    # One for the key, and one for the two buckets that are logged.
    assert len({message.entry.data for message in made.messages}) == warnings
    read = {each["Default"] for each in made.template["Parameters"].values()}
    assert {f"{name}key-arn", f"{name}access-log-bucket"} <= read


def test_a_boundary_is_applied_by_its_arn() -> None:
    stack = Stack(App(), "Scoring")
    iam.PermissionsBoundary.of(stack).apply(Account.of(stack).boundary)
    iam.Role(stack, "Role", assumed_by=iam.AccountRootPrincipal())

    template = App.of(stack).synth().get_stack_by_name("Scoring").template  # type: ignore[union-attr]

    (role,) = of_type(template, "AWS::IAM::Role")
    assert "BoundaryArn" in role["PermissionsBoundary"]["Ref"]


def test_only_what_is_asked_for_is_read(synthesize: Callable[..., Template]) -> None:
    template = synthesize(lambda stack: Account.of(stack).vpc(zones=3).private_subnets)
    names = {
        each["Default"]
        for name, each in template["Parameters"].items()
        if name != "BootstrapVersion"
    }

    assert names == {
        f"/batch-transform-account/{fact}"
        for fact in (
            "vpc-id",
            *(f"{kind}" for n in "123" for kind in (f"zone-{n}", f"subnet-{n}-id")),
        )
    }


# An organization


def test_a_stack_set_brings_the_template_to_every_account() -> None:
    app = App()
    stack = Stack(app, "Organization", synthesizer=BootstraplessSynthesizer())

    AccountBaselineStackSet(
        stack,
        "Accounts",
        organizational_units=["ou-ab12-cdefgh34"],
        regions=["eu-west-1", "us-east-1"],
        settings=replace(EVERYTHING, home_region=None),
    )

    template = app.synth().get_stack_by_name("Organization").template
    (stack_set,) = of_type(template, "AWS::CloudFormation::StackSet")
    assert [match.message for match in lint(json.dumps(template))] == []
    assert json.loads(stack_set["TemplateBody"]) == baseline_template(EVERYTHING)
    assert len(stack_set["TemplateBody"]) <= TEMPLATE_BYTES
    assert stack_set["StackInstancesGroup"] == [
        {
            "DeploymentTargets": {"OrganizationalUnitIds": ["ou-ab12-cdefgh34"]},
            "Regions": ["eu-west-1", "us-east-1"],
        }
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"regions": []}, r"regions must be a list of one or more, got \[\]"),
        ({"organizational_units": "ou-1"}, "organizational_units must be a list"),
        ({"settings": EVERYTHING, "regions": ["us-east-1"]}, "home_region must be one of the reg"),
        (
            {"settings": AccountSettings(emails=["a" * 300 + "@example.com"] * 150)},
            "must have at most 51200 bytes, got .*fewer emails",
        ),
    ],
)
def test_fails_when_a_stack_set_cannot_be_deployed(changes: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"organizational_units": ["ou-1"], "regions": ["eu-west-1"]}

    with pytest.raises(ValueError, match=message):
        AccountBaselineStackSet(
            Stack(App(), "Organization"), "Accounts", **{**arguments, **changes}
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget_usd": 0}, "budget_usd must be above 0, got 0"),
        ({"access_log_days": -1}, "access_log_days must be above 0"),
        ({"anomaly_monitor": "arn"}, "anomaly_monitor must come with anomaly_usd"),
        ({"alerts": "arn", "emails": ["a@example.com"]}, "emails must be left to the topic"),
        ({"qualifier": "too-long-one"}, "qualifier must be 1 to 10 lower-case letters"),
        ({"stack_prefix": "Scoring*"}, r"stack_prefix must .*leave '\*' out"),
        ({"stack_prefix": "S" * 25}, "stack_prefix must .*at most 24"),
    ],
)
def test_fails_when_settings_do_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AccountSettings(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"zones": 1}, "zones must be 2 or 3, got 1"),
        ({"cidr": "10.0.0.0/8"}, "cidr must have a length of 16 to 26"),
        ({"cidr": "10.0.0.1/16"}, "cidr must be a network of IPv4 addresses.*host bits"),
    ],
)
def test_fails_when_there_is_no_such_vpc(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AccountVpc(**changes)


def statements_by_sid(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for statement in document["Statement"]:
        yield statement["Sid"], statement


def test_the_key_lets_in_the_services_of_pipelines_and_of_alerts(everything: Template) -> None:
    (key,) = of_type(everything, "AWS::KMS::Key")
    statements = dict(statements_by_sid(key["KeyPolicy"]))

    assert list(statements) == [
        "PoliciesOfTheAccountDecide",
        "EventBridgeSendsToQueues",
        "CloudWatchKeepsLogs",
        "StepFunctionsDeliversLogs",
        "AlertsReachTheTopic",
        "EventBridgeTellsTopics",
    ]
    assert statements["AlertsReachTheTopic"]["Principal"]["Service"] == [
        "cloudwatch.amazonaws.com",
        "budgets.amazonaws.com",
        "costalerts.amazonaws.com",
    ]
    assert key["EnableKeyRotation"] is True


def test_eventbridge_tells_the_topic_without_a_condition_that_it_could_not_meet(
    everything: Template,
) -> None:
    (policy,) = of_type(everything, "AWS::SNS::TopicPolicy")
    statements = dict(statements_by_sid(policy["PolicyDocument"]))
    (key,) = of_type(everything, "AWS::KMS::Key")
    use = dict(statements_by_sid(key["KeyPolicy"]))["EventBridgeTellsTopics"]

    assert "Condition" not in statements["EventBridgeTells"]
    assert statements["EventBridgeTells"]["Principal"] == {"Service": ["events.amazonaws.com"]}
    assert resolved(use["Condition"]) == {
        "ArnLike": {
            "kms:EncryptionContext:aws:sns:topicArn": (
                f"arn:aws-us-gov:sns:ap-southeast-1:{PSEUDO['AWS::AccountId']}:*"
            )
        }
    }


def test_a_stack_of_one_region_needs_no_home() -> None:
    stack = Stack(App(), "Account", synthesizer=BootstraplessSynthesizer())
    made = AccountBaseline(stack, "Account")

    template = App.of(stack).synth().get_stack_by_name("Account").template  # type: ignore[union-attr]

    assert "Conditions" not in template
    assert stack.resolve(made.alert_topic_arn) == {
        "Ref": next(iter(refs(template, "AWS::SNS::Topic")))
    }


def refs(template: Template, kind: str) -> list[str]:
    return [name for name, each in template["Resources"].items() if each["Type"] == kind]
