"""What every policy of every template must be: by name, by resource, for known callers."""

import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest

from tests.policies import Statement, actions_of, statements_of_roles

from .conftest import Template

# AWS's service authorization reference, as cfn-lint has it: the resources that an action can be
# limited to, by service and action in lower case.
REFERENCE: dict[str, Any] = json.loads(
    (files("cfnlint") / "data" / "AdditionalSpecs" / "Policies.json").read_text()
)

# Actions that know resources and yet stand beside "*", under a condition, each with its reason.
ANY_RESOURCE = {
    "ec2:DeleteNetworkInterfacePermission": "the call names a permission and no interface",
    "cloudwatch:PutMetricData": "knows data sets only, and the service's metrics belong to none",
}

# Services that act with a role of ours and do not say for which resource, so that no condition
# could hold: https://docs.aws.amazon.com/lambda/latest/dg/lambda-intro-execution-role.html
SAY_NO_SOURCE = ["lambda.amazonaws.com"]

# What CloudWatch Logs says instead when it uses a key: for which log groups and deliveries.
LOGS_SAY = {"kms:encryptioncontext:aws:logs:arn", "kms:encryptioncontext:sourcearn"}

# What SNS says when it uses a key, for whoever publishes.
SNS_SAYS = "kms:encryptioncontext:aws:sns:topicarn"

# EventBridge says nothing when it publishes to a topic, and any condition would shut it out.
TELLS_TOPICS = ("events.amazonaws.com", ["sns:Publish"])

RESOURCE_POLICIES = {
    "AWS::S3::BucketPolicy": "PolicyDocument",
    "AWS::SQS::QueuePolicy": "PolicyDocument",
    "AWS::SNS::TopicPolicy": "PolicyDocument",
    "AWS::KMS::Key": "KeyPolicy",
}


def roles(templates: dict[str, Template]) -> Iterator[tuple[str, list[Statement]]]:
    for name, template in templates.items():
        for role, statements in statements_of_roles(template).items():
            yield f"{name}/{role}", statements


def known(action: str) -> dict[str, Any]:
    service, _, name = action.partition(":")
    found: dict[str, Any] = REFERENCE[service]["Actions"][name.lower()]
    return found


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def test_no_role_has_a_policy_that_aws_manages(templates: dict[str, Template]) -> None:
    managed = [
        f"{name}/{logical_id}"
        for name, template in templates.items()
        for logical_id, resource in template["Resources"].items()
        if resource["Type"] in ("AWS::IAM::Role", "AWS::IAM::User", "AWS::IAM::Group")
        and resource["Properties"].get("ManagedPolicyArns")
    ]

    assert managed == []


def test_every_action_is_one_that_aws_knows(templates: dict[str, Template]) -> None:
    unknown = {
        f"{role}: {action}"
        for role, statements in roles(templates)
        for action in actions_of(statements)
        if action.partition(":")[2].lower()
        not in REFERENCE.get(action.partition(":")[0], {"Actions": ()})["Actions"]
    }

    assert unknown == set()


def test_only_actions_without_resources_are_allowed_on_all(templates: dict[str, Template]) -> None:
    wide = {
        f"{role}: {action}"
        for role, statements in roles(templates)
        for statement in statements
        if statement["Effect"] == "Allow" and "*" in as_list(statement["Resource"])
        for action in as_list(statement["Action"])
        if known(action).get("Resources")
        if not (action in ANY_RESOURCE and statement.get("Condition"))
    }

    assert wide == set()


def test_an_action_on_all_resources_is_excused_only_where_it_is_used(
    templates: dict[str, Template],
) -> None:
    used = {
        action
        for _, statements in roles(templates)
        for statement in statements
        if "*" in as_list(statement["Resource"])
        for action in as_list(statement["Action"])
    }

    assert set(ANY_RESOURCE) - used == set()


def test_a_service_is_trusted_for_resources_of_ours_only(templates: dict[str, Template]) -> None:
    trusted = {
        f"{where}: {json.dumps(service)}"
        for name, template in templates.items()
        for where, statement in trusting(name, template)
        for service in services(statement)
        if not (service in SAY_NO_SOURCE or is_limited(statement))
        and (service, statement["Action"]) != TELLS_TOPICS
    }

    assert trusted == set()


def test_a_service_invokes_a_function_for_resources_of_ours_only(
    templates: dict[str, Template],
) -> None:
    permissions = [
        resource["Properties"]
        for template in templates.values()
        for resource in template["Resources"].values()
        if resource["Type"] == "AWS::Lambda::Permission"
    ]

    assert permissions
    for permission in permissions:
        assert {"SourceArn", "SourceAccount"} & set(permission)


def trusting(name: str, template: Template) -> Iterator[tuple[str, Statement]]:
    """The statements by which a role or a resource lets somebody in."""
    for logical_id, resource in template["Resources"].items():
        member = (
            "AssumeRolePolicyDocument"
            if resource["Type"] == "AWS::IAM::Role"
            else RESOURCE_POLICIES.get(resource["Type"])
        )
        if member is not None and member in resource["Properties"]:
            for statement in resource["Properties"][member]["Statement"]:
                if statement["Effect"] == "Allow":
                    yield f"{name}/{logical_id}", statement


def services(statement: Statement) -> list[str]:
    principal = statement.get("Principal", {})
    return as_list(principal.get("Service", [])) if isinstance(principal, dict) else []


def is_limited(statement: Statement) -> bool:
    keys = {key.lower() for operator in statement.get("Condition", {}).values() for key in operator}
    return bool(keys & {"aws:sourcearn", "aws:sourceaccount", *LOGS_SAY, SNS_SAYS})


@pytest.mark.parametrize(
    ("statement", "limited"),
    [
        ({"Condition": {"ArnLike": {"aws:SourceArn": "arn:…"}}}, True),
        ({"Condition": {"Bool": {"aws:SecureTransport": "true"}}}, False),
        ({}, False),
    ],
)
def test_a_condition_of_another_kind_limits_nothing(statement: Statement, limited: bool) -> None:
    assert is_limited(statement) == limited
