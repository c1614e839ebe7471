"""Statements of IAM policies as plain JSON.

CDK is told of them a document at a time: each `iam.PolicyStatement` would cost calls to it, and a
pipeline has some fifty (docs/benchmarks.md#synthesis).
"""

import json
from collections.abc import Iterable, Mapping, Sequence

from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from constructs import Construct

Statement = dict[str, object]

_VERSION = "2012-10-17"


def allow(
    *,
    actions: Sequence[str],
    resources: Sequence[str],
    conditions: Mapping[str, Mapping[str, object]] | None = None,
) -> Statement:
    """Return the statement that allows `actions` on `resources`, given as ARNs."""
    statement: Statement = {
        "Effect": "Allow",
        "Action": _one_or_all(actions),
        "Resource": _one_or_all(resources),
    }
    return statement if conditions is None else {**statement, "Condition": conditions}


def _one_or_all(values: Sequence[str]) -> str | list[str]:
    return values[0] if len(values) == 1 else [*values]


def deny(
    *,
    actions: Sequence[str],
    resources: Sequence[str],
    conditions: Mapping[str, Mapping[str, object]],
) -> Statement:
    """Return the statement that denies `actions` on `resources` under these conditions."""
    return {
        **allow(actions=actions, resources=resources, conditions=conditions),
        "Effect": "Deny",
    }


def allow_services(
    sid: str,
    *services: str,
    actions: Sequence[str],
    conditions: Mapping[str, Mapping[str, object]] | None,
    resources: Sequence[str] = ("*",),
) -> Statement:
    """Return the statement of a resource's policy that lets services in."""
    return {
        "Sid": sid,
        "Effect": "Allow",
        "Principal": {"Service": [*services]},
        "Action": [*actions],
        "Resource": [*resources],
        **({} if conditions is None else {"Condition": conditions}),
    }


def refuse_plain_http(action: str, *resources: str) -> Statement:
    """Return the statement of a resource's policy that lets nobody in without TLS."""
    return {
        "Sid": "TlsOnly",
        "Effect": "Deny",
        "Principal": {"AWS": "*"},
        "Action": action,
        "Resource": [*resources],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }


def key_use(key: kms.IKey, *actions: str) -> Statement:
    """Return the statement for `actions` with `key`."""
    return allow(actions=list(actions), resources=[key.key_arn])


def service_role(
    scope: Construct,
    construct_id: str,
    service: str,
    *,
    statements: Iterable[Statement],
    conditions: Mapping[str, Mapping[str, object]] | None = None,
    description: str | None = None,
) -> iam.CfnRole:
    """Define a role of a service, with these statements; level 1, for one call to CDK each.

    :param conditions: under which the service may act as it.
    """
    # What two parts of a function need alike, such as the use of one key, is said once.
    each_once = {json.dumps(statement, sort_keys=True): statement for statement in statements}
    trust: Statement = {
        "Effect": "Allow",
        "Principal": {"Service": service},
        "Action": "sts:AssumeRole",
    }
    if conditions is not None:
        trust["Condition"] = conditions
    return iam.CfnRole(
        scope,
        construct_id,
        assume_role_policy_document={"Version": _VERSION, "Statement": [trust]},
        description=description,
        # Part of the role, so that there is no moment at which it has no permissions yet.
        policies=[
            iam.CfnRole.PolicyProperty(
                policy_name="Own",
                policy_document={"Version": _VERSION, "Statement": [*each_once.values()]},
            )
        ],
    )


def own_policy(statements: Iterable[Statement]) -> dict[str, iam.PolicyDocument]:
    """Return the `inline_policies` of a role that has these statements.

    As a part of the role there is no moment at which it has no permissions yet.
    """
    return {"Own": iam.PolicyDocument.from_json({"Statement": [*statements]})}
