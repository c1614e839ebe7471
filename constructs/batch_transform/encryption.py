"""One KMS key for all that a pipeline keeps, and what the key's policy has to say for it.

Roles of the pipeline get the use of the key by their own policies. AWS services that use it for
nobody's role can be let do so by the key's policy alone.
"""

from typing import TYPE_CHECKING

from aws_cdk import Annotations
from aws_cdk import aws_iam as iam
from constructs import Construct

from batch_transform.account_imports import is_of_account
from batch_transform.deployed import Place, place_of
from batch_transform.statements import Statement, allow, allow_services

if TYPE_CHECKING:
    from aws_cdk import aws_kms as kms

#: The id of the warning, for `Annotations.of(pipeline).acknowledge_warning`.
POLICY_OF_IMPORTED_KEY = "@batch-transform:policyOfImportedKey"

_LOGS_ACTIONS = (
    "kms:Decrypt",
    "kms:DescribeKey",
    "kms:Encrypt",
    "kms:GenerateDataKey",
    "kms:GenerateDataKeyWithoutPlaintext",
    "kms:ReEncryptFrom",
    "kms:ReEncryptTo",
)


def let_services_use(scope: Construct, key: "kms.IKey") -> None:
    """Let the services that write for a pipeline use `key`; warn when its policy is not ours."""
    if is_of_account(key):
        return
    statements = map(iam.PolicyStatement.from_json, service_statements(place_of(scope)))
    added = [key.add_to_resource_policy(statement).statement_added for statement in statements]
    if not all(added):
        Annotations.of(scope).add_warning_v2(
            POLICY_OF_IMPORTED_KEY,
            "the policy of encryption_key must let events.amazonaws.com, logs.<region>."
            "amazonaws.com and delivery.logs.amazonaws.com use the key, got an imported key, whose "
            "policy cannot be changed from here; add the statements of docs/encryption.md to it "
            "and acknowledge this, or no upload starts a run and the stack cannot be deployed",
        )


def state_machine_key_use(scope: Construct, key: "kms.IKey") -> list[Statement]:
    """Return what the role of a state machine under `key` needs, for its runs and its logs."""
    place = place_of(scope)
    # Its own name is not known before the role is.
    machines = place.arn("states", "stateMachine:*")
    return [
        allow(
            actions=["kms:Decrypt", "kms:GenerateDataKey"],
            conditions={"ArnLike": {"kms:EncryptionContext:aws:states:stateMachineArn": machines}},
            resources=[key.key_arn],
        ),
        allow(
            actions=["kms:GenerateDataKey"],
            conditions={"StringEquals": {"kms:EncryptionContext:SourceArn": _logs_of(place)}},
            resources=[key.key_arn],
        ),
    ]


def _logs_of(place: Place) -> str:
    """Return what log deliveries of the account name as their source when they use a key."""
    return place.arn("logs", "*")


def service_statements(place: Place) -> list[Statement]:
    """Return what the policy of a pipeline's key has to say beside that IAM decides."""
    # Not the ARNs of rules and log groups, which name the key: CloudFormation would see a circle.
    log_groups = place.arn("logs", "log-group:*")
    return [
        allow_services(
            "EventBridgeSendsToQueues",
            "events.amazonaws.com",
            actions=["kms:Decrypt", "kms:GenerateDataKey"],
            conditions={"StringEquals": {"aws:SourceAccount": place.account}},
        ),
        allow_services(
            "CloudWatchKeepsLogs",
            f"logs.{place.region}.amazonaws.com",
            actions=_LOGS_ACTIONS,
            conditions={"ArnLike": {"kms:EncryptionContext:aws:logs:arn": log_groups}},
        ),
        allow_services(
            "StepFunctionsDeliversLogs",
            "delivery.logs.amazonaws.com",
            actions=["kms:Decrypt"],
            conditions={"StringEquals": {"kms:EncryptionContext:SourceArn": _logs_of(place)}},
        ),
    ]
