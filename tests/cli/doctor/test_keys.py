"""Keys, and whom their policies leave out."""

from typing import Any

import pytest

from batch_transform_cli.doctor.keys import key_finding, policy_findings

ARN = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd"
ROOT = {
    "Effect": "Allow",
    "Principal": {"AWS": "arn:aws:iam::111122223333:root"},
    "Action": "kms:*",
    "Resource": "*",
}


def _service(name: str, *actions: str) -> dict[str, Any]:
    return {
        "Effect": "Allow",
        "Principal": {"Service": [name]},
        "Action": [*actions],
        "Resource": "*",
    }


@pytest.mark.parametrize(
    ("metadata", "level", "remedy"),
    [
        pytest.param({"KeyState": "Enabled"}, "ok", "", id="enabled"),
        pytest.param({"KeyState": "Disabled"}, "fail", "aws kms enable-key", id="disabled"),
        pytest.param(
            {"KeyState": "PendingDeletion"}, "fail", "cancel-key-deletion", id="to be deleted"
        ),
        pytest.param(
            {"KeyState": "Enabled", "KeySpec": "RSA_2048"}, "fail", "symmetric", id="asymmetric"
        ),
    ],
)
def test_a_key_must_be_enabled_and_symmetric(
    metadata: dict[str, Any], level: str, remedy: str
) -> None:
    found = key_finding(ARN, metadata, "eu-west-1")
    assert found.level == level
    assert remedy in found.fix


def test_the_default_policy_leaves_services_out() -> None:
    users = frozenset({"events.amazonaws.com"})
    (found,) = policy_findings(ARN, {"Statement": [ROOT]}, users)

    assert found.level == "fail"
    assert "does not let events.amazonaws.com use it" in found.found


@pytest.mark.parametrize(
    "action", ["kms:*", "kms:GenerateDataKey*", "*"], ids=["all of kms", "a start", "all"]
)
def test_a_policy_may_say_actions_by_patterns(action: str) -> None:
    statement = _service("events.amazonaws.com", "kms:Decrypt", action)
    users = frozenset({"events.amazonaws.com"})
    (found,) = policy_findings(ARN, {"Statement": [ROOT, statement]}, users)
    assert found.level == "ok"


def test_a_service_that_may_do_half_is_left_out() -> None:
    statement = _service("events.amazonaws.com", "kms:Decrypt")
    users = frozenset({"events.amazonaws.com"})
    (found,) = policy_findings(ARN, {"Statement": [ROOT, statement]}, users)
    assert found.level == "fail"


def test_log_delivery_is_not_log_storage() -> None:
    statement = _service("delivery.logs.amazonaws.com", "kms:Decrypt")
    users = frozenset({"delivery.logs.amazonaws.com", "logs.eu-west-1.amazonaws.com"})
    (found,) = policy_findings(ARN, {"Statement": [ROOT, statement]}, users)
    assert "does not let logs.eu-west-1.amazonaws.com use it" in found.found


def test_a_policy_that_does_not_leave_it_to_iam_is_a_warning() -> None:
    role = {**ROOT, "Principal": {"AWS": "arn:aws:iam::111122223333:role/admin"}}
    (found,) = policy_findings(ARN, {"Statement": role}, frozenset())
    assert (found.level, "to IAM" in found.found) == ("warn", True)
