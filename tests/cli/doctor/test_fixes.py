"""The commands of fixes: ones that there are, each on a line of its own."""

import shlex
from typing import Any

import pytest

from batch_transform_cli.doctor.buckets import events_finding
from batch_transform_cli.doctor.costs import budget_finding, topic_finding
from batch_transform_cli.doctor.deployments import (
    fact_findings,
    parameter_findings,
    stack_finding,
)
from batch_transform_cli.doctor.findings import Finding
from batch_transform_cli.doctor.keys import key_finding, policy_findings
from batch_transform_cli.doctor.needs import Parameter
from batch_transform_cli.doctor.networks import egress_finding, reach_finding
from batch_transform_cli.doctor.quotas import Demand, quota_findings
from batch_transform_cli.doctor.site import Deployment
from tests.aws_commands import check_aws

KEY = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd"
REGION = "eu-west-1"
FAILED = Deployment(status="UPDATE_ROLLBACK_FAILED", resources={"Ledger": "it's"})
ASKED = {"q": Demand(at_once={"churn": 2}, largest_job=2)}


def _parameter(name: str) -> Parameter:
    return Parameter(name=name, stack="Churn", names_model=True, made_by="")


@pytest.mark.parametrize(
    ("findings", "commands"),
    [
        pytest.param([*quota_findings({"q": ("L-1", 0)}, ASKED, {}, REGION)], 1, id="quota"),
        pytest.param(
            [*quota_findings({"q": ("L-1", 0)}, ASKED, {"q": 2}, REGION)], 1, id="quota asked for"
        ),
        pytest.param([key_finding(KEY, {"KeyState": "Disabled"}, REGION)], 1, id="key"),
        pytest.param([key_finding(KEY, {"KeyState": "PendingDeletion"}, REGION)], 2, id="deleted"),
        pytest.param([*policy_findings(KEY, {}, frozenset({"events."}))], 2, id="policy"),
        pytest.param([events_finding("arrivals", {}, REGION)], 1, id="events"),
        pytest.param(
            [
                reach_finding(
                    "jobs of Churn",
                    {"subnet-1": ["s3", "sqs"]},
                    vpc="vpc-1",
                    tables=["rtb-1"],
                    region=REGION,
                )
            ],
            2,
            id="network",
        ),
        pytest.param([egress_finding("jobs of Churn", "sg-1", REGION)], 1, id="security group"),
        pytest.param([budget_finding("111122223333", [])], 1, id="budget"),
        pytest.param([topic_finding(f"arn:aws:sns:{REGION}:111122223333:a", [])], 1, id="topic"),
        pytest.param([stack_finding("Churn", FAILED, REGION)], 1, id="stack"),
        pytest.param(
            [*fact_findings({"/a": {"Ref": "Ledger"}}, {}, FAILED, stack="Churn", region=REGION)],
            1,
            id="fact",
        ),
        pytest.param([*parameter_findings([_parameter("/a")], {}, REGION)], 1, id="parameter"),
    ],
)
def test_a_command_is_one_that_there_is(findings: list[Finding], commands: Any) -> None:
    lines = [line for finding in findings for line in finding.fix.splitlines()]
    found = [shlex.split(line) for line in lines if line.startswith("aws ")]

    assert len(found) == commands
    for command in found:
        check_aws(command[1:])
