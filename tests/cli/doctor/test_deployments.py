"""Bootstraps, stacks, and the parameters that are read and written."""

import pytest

from batch_transform_cli.doctor.deployments import (
    bootstrap_finding,
    fact_findings,
    parameter_findings,
    stack_finding,
)
from batch_transform_cli.doctor.needs import Parameter
from batch_transform_cli.doctor.site import Deployment

WHERE = "aws://111122223333/eu-west-1"
NARROW = "/cdk-bootstrap/batch/version"


@pytest.mark.parametrize(
    ("version", "level"),
    [(None, "fail"), ("5", "fail"), ("6", "ok"), ("32", "ok"), ("none", "fail")],
)
def test_a_bootstrap_must_be_new_enough(version: str | None, level: str) -> None:
    assert bootstrap_finding(NARROW, 6, version, WHERE).level == level


def test_the_remedy_bootstraps_by_the_qualifier() -> None:
    assert bootstrap_finding(NARROW, 6, None, WHERE).fix == (
        f"cdk bootstrap --qualifier batch --toolkit-stack-name CDKToolkit-batch {WHERE}"
    )
    default = bootstrap_finding("/cdk-bootstrap/hnb659fds/version", 6, None, WHERE)
    assert default.fix == f"cdk bootstrap {WHERE}"


@pytest.mark.parametrize(
    ("status", "level"),
    [
        (None, "ok"),
        ("CREATE_COMPLETE", "ok"),
        ("UPDATE_COMPLETE", "ok"),
        ("UPDATE_IN_PROGRESS", "warn"),
        ("UPDATE_ROLLBACK_COMPLETE", "warn"),
        ("UPDATE_ROLLBACK_FAILED", "fail"),
        ("ROLLBACK_COMPLETE", "fail"),
        ("DELETE_FAILED", "fail"),
    ],
)
def test_a_stack_must_not_have_failed(status: str | None, level: str) -> None:
    deployment = None if status is None else Deployment(status=status, resources={})
    assert stack_finding("Churn", deployment, "eu-west-1").level == level


DEPLOYED = Deployment(status="CREATE_COMPLETE", resources={"Ledger": "ledger-1"})
WRITTEN = {"/batch-transform/churn/ledger-table": {"Ref": "Ledger"}}


def test_parameters_as_deployed_are_good() -> None:
    there = {"/batch-transform/churn/ledger-table": "ledger-1"}
    (found,) = fact_findings(WRITTEN, there, DEPLOYED, stack="Churn", region="eu-west-1")
    assert found.level == "ok"


@pytest.mark.parametrize(
    ("there", "how"),
    [
        pytest.param({}, "is not there", id="missing"),
        pytest.param(
            {"/batch-transform/churn/ledger-table": "old"},
            "is old, and ledger-1 is deployed",
            id="another",
        ),
    ],
)
def test_parameters_of_something_else_are_failures(there: dict[str, str], how: str) -> None:
    (found,) = fact_findings(WRITTEN, there, DEPLOYED, stack="Churn", region="eu-west-1")

    assert found.level == "fail"
    assert how in found.found
    assert "--overwrite --value ledger-1" in found.fix


def test_parameters_that_are_missing_are_told_by_their_remedy() -> None:
    def parameter(name: str, made_by: str = "") -> Parameter:
        return Parameter(name=name, stack="Churn", names_model=False, made_by=made_by)

    names = [
        parameter("/batch-transform-account/key-arn", "Account"),
        parameter("/batch-transform-account/vpc-id", "Account"),
        parameter("/batch-transform-account/boundary-arn"),
        parameter("/churn/model"),
        parameter("/churn/there"),
    ]
    found = [*parameter_findings(names, {"/churn/there"}, "eu-west-1")]

    assert [each.level for each in found] == ["ok", "warn", "fail", "fail"]
    assert found[1].found == (
        "/batch-transform-account/key-arn, /batch-transform-account/vpc-id: not there"
    )
    assert found[1].fix == "cdk deploy Account, before the others"
    assert "AccountBaseline" in found[2].fix
    assert "aws ssm put-parameter --name /churn/model" in found[3].fix
