"""What the Lambda code calls, and what the roles of the functions allow.

The code is read, not run: from a handler's module along every function whose name is used, to the
attributes of boto3 clients. Names, not types, so it may see a call too many; never one too few.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.policies import actions_of, statements_of, statements_of_roles

LAMBDAS = Path(__file__).resolve().parents[2] / "lambdas" / "transform_lambdas"

# The attributes and parameters by which our code holds its clients.
CLIENTS = {
    "_client": "dynamodb",
    "_s3": "s3",
    "_sqs": "sqs",
    "_states": "states",
    "_sagemaker": "sagemaker",
    "_logs": "logs",
}
# Where IAM's action is not the operation's name in another case.
ACTIONS = {
    "s3:ListObjectsV2": {"s3:ListBucket"},
    "s3:HeadObject": {"s3:GetObject"},
    "s3:CopyObject": {"s3:GetObject", "s3:PutObject"},
    "s3:Copy": {"s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"},
    "dynamodb:TransactWriteItems": set[str](),  # its parts are, see below
}
TRANSACTION_PARTS = {
    "Put": "dynamodb:PutItem",
    "Update": "dynamodb:UpdateItem",
    "Delete": "dynamodb:DeleteItem",
    "ConditionCheck": "dynamodb:ConditionCheckItem",
}
# The event source mappings receive in the name of the function.
RECEIVE = {
    "sqs:ReceiveMessage",
    "sqs:DeleteMessage",
    "sqs:GetQueueAttributes",
    "sqs:ChangeMessageVisibility",
}
CONTRACT = {
    "intake": RECEIVE
    | {
        "dynamodb:Query",
        "dynamodb:PutItem",
        "dynamodb:UpdateItem",
        "s3:ListBucket",
        "sqs:SendMessage",
    },
    "dispatch": RECEIVE
    | {
        "dynamodb:Query",
        "dynamodb:GetItem",
        "dynamodb:PutItem",
        "dynamodb:UpdateItem",
        "s3:PutObject",
        "s3:GetObject",
        "states:StartExecution",
        "states:DescribeExecution",
        "sqs:SendMessage",
    },
    "settle": {
        "dynamodb:GetItem",
        "dynamodb:BatchGetItem",
        "dynamodb:UpdateItem",
        "s3:GetObject",
        "s3:ListBucket",
        "s3:PutObject",
        "sagemaker:DescribeModel",
        "sagemaker:DescribeTransformJob",
        "sagemaker:ListTransformJobs",
        "sagemaker:StopTransformJob",
        "logs:FilterLogEvents",
        "sqs:SendMessage",
    },
    "index": {"s3:GetObject", "dynamodb:BatchWriteItem"},
    "lookup": {"dynamodb:Query"},
    "deletion": {
        "states:ListExecutions",
        "states:StopExecution",
        "sagemaker:ListTransformJobs",
        "sagemaker:StopTransformJob",
    },
}


@cache
def tree(module: str) -> ast.Module:
    return ast.parse((LAMBDAS / f"{module}.py").read_text())


def imported(module: str, seen: frozenset[str] = frozenset()) -> frozenset[str]:
    """The modules of ours that `module` imports, itself included."""
    seen |= {module}
    for node in ast.walk(tree(module)):
        if not isinstance(node, ast.ImportFrom) or not node.module:
            continue
        package, _, name = node.module.partition(".")
        if package != "transform_lambdas":
            continue
        for found in [name] if name else [alias.name for alias in node.names]:
            if found not in seen and (LAMBDAS / f"{found}.py").exists():
                seen = imported(found, seen)
    return seen


def names(node: ast.AST) -> Iterator[str]:
    """What may be a function of ours: methods, called or handed on, and functions called."""
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute):
            yield part.attr
        elif isinstance(part, ast.Call) and isinstance(part.func, ast.Name):
            yield part.func.id


def reached(module: str) -> list[ast.AST]:
    """Every function that the handler's module may come to, by name."""
    functions: dict[str, list[ast.AST]] = {}
    for other in imported(module) - {module}:
        for node in ast.walk(tree(other)):
            if isinstance(node, ast.FunctionDef):
                functions.setdefault(node.name, []).append(node)
    found: list[ast.AST] = [tree(module)]
    todo = set(names(tree(module)))
    done: set[str] = set()
    while todo:
        name = todo.pop()
        done.add(name)
        for function in functions.get(name, []):
            found.append(function)
            todo |= set(names(function)) - done
    return found


