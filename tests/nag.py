"""What a rule pack of cdk-nag finds in a finished template."""

import json
from pathlib import Path
from typing import Any

from aws_cdk import App, Stack
from aws_cdk.cloudformation_include import CfnInclude
from cdk_nag import NagPack


def include(template: dict[str, Any], path: Path) -> Stack:
    """Return a stack in which every resource of a template has a class of its own.

    The rules do not look at one that is defined as a CfnResource, as our functions are.

    :param path: where the template may be written.
    """
    path.write_text(json.dumps(template))
    stack = Stack(App(analytics_reporting=False), "Included")
    CfnInclude(stack, "Template", template_file=str(path))
    return stack


def findings(included: Stack, pack: type[NagPack]) -> dict[str, set[str]]:
    """Return the logical ids of the resources that break a rule, by the rule's id."""
    report = pack(included).validate_scope(included)
    return {
        violation.rule_name: {
            str(resource.construct_path).rpartition("/")[2]
            for resource in violation.violating_resources
        }
        for violation in report.violations
    }
