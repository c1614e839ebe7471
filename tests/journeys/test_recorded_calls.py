"""What functions and state machine call in the local cloud, held against their roles.

A worker notes each of its calls, see recorder/. The emulator's own evaluation of policies then says
whether the role that the template gave the function allows the action on that very resource.
"""

import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ministack.core.iam_evaluator import EvalContext, evaluate, parse_policy_document

from local_cloud import LocalCloud
from local_cloud.cloud import ACCOUNT, REGION
from tests.examples.programs import FOLDER, synthesize
from tests.policies import actions_of, statements_of_roles

from .conftest import Pipeline, deployed, eventually, set_environment, stack_status

HERE = Path(__file__).parent
EXAMPLE = FOLDER / "csv_join_lookup"

# What a task of a state machine does with the state machine's role. Of `.sync`, the emulator makes
# the first call only: https://docs.aws.amazon.com/step-functions/latest/dg/connect-sagemaker.html
TASKS = {
    "sagemaker:createTransformJob.sync": {
        "sagemaker:CreateTransformJob",
        "sagemaker:AddTags",
        "sagemaker:DescribeTransformJob",
        "sagemaker:StopTransformJob",
        "events:DescribeRule",
        "events:PutRule",
        "events:PutTargets",
    },
    "lambda:invoke": {"lambda:InvokeFunction"},
    "events:putEvents": {"events:PutEvents"},
}
PARTS = {"Put": "PutItem", "Update": "UpdateItem", "Delete": "DeleteItem"}
OBJECTS = {
    "AbortMultipartUpload": "AbortMultipartUpload",
    "CompleteMultipartUpload": "PutObject",
    "CopyObject": "PutObject",
    "CreateMultipartUpload": "PutObject",
    "GetObject": "GetObject",
    "HeadObject": "GetObject",
    "PutObject": "PutObject",
    "UploadPart": "PutObject",
    "UploadPartCopy": "PutObject",
}


@dataclass(frozen=True)
class Use:
    """An action on a resource, and what a policy's conditions may ask of it."""

    action: str
    resource: str
    context: tuple[tuple[str, str], ...] = ()


@dataclass
class Observed:
    """What was seen of a pipeline that runs.

    :param policies: of each function's role as deployed, by the function's module.
    :param used: likewise.
    :param tasks: the resources of the state machine's tasks.
    """

    template: dict[str, Any]
    policies: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    used: dict[str, set[Use]] = field(default_factory=dict)
    tasks: set[str] = field(default_factory=set)


@pytest.fixture(scope="module")
def observed(cloud: LocalCloud, tmp_path_factory: pytest.TempPathFactory) -> Observed:
    """Run the whole way of drops: good, bad and superseded ones; index them and look them up.

    In the end the stack is deleted.
    """
    folder = tmp_path_factory.mktemp("recorded")
    calls = folder / "calls.jsonl"
    assembly = synthesize(EXAMPLE)
    (path,) = assembly.glob("*.template.json")
    template = json.loads(path.read_text())
    set_environment(assembly, PYTHONPATH=str(HERE / "recorder"), RECORDED_CALLS=str(calls))

    ((stack, outputs),) = cloud.deploy(assembly).items()
    pipeline = deployed(cloud, outputs)
    make_it_do_everything(pipeline)

    functions = {
        function["FunctionName"]: function
        for page in cloud.client("lambda").get_paginator("list_functions").paginate()
        for function in page["Functions"]
        if "RECORDED_CALLS" in function["Environment"]["Variables"]
    }
    modules = {name: each["Handler"].split(".")[1] for name, each in functions.items()}
    found = Observed(
        template=template,
        policies={
            modules[name]: policies_of(cloud, each["Role"]) for name, each in functions.items()
        },
        tasks=set(tasks_of(cloud, pipeline.client.pipeline_id)),
    )
    cloud.client("cloudformation").delete_stack(StackName=stack)
    eventually(lambda: stack_status(cloud, stack), lambda status: status is None)
    for line in calls.read_text().splitlines():
        name, service, operation, of = json.loads(line)
        found.used.setdefault(modules[name], set()).update(uses(service, operation, of))
    return found


def policies_of(cloud: LocalCloud, role_arn: str) -> list[dict[str, Any]]:
    iam = cloud.client("iam")
    role = role_arn.rpartition("/")[2]
    return [
        iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
        for name in iam.list_role_policies(RoleName=role)["PolicyNames"]
    ]


def make_it_do_everything(pipeline: Pipeline) -> None:
    drops = EXAMPLE / "drops"
    good = [pipeline.drop(path.name, path.read_bytes()) for path in sorted(drops.iterdir())]
    bad = pipeline.drop("bad.csv", b"C-9,not-a-number\n")
    pipeline.drop("twice.csv", b"C-1,1,2,3\n")
    twice = pipeline.drop("twice.csv", (drops / "customers.csv").read_bytes())
    pipeline.wait(*good, bad, twice)
    assert pipeline.client.lookup("C-1002") is not None
    assert {drop.status for drop in pipeline.versions(bad)} == {"failed"}


def tasks_of(cloud: LocalCloud, pipeline_id: str) -> Iterator[str]:
    states = cloud.client("stepfunctions")
    parameter = f"/batch-transform/{pipeline_id}/state-machine-arn"
    machine = cloud.client("ssm").get_parameter(Name=parameter)["Parameter"]["Value"]
    for page in states.get_paginator("list_executions").paginate(stateMachineArn=machine):
        for execution in page["executions"]:
            arn = execution["executionArn"]
            for events in states.get_paginator("get_execution_history").paginate(executionArn=arn):
                for event in events["events"]:
                    if details := event.get("taskScheduledEventDetails"):
                        yield str(details["resource"]).partition(":::")[2]