def called(module: str) -> set[str]:
    """The IAM actions that the handler's code needs."""
    needed: set[str] = set()
    for root in reached(module):
        for node in ast.walk(root):
            if isinstance(node, ast.Dict):
                keys = [key.value for key in node.keys if isinstance(key, ast.Constant)]
                needed |= {TRANSACTION_PARTS[key] for key in keys if key in TRANSACTION_PARTS}
            if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Attribute):
                continue
            service = CLIENTS.get(node.value.attr)
            if service is None or node.attr in ("exceptions", "meta", "get_paginator"):
                continue
            needed |= action(service, node.attr)
        for node in ast.walk(root):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                holder = node.func.value
                if node.func.attr == "get_paginator" and isinstance(holder, ast.Attribute):
                    operation = ast.literal_eval(node.args[0])
                    needed |= action(CLIENTS[holder.attr], operation)
    return needed


def action(service: str, operation: str) -> set[str]:
    camel = "".join(word.capitalize() for word in operation.split("_"))
    return ACTIONS.get(f"{service}:{camel}", {f"{service}:{camel}"})


@pytest.fixture(scope="module")
def allowed(template: dict[str, Any], functions: dict[str, dict[str, Any]]) -> dict[str, set[str]]:
    """The actions of each function's role by the module of its handler."""
    statements = statements_of_roles(template)
    return {
        module: actions_of(statements[properties["Role"]["Fn::GetAtt"][0]])
        for module, properties in functions.items()
    }


@pytest.mark.parametrize("module", CONTRACT)
def test_a_role_allows_what_the_contract_says(module: str, allowed: dict[str, set[str]]) -> None:
    assert CONTRACT[module] - allowed[module] == set()


@pytest.mark.parametrize("module", CONTRACT)
def test_a_role_allows_what_the_code_calls(module: str, allowed: dict[str, set[str]]) -> None:
    needed = called(module)

    assert needed
    assert needed - allowed[module] == set()


@pytest.mark.parametrize("module", CONTRACT)
def test_a_role_allows_no_more_than_code_and_contract_need(
    module: str, allowed: dict[str, set[str]]
) -> None:
    every_function = {
        "logs:CreateLogStream",
        "logs:PutLogEvents",
        "xray:PutTelemetryRecords",
        "xray:PutTraceSegments",
    }

    assert allowed[module] - called(module) - CONTRACT[module] - every_function == set()


def test_the_state_machine_creates_jobs_of_its_model_and_instance_type_only(
    template: dict[str, Any],
) -> None:
    (create,) = [
        statement
        for statement in statements_of(template, "ChurnRunRole")
        if statement["Action"] == "sagemaker:CreateTransformJob"
    ]

    assert ":transform-job/churn-*-s1-*" in str(create["Resource"])
    assert ":model/churn-v1" in str(create["Condition"]["ArnLike"]["sagemaker:ModelArn"])
    assert create["Condition"]["ForAnyValue:StringEquals"] == {
        "sagemaker:InstanceTypes": ["ml.m5.large"]
    }


def test_the_state_machine_passes_no_role_and_has_what_sync_needs(
    template: dict[str, Any],
) -> None:
    actions = actions_of(statements_of(template, "ChurnRunRole"))

    assert "iam:PassRole" not in actions
    assert {
        "sagemaker:AddTags",
        "sagemaker:ListTags",
        "sagemaker:DescribeTransformJob",
        "sagemaker:StopTransformJob",
        "events:PutTargets",
        "events:PutRule",
        "events:DescribeRule",
        "events:PutEvents",
        "lambda:InvokeFunction",
    } <= actions


def test_no_policy_allows_a_whole_service(template: dict[str, Any]) -> None:
    wide = [
        (role, action)
        for role, statements in statements_of_roles(template).items()
        for action in actions_of(statements)
        if "*" in action
    ]

    assert wide == []
