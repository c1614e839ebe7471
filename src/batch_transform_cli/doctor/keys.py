"""KMS keys that exist already: whether they can be used, and by whom they have to be."""

import fnmatch
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from batch_transform_cli.doctor.findings import Finding, fail, ok, warn
from batch_transform_cli.doctor.reader import Absent, NotAllowed
from batch_transform_cli.doctor.site import Check, Site

_STATEMENTS = "docs/encryption.md has the statements; set the policy with them:\n"
# What each service calls, by the start of its name.
_ACTIONS: Mapping[str, Sequence[str]] = {
    "events.": ("kms:Decrypt", "kms:GenerateDataKey"),
    "logs.": ("kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey", "kms:DescribeKey"),
    "delivery.logs.": ("kms:Decrypt",),
}


def key_finding(arn: str, metadata: Mapping[str, Any], region: str) -> Finding:
    """Say whether a key can be used at all."""
    state = metadata["KeyState"]
    if state == "PendingDeletion":
        fix = "\n".join(
            f"aws kms {operation} --key-id {arn} --region {region}"
            for operation in ("cancel-key-deletion", "enable-key")
        )
        return fail("key", f"{arn} is to be deleted on {metadata.get('DeletionDate', '?')}", fix)
    if state != "Enabled":
        fix = f"aws kms enable-key --key-id {arn} --region {region}"
        return fail("key", f"{arn} is {state}", fix)
    spec = metadata.get("KeySpec", "SYMMETRIC_DEFAULT")
    if spec != "SYMMETRIC_DEFAULT":
        fix = "take a symmetric key; services can encrypt with no other"
        return fail("key", f"{arn} is of the kind {spec}", fix)
    return ok("key", f"{arn} is enabled")


def policy_findings(
    arn: str, policy: Mapping[str, Any], users: frozenset[str]
) -> Iterator[Finding]:
    """Say whom a key's policy leaves out; conditions are not evaluated.

    :param users: the services that have to use the key.
    """
    statements = _listed(policy.get("Statement", []))
    account = arn.split(":")[4]
    missing = [
        user
        for user in sorted(users)
        if not all(_allows(statements, "Service", [user], action) for action in _actions(user))
    ]
    roots = [f"*:iam::{account}:root", account]
    if not _allows(statements, "AWS", roots, "kms:Decrypt"):
        yield warn(
            "key",
            f"the policy of {arn} does not leave permissions to IAM, so that it has to name each "
            "role of the pipelines",
            _STATEMENTS + _put(arn),
        )
    if missing:
        yield fail(
            "key",
            f"the policy of {arn} does not let {' and '.join(missing)} use it",
            _STATEMENTS + _put(arn),
        )
    elif users:
        yield ok("key", f"the policy of {arn} lets {' and '.join(sorted(users))} use it")


def _put(arn: str) -> str:
    region = arn.split(":")[3]
    return (
        f"aws kms put-key-policy --key-id {arn} --policy-name default --policy file://policy.json "
        f"--region {region}"
    )


def _allows(
    statements: Sequence[Mapping[str, Any]], kind: str, names: Sequence[str], action: str
) -> bool:
    return any(
        each.get("Effect") == "Allow"
        and any(fnmatch.fnmatchcase(action, done) for done in _listed(each.get("Action", [])))
        and _names(each.get("Principal"), kind, names)
        for each in statements
    )


def _names(principal: Any, kind: str, names: Sequence[str]) -> bool:
    if principal == "*":
        return True
    named = _listed(principal.get(kind, [])) if isinstance(principal, Mapping) else []
    return any(fnmatch.fnmatchcase(each, name) for each in named for name in (*names, "[*]"))


def _actions(user: str) -> Sequence[str]:
    return next(actions for start, actions in _ACTIONS.items() if user.startswith(start))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _examine(item: tuple[str, frozenset[str]], site: Site) -> Iterator[Finding]:
    arn, _ = item
    region = arn.split(":")[3]
    if region != site.region:
        found = f"{arn} is in {region}, and is used in {site.region}"
        yield fail("key", found, f"take a key of {site.region}, or a replica of a multi-region key")
        return
    try:
        metadata = site.reader.read("kms", "describe_key", KeyId=arn)["KeyMetadata"]
    except Absent:
        yield fail("key", f"{arn} is not there", "mend the ARN, or make the key first")
        return
    yield key_finding(arn, metadata, region)


def _policy(item: tuple[str, frozenset[str]], site: Site) -> Iterator[Finding]:
    arn, users = item
    if arn.split(":")[3] != site.region:
        return
    try:
        text = site.reader.read("kms", "get_key_policy", KeyId=arn, PolicyName="default")["Policy"]
    except Absent:
        return
    except NotAllowed:
        if arn.split(":")[4] == site.account:
            raise
        yield warn(
            "key",
            f"the policy of {arn}, a key of another account, could not be read",
            "have it looked at there; docs/encryption.md says what it needs",
        )
        return
    yield from policy_findings(arn, json.loads(text), users)


CHECKS = (
    Check(
        topic="key",
        items=lambda site: {arn: (arn, users) for arn, users in site.needs.keys.items()},
        examine=_examine,
    ),
    Check(
        topic="key",
        items=lambda site: {arn: (arn, users) for arn, users in site.needs.keys.items()},
        examine=_policy,
        not_local="a local cloud does not enforce policies",
    ),
)
