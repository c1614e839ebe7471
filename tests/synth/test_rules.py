"""What others' rules say of the template: cdk-nag, cfn-lint."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from aws_cdk import Acknowledgment, Stack, Validations
from cdk_nag import AwsSolutionsChecks
from cfnlint.api import lint  # type: ignore[import-untyped]

from batch_transform import BatchTransform

# By pattern of the rule's id. Acknowledged here and not in the library, which then has no say
# in what its users find acceptable.
REASONS = {
    r"AwsSolutions-S1": "access logs need a bucket of their own; CloudTrail is the account's",
    r"AwsSolutions-L1": "3.13 is what the functions are tested on; a newer one is not better here",
    r"AwsSolutions-IAM5\[Resource::\*\]": (
        "X-Ray, log delivery, ListTransformJobs, PutMetricData and ECR's token know no resource"
    ),
    r"AwsSolutions-IAM5\[Action::kms:(GenerateDataKey|ReEncrypt)\*\]": "what DynamoDB needs",
    r"AwsSolutions-IAM5\[Resource::.*/(input|drops|predictions|reports|runs|capture)/\*\]": (
        "objects under one prefix of the pipeline's own"
    ),
    r"AwsSolutions-IAM5\[Resource::.*/runs/\*/manifest\.json\]": "the manifests of all runs",
    r"AwsSolutions-IAM5\[Resource::.*:transform-job/[a-z0-9-]+-\*\]": "jobs of this pipeline",
    r"AwsSolutions-IAM5\[Resource::.*:log-group:/aws/sagemaker/TransformJobs:?\*\]": (
        "the service's log group and its streams"
    ),
    r"AwsSolutions-IAM5\[Resource::.*:execution:.*:\*\]": "executions of this state machine",
    r"AwsSolutions-IAM5\[Resource::.*/\*/GET/predictions\*\]": "every id, in every stage",
    r"AwsSolutions-IAM5\[Resource::.*:parameter/batch-transform/churn/\*\]": "its own parameters",
}


def violations(stack: Stack) -> set[str]:
    report = AwsSolutionsChecks(stack).validate_scope(stack)
    return {violation.rule_name for violation in report.violations}


@pytest.mark.parametrize("which", ["nothing_on", "everything_on"])
def test_aws_solutions_finds_nothing_that_has_no_reason(
    which: str, new_stack: Callable[[], Stack], request: pytest.FixtureRequest
) -> None:
    stack = new_stack()
    request.getfixturevalue(which)(stack)
    found = violations(stack)
    reasons = {
        rule: reason
        for rule in found
        for pattern, reason in REASONS.items()
        if re.fullmatch(pattern, rule)
    }

    Validations.of(stack).acknowledge(
        *(Acknowledgment(id=rule, reason=reason) for rule, reason in reasons.items())
    )

    assert found - set(reasons) == set()
    assert violations(stack) == set()


def test_no_reason_is_left_over(
    everything_on: Callable[[Stack], BatchTransform],
    nothing_on: Callable[[Stack], BatchTransform],
    new_stack: Callable[[], Stack],
) -> None:
    found: set[str] = set()
    for define in (everything_on, nothing_on):
        stack = new_stack()
        define(stack)
        found |= violations(stack)

    unused = [p for p in REASONS if not any(re.fullmatch(p, rule) for rule in found)]
    assert unused == []


@pytest.mark.parametrize("which", ["nothing_on", "everything_on"])
def test_cloudformation_linter_finds_nothing(
    which: str,
    synthesize: Callable[[Any], dict[str, Any]],
    request: pytest.FixtureRequest,
) -> None:
    template = synthesize(request.getfixturevalue(which))

    # W3005: CDK names a role in DependsOn beside the policy for whose sake it is there.
    found = [match for match in lint(json.dumps(template)) if match.rule.id != "W3005"]
    assert [f"{match.path} {match.message}" for match in found] == []
