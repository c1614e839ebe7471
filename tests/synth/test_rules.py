"""What others' rules say of the template: cdk-nag, cfn-lint."""

import json
import re

import pytest
from cdk_nag import AwsSolutionsChecks
from cfnlint.api import lint  # type: ignore[import-untyped]

from tests.nag import findings, include

from .conftest import Template

Findings = dict[str, set[str]]

# By pattern of the rule's id. Acknowledged here and not in the library, which then has no say
# in what its users find acceptable.
REASONS = {
    r"AwsSolutions-S1": "access logs need a bucket of their own; CloudTrail is the account's",
    r"AwsSolutions-L1": "3.13 is what the functions are tested on; a newer one is not better here",
    r"AwsSolutions-IAM5\[Resource::\*\]": (
        "X-Ray, log delivery, ListTransformJobs, PutMetricData and ECR's token know no resource; "
        "an account's boundary and deployment policy cannot know the names of pipelines"
    ),
    r"AwsSolutions-IAM5\[Resource::.*/(input|drops|predictions|reports|runs|capture)/\*\]": (
        "objects under one prefix of the pipeline's own"
    ),
    r"AwsSolutions-IAM5\[Resource::.*/(customers|scores)/\*\]": "where a task reads and writes",
    r"AwsSolutions-IAM5\[Resource::.*/claims/\*\]": "a prefix of an existing bucket",
    r"AwsSolutions-IAM5\[Resource::.*:network-interface/\*\]": "interfaces have no name beforehand",
    r"AwsSolutions-IAM5\[Resource::.*:ec2:[^*]+:\*:(subnet|security-group)/.*\]": (
        "subnets and groups of one VPC, which another account may share"
    ),
    r"AwsSolutions-IAM5\[Resource::.*/runs/\*/manifest-\d\.json\]": "a step's input in all runs",
    r"AwsSolutions-IAM5\[Resource::.*/runs/\*/step-\d-of-\d/\*\]": "a step's outputs in all runs",
    r"AwsSolutions-IAM5\[Resource::.*:transform-job/[a-z0-9-]+-\*(-s\d-\*)?\]": (
        "jobs of this pipeline, or of one of its steps"
    ),
    r"AwsSolutions-IAM5\[Resource::.*:log-group:/aws/sagemaker/TransformJobs:?\*\]": (
        "the service's log group and its streams"
    ),
    r"AwsSolutions-IAM5\[Resource::.*:execution:.*:\*\]": "executions of this state machine",
    r"AwsSolutions-IAM5\[Resource::.*/\$default/GET/predictions/\*\]": "every id",
    r"AwsSolutions-IAM5\[Resource::.*:(role/|function:)Scoring\*\]": "of scoring stacks",
    r"AwsSolutions-IAM5\[Resource::.*:role/aws-service-role/ops\.apigateway\.amazonaws\.com/\*\]": (
        "the role that API Gateway makes for itself"
    ),
    r"AwsSolutions-IAM5\[Resource::.*:(s3:::cdk-batch-assets-|.*/cdk-bootstrap/).*\]": (
        "what the account's bootstrap has, in each region"
    ),
    r"AwsSolutions-IAM5\[Resource::.*:parameter/batch-transform/?\*\]": "of all pipelines",
    r"AwsSolutions-IAM5\[Resource::.*:(kms:\*:.*:key|ec2:\*:.*:security-group)/\*\]": (
        "have no name beforehand; the key is used through services only"
    ),
    r"AwsSolutions-IAM5\[Resource::.*:apigateway:\*::/(apis|apis/\*|tags/\*)\]": (
        "HTTP APIs have no name beforehand"
    ),
    r"AwsSolutions-IAM5\[Resource::.*:parameter/batch-transform/churn/\*\]": "its own parameters",
}


@pytest.fixture(scope="module")
def found(templates: dict[str, Template], tmp_path_factory: pytest.TempPathFactory) -> Findings:
    """What AwsSolutions finds in each template."""
    folder = tmp_path_factory.mktemp("templates")
    return {
        name: set(findings(include(template, folder / f"{name}.json"), AwsSolutionsChecks))
        for name, template in templates.items()
    }


def test_aws_solutions_finds_nothing_that_has_no_reason(found: Findings) -> None:
    assert [
        f"{name}: {rule}"
        for name, rules in found.items()
        for rule in rules
        if not any(re.fullmatch(pattern, rule) for pattern in REASONS)
    ] == []


def test_no_reason_is_left_over(found: Findings) -> None:
    rules = set[str]().union(*found.values())

    assert [p for p in REASONS if not any(re.fullmatch(p, rule) for rule in rules)] == []


def test_the_rules_see_the_functions(found: Findings) -> None:
    assert "AwsSolutions-L1" in found["nothing_on"]


@pytest.mark.parametrize("which", ["nothing_on", "everything_on"])
def test_cloudformation_linter_finds_nothing(which: str, templates: dict[str, Template]) -> None:
    # W3005: CDK names a role in DependsOn beside the policy for whose sake it is there.
    matches = [m for m in lint(json.dumps(templates[which])) if m.rule.id != "W3005"]
    assert [f"{match.path} {match.message}" for match in matches] == []


@pytest.mark.parametrize("which", ["nothing_on", "everything_on"])
def test_several_pipelines_fit_in_a_stack(which: str, templates: dict[str, Template]) -> None:
    # CloudFormation's limits are 500 resources and 1 MB a template.
    template = templates[which]

    assert len(template["Resources"]) <= 80
    assert len(json.dumps(template, separators=(",", ":"))) <= 60_000
