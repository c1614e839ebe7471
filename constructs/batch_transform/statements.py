"""Statements of IAM policies as plain JSON.

CDK is told of them a document at a time: each `iam.PolicyStatement` would cost calls to it, and a
pipeline has some fifty (docs/benchmarks.md#synthesis).
"""

from collections.abc import Iterable, Mapping, Sequence

from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms

Statement = dict[str, object]


def allow(
    *,
    actions: Sequence[str],
    resources: Sequence[str],
    conditions: Mapping[str, Mapping[str, object]] | None = None,
) -> Statement:
    """Return the statement that allows `actions` on `resources`, given as ARNs."""
    statement: Statement = {"Effect": "Allow", "Action": [*actions], "Resource": [*resources]}
    return statement if conditions is None else {**statement, "Condition": conditions}


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
    resources: Sequence[str] | None = ("*",),
) -> Statement:
    """Return the statement of a resource's policy that lets services in.

    :param resources: `None` in the policy of a role, which is its own resource.
    """
    return {
        "Sid": sid,
        "Effect": "Allow",
        "Principal": {"Service": [*services]},
        "Action": [*actions],
        **({} if resources is None else {"Resource": [*resources]}),
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


def own_policy(statements: Iterable[Statement]) -> dict[str, iam.PolicyDocument]:
    """Return the `inline_policies` of a role that has these statements.

    As a part of the role there is no moment at which it has no permissions yet.
    """
    return {"Own": iam.PolicyDocument.from_json({"Statement": [*statements]})}
