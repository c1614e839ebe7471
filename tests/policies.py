"""What the roles of a template may do, wherever that is written."""

from typing import Any

Statement = dict[str, Any]


def statements_of_roles(template: dict[str, Any]) -> dict[str, list[Statement]]:
    """Return the statements of every role by its logical id: its own, and of policies beside it.

    Policies of roles that are not in the template count under the policy's logical id.
    """
    found: dict[str, list[Statement]] = {}
    for name, resource in template["Resources"].items():
        properties = resource.get("Properties", {})
        if resource["Type"] == "AWS::IAM::Role":
            found.setdefault(name, [])
            for policy in properties.get("Policies", []):
                found[name] += policy["PolicyDocument"]["Statement"]
        elif resource["Type"] == "AWS::IAM::Policy":
            for role in properties.get("Roles", []):
                holder = role["Ref"] if isinstance(role, dict) and "Ref" in role else name
                found.setdefault(holder, [])
                found[holder] += properties["PolicyDocument"]["Statement"]
    return found


def statements_of(template: dict[str, Any], name: str) -> list[Statement]:
    """Return the statements of the one role whose logical id begins with `name`.

    A policy of a role that is not in the template is found by its own.
    """
    (found,) = [
        statements
        for holder, statements in statements_of_roles(template).items()
        if holder.startswith(name)
    ]
    return found


def actions_of(statements: list[Statement]) -> set[str]:
    """Return the actions that statements allow."""
    return {
        action
        for statement in statements
        for action in (
            [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
        )
    }