def uses(service: str, operation: str, of: dict[str, Any]) -> Iterator[Use]:
    """What IAM asks for a call."""
    match service:
        case "s3" if operation == "ListObjectsV2":
            prefix = (("s3:prefix", of["Prefix"]),)
            yield Use("s3:ListBucket", f"arn:aws:s3:::{of['Bucket']}", prefix)
        case "s3":
            yield Use(f"s3:{OBJECTS[operation]}", f"arn:aws:s3:::{of['Bucket']}/{of['Key']}")
            if source := of.get("CopySource"):
                yield Use("s3:GetObject", f"arn:aws:s3:::{source['Bucket']}/{source['Key']}")
        case "dynamodb":
            tables = f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/"
            for kind, table in of["Parts"]:
                yield Use(f"dynamodb:{PARTS[kind]}", f"{tables}{table}")
            for table in of["Tables"]:
                yield Use(f"dynamodb:{operation}", f"{tables}{table}")
            if table := of.get("TableName"):
                index = f"/index/{of['IndexName']}" if "IndexName" in of else ""
                yield Use(f"dynamodb:{operation}", f"{tables}{table}{index}")
        case "sqs":
            name = of["QueueUrl"].rpartition("/")[2]
            yield Use(f"sqs:{operation}", f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}")
        case "stepfunctions":
            yield Use(f"states:{operation}", of.get("stateMachineArn") or of["executionArn"])
        case "sagemaker":
            kinds = {"transform-job": "TransformJobName", "model": "ModelName"}
            (resource, *_) = [
                *(
                    f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:{kind}/{of[name]}"
                    for kind, name in kinds.items()
                    if name in of
                ),
                "*",
            ]
            yield Use(f"sagemaker:{operation}", resource)
        case "logs":
            group = of["logGroupName"]
            yield Use(f"logs:{operation}", f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{group}:*")
        case _:
            raise AssertionError(f"a call that this test cannot judge: {service} {operation} {of}")


def test_every_function_was_seen_at_work(observed: Observed) -> None:
    assert set(observed.used) == {"intake", "dispatch", "settle", "index", "lookup", "deletion"}
    assert {task.partition(":")[0] for task in observed.tasks} == {"sagemaker", "lambda", "events"}


def test_a_role_allows_every_call_on_the_very_resource(observed: Observed) -> None:
    denied = [
        (module, use)
        for module, found in observed.used.items()
        for use in found
        if not allows(observed.policies[module], use)
    ]

    assert denied == []


def test_the_evaluation_denies_what_no_policy_allows(observed: Observed) -> None:
    (use, *_) = [use for use in observed.used["settle"] if use.action == "s3:PutObject"]
    (listing, *_) = [use for use in observed.used["settle"] if use.action == "s3:ListBucket"]

    bucket = use.resource.partition("/")[0]
    for wrong in (
        Use("s3:PutObject", f"{bucket}/elsewhere"),
        Use("s3:DeleteObject", use.resource),
        Use("s3:ListBucket", listing.resource, (("s3:prefix", "elsewhere/"),)),
    ):
        assert not allows(observed.policies["settle"], wrong)


def allows(documents: list[dict[str, Any]], use: Use) -> bool:
    context = EvalContext(
        principal_arn=f"arn:aws:sts::{ACCOUNT}:assumed-role/function/function",
        principal_type="AssumedRole",
        principal_account=ACCOUNT,
        action=use.action,
        resource_arn=use.resource,
        region=REGION,
        service_context=dict(use.context),
    )
    policies = [parse_policy_document(document) for document in documents]
    return bool(evaluate(context, policies).decision == "Allow")


def test_the_state_machine_may_do_what_its_tasks_do(observed: Observed) -> None:
    needed = set[str]().union(*(TASKS[task] for task in observed.tasks))

    assert needed - actions_of(statements_of_roles(observed.template)[run_role(observed)]) == set()


def test_what_was_never_used_is_listed_with_a_reason(observed: Observed) -> None:
    """The list is exact, but for what depends on time, which may be used or not."""
    listed = tomllib.loads((HERE / "unused_permissions.toml").read_text())["unused"]
    always, sometimes = (
        {
            (of, action)
            for row in listed
            if row.get("sometimes", False) is timing
            for of in row["of"]
            for action in row["actions"]
        }
        for timing in (False, True)
    )
    assert all(row["because"] for row in listed)

    statements = statements_of_roles(observed.template)
    unused = {
        (module, action)
        for module, found in observed.used.items()
        for action in actions_of(statements[function_role(observed, module)])
        - {use.action for use in found}
    }
    tasks = set[str]().union(*(TASKS[task] for task in observed.tasks))
    unused |= {("run", action) for action in actions_of(statements[run_role(observed)]) - tasks}

    assert named(unused - sometimes - always) == "", "not used, and not listed"
    assert named(always - unused) == "", "listed, and used or not allowed"


def named(permissions: set[tuple[str, str]]) -> str:
    return "\n".join(f"{of} {action}" for of, action in sorted(permissions))


def function_role(observed: Observed, module: str) -> str:
    (role,) = [
        resource["Properties"]["Role"]["Fn::GetAtt"][0]
        for resource in observed.template["Resources"].values()
        if resource["Type"] == "AWS::Lambda::Function"
        and resource["Properties"]["Handler"].split(".")[1] == module
    ]
    return str(role)


def run_role(observed: Observed) -> str:
    (role,) = [
        resource["Properties"]["RoleArn"]["Fn::GetAtt"][0]
        for resource in observed.template["Resources"].values()
        if resource["Type"] == "AWS::StepFunctions::StateMachine"
    ]
    return str(role)
