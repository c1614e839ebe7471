"""An app in an account that has nothing, and credentials that do not work."""

import pytest

from batch_transform_cli.doctor.assembly import AppStack
from batch_transform_cli.doctor.examination import examine_places
from batch_transform_cli.doctor.findings import Finding
from tests.cli.doctor.answers import Answer, Answers
from tests.cli.doctor.asking import ACCOUNT, REGION, World, asking


@pytest.fixture
def nothing(aws: None) -> World:
    """Ids of things that are not there."""
    return World(
        key=f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        subnet="subnet-0123456789abcdef0",
        group="sg-0123456789abcdef0",
        topic=f"arn:aws:sns:{REGION}:{ACCOUNT}:alerts",
    )


def test_an_account_that_has_nothing_is_told_each_thing_with_its_remedy(nothing: World) -> None:
    # The networks are by ids here: by a parameter that is not there none would be known.
    stack = asking(nothing, subnet=nothing.subnet)
    quota = {"QuotaName": "ml.m5.large for transform job usage", "QuotaCode": "L-1", "Value": 0.0}
    none: dict[str, Answer] = {
        "service-quotas.list_service_quotas": {"Quotas": [quota]},
        "service-quotas.list_aws_default_service_quotas": {"Quotas": []},
        "service-quotas.list_requested_service_quota_change_history_by_quota": {
            "RequestedQuotas": []
        },
    }
    found = _examine(stack, Answers(none))

    bad = [each for each in found if each.level in ("warn", "fail")]
    assert all(each.fix for each in bad)
    assert not [each for each in bad if "not looked at" in each.found]
    assert {(each.topic, each.level) for each in bad} == {
        *((topic, "fail") for topic in ("bootstrap", "parameter", "boundary", "quota", "artifact")),
        *((topic, "fail") for topic in ("image", "role", "model", "bucket", "key", "network")),
        *(("alarms", "fail"), ("budget", "warn")),
    }


@pytest.mark.parametrize(
    ("code", "how"),
    [
        pytest.param("ExpiredToken", "expired", id="expired"),
        pytest.param("InvalidClientTokenId", "not valid", id="not valid"),
    ],
)
def test_credentials_that_do_not_work_are_a_failure(nothing: World, code: str, how: str) -> None:
    found = _examine(asking(nothing), Answers({"sts.get_caller_identity": code}))

    (refused,) = [each for each in found if each.level == "fail"]
    assert (refused.topic, how in refused.found) == ("credentials", True)


def _examine(stack: AppStack, clients: Answers) -> list[Finding]:
    report = examine_places([stack], clients, REGION, [], is_local=False)
    return [finding for group in report.groups for finding in group.findings]
