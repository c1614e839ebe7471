"""The key of an account: for all that pipelines keep, and for the alert topic."""

from aws_cdk import CfnResource, RemovalPolicy
from constructs import Construct

from batch_transform.deployed import Place, place_of
from batch_transform.encryption import service_statements
from batch_transform.statements import Statement, allow_services

_ALIAS = "alias/batch-transform"
# https://docs.aws.amazon.com/sns/latest/dg/sns-key-management.html#compatibility-with-aws-services
ALERTING = ("cloudwatch.amazonaws.com", "budgets.amazonaws.com", "costalerts.amazonaws.com")


def define_key(scope: Construct) -> str:
    """Define the key and return its ARN.

    IAM decides who of the account may use it, so that a pipeline's roles get that by policies of
    their own. It stays when the stack goes: what it has encrypted would be lost.
    """
    place = place_of(scope)
    key = CfnResource(
        scope,
        "Key",
        type="AWS::KMS::Key",
        properties={
            "Description": "What batch transform pipelines of this account keep",
            "EnableKeyRotation": True,
            "KeyPolicy": {"Version": "2012-10-17", "Statement": _statements(place)},
        },
    )
    key.apply_removal_policy(RemovalPolicy.RETAIN)
    CfnResource(
        scope,
        "KeyAlias",
        type="AWS::KMS::Alias",
        properties={"AliasName": _ALIAS, "TargetKeyId": key.ref},
    )
    return key.get_att("Arn").to_string()


def _statements(place: Place) -> list[Statement]:
    root = f"arn:{place.partition}:iam::{place.account}:root"
    return [
        {
            "Sid": "PoliciesOfTheAccountDecide",
            "Effect": "Allow",
            "Principal": {"AWS": root},
            "Action": "kms:*",
            "Resource": "*",
        },
        *service_statements(place),
        allow_services(
            "AlertsReachTheTopic",
            *ALERTING,
            actions=["kms:Decrypt", "kms:GenerateDataKey"],
            conditions={"StringEquals": {"aws:SourceAccount": place.account}},
        ),
        allow_services(
            # On its way to a topic EventBridge says for no account, but SNS says for which topic.
            "EventBridgeTellsTopics",
            "events.amazonaws.com",
            actions=["kms:Decrypt", "kms:GenerateDataKey"],
            conditions={
                "ArnLike": {"kms:EncryptionContext:aws:sns:topicArn": place.arn("sns", "*")}
            },
        ),
    ]
