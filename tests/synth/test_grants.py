import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from aws_cdk import App, Environment, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk.aws_apigatewayv2 import CfnAuthorizer

from batch_transform import (
    BatchTransform,
    BatchTransformGrants,
    PredictionIndex,
    TransformModel,
    TransformSettings,
)
from tests.documents import PROJECT
from tests.policies import statements_of_roles


def indexed(stack: Stack) -> BatchTransform:
    return BatchTransform(
        stack,
        "Churn",
        model=TransformModel.from_model_name("churn"),
        instance_type="ml.m5.large",
        settings=TransformSettings.csv(),
        index=PredictionIndex(record_id=0),
        pipeline_id="churn",
    )


@pytest.fixture(scope="module")
def granted(synthesize: Callable[[Any], dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The statements that each grant adds, by the grant's name."""
    grants = ["Drop", "Read", "Lookup", "Watch", "Redrive", "Stop", "Score"]

    def define(stack: Stack) -> None:
        pipeline = indexed(stack)
        for grant in grants:
            role = iam.Role(stack, f"Who{grant}", assumed_by=iam.AccountRootPrincipal())
            getattr(pipeline.grants, grant.lower())(role)

    resources = synthesize(define)["Resources"]
    return {
        grant: policy["Properties"]["PolicyDocument"]["Statement"]
        for grant in grants
        for name, policy in resources.items()
        if policy["Type"] == "AWS::IAM::Policy" and name.startswith(f"Who{grant}")
    }


def resources_of(statements: list[dict[str, Any]], action: str) -> str:
    (statement,) = [s for s in statements if action in s["Action"]]
    return str(statement["Resource"])


def test_who_drops_writes_under_the_input_prefix_and_nothing_else(
    granted: dict[str, list[dict[str, Any]]],
) -> None:
    (statement,) = granted["Drop"]

    assert statement["Action"] == ["s3:AbortMultipartUpload", "s3:PutObject"]
    assert "'/input/*'" in str(statement["Resource"])


def test_who_reads_sees_predictions_and_reports_but_no_files_of_runs(
    granted: dict[str, list[dict[str, Any]]],
) -> None:
    objects = resources_of(granted["Read"], "s3:GetObject")

    assert "/predictions/*" in objects
    assert "/reports/*" in objects
    assert "/runs/" not in str(granted["Read"])


def test_who_looks_up_may_call_the_three_routes_and_nothing_else(
    granted: dict[str, list[dict[str, Any]]],
) -> None:
    (statement,) = granted["Lookup"]

    assert statement["Action"] == "execute-api:Invoke"
    assert {arn["Fn::Join"][1][-1] for arn in statement["Resource"]} == {
        "/$default/GET/predictions",
        "/$default/POST/predictions",
        "/$default/GET/predictions/*",
    }


def test_an_authorizer_of_ones_own_decides_on_every_route(
    synthesize: Callable[[Any], dict[str, Any]],
) -> None:
    def define(stack: Stack) -> None:
        pipeline = indexed(stack)
        assert pipeline.lookup is not None
        login = CfnAuthorizer(
            stack,
            "Login",
            api_id=pipeline.lookup.api.ref,
            authorizer_type="JWT",
            identity_source=["$request.header.Authorization"],
            jwt_configuration=CfnAuthorizer.JWTConfigurationProperty(
                audience=["churn"], issuer="https://login.example.com"
            ),
            name="login",
        )
        pipeline.lookup.authorize_by(login.ref, authorization_type="JWT")
        with pytest.raises(ValueError, match="needs IAM authorization, got an authorizer of yours"):
            pipeline.grants.lookup(iam.Role(stack, "Who", assumed_by=iam.AccountRootPrincipal()))

    resources = synthesize(define)["Resources"].values()

    routes = [part["Properties"] for part in resources if part["Type"].endswith("::Route")]
    assert [(route["AuthorizationType"], route["AuthorizerId"]) for route in routes] == [
        ("JWT", {"Ref": "Login"})
    ] * 3


def test_who_watches_writes_nothing(granted: dict[str, list[dict[str, Any]]]) -> None:
    verbs = {
        action.split(":")[1]
        for statement in granted["Watch"]
        for action in (
            [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
        )
    }

    assert verbs
    assert all(
        verb.startswith(("Get", "BatchGet", "Query", "Scan", "List", "Describe")) for verb in verbs
    )


def test_who_watches_may_call_what_the_command_s_status_calls(
    granted: dict[str, list[dict[str, Any]]],
) -> None:
    assert "LedgerTable" in resources_of(granted["Watch"], "dynamodb:Scan")
    (listed,) = [s for s in granted["Watch"] if s["Action"] == "s3:ListBucket"]
    assert listed["Condition"] == {"StringLike": {"s3:prefix": "runs/*"}}
    paths = resources_of(granted["Watch"], "ssm:GetParametersByPath")
    assert "/batch-transform/churn'" in paths


def actions_of(statements: list[dict[str, Any]]) -> set[str]:
    return {
        action
        for statement in statements
        for action in (
            [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
        )
    }


def test_who_redrives_may_all_that_who_watches_may(
    granted: dict[str, list[dict[str, Any]]],
) -> None:
    assert actions_of(granted["Watch"]) < actions_of(granted["Redrive"])


def test_who_redrives_writes_nothing_to_the_ledger(
    granted: dict[str, list[dict[str, Any]]],
) -> None:
    more = actions_of(granted["Redrive"]) - actions_of(granted["Watch"])

    assert {action.partition(":")[0] for action in more} == {"sqs"}


def test_who_redrives_moves_dead_letters_back_to_their_queues_only(
    granted: dict[str, list[dict[str, Any]]],
) -> None:
    (move,) = [part for part in granted["Redrive"] if "sqs:ReceiveMessage" in part["Action"]]
    (send,) = [part for part in granted["Redrive"] if "sqs:SendMessage" in part["Action"]]

    assert {"sqs:DeleteMessage", "sqs:GetQueueAttributes"} <= set(move["Action"])
    moved = re.findall(r"'(\w+?)[0-9A-F]{8}', 'Arn'", str(move["Resource"]))
    sent = re.findall(r"'(\w+?)[0-9A-F]{8}', 'Arn'", str(send["Resource"]))
    assert sorted(moved) == ["ChurnIntakeUploadsDeadLetters", "ChurnWakeUpsQueueDeadLetters"]
    assert sorted(sent) == ["ChurnIntakeUploads", "ChurnWakeUpsQueue"]


def test_who_stops_runs_may_watch_and_abort_executions_of_the_pipeline(
    granted: dict[str, list[dict[str, Any]]],
) -> None:
    more = actions_of(granted["Stop"]) - actions_of(granted["Watch"])

    assert more == {"states:StopExecution"}
    assert ":execution:" in resources_of(granted["Stop"], "states:StopExecution")


def test_the_role_of_an_existing_model_writes_only_where_jobs_write(
    granted: dict[str, list[dict[str, Any]]],
) -> None:
    assert "'/runs/*/step-1-of-1/*'" in resources_of(granted["Score"], "s3:PutObject")


def test_fails_when_the_grantee_can_have_no_policy() -> None:
    pipeline = indexed(Stack(App(), "Scoring"))

    with pytest.raises(ValueError, match="got ServicePrincipal; let it assume a role and grant"):
        pipeline.grants.drop(iam.ServicePrincipal("glue.amazonaws.com"))


def test_fails_when_the_grantee_is_of_another_account() -> None:
    """CDK attaches no policy to such a role, and says nothing."""
    stack = Stack(App(), "Scoring", env=Environment(account="444455556666", region="eu-west-1"))
    role = iam.Role.from_role_arn(stack, "Uploader", "arn:aws:iam::111122223333:role/uploader")

    with pytest.raises(
        ValueError,
        match="must be of the pipeline's account 444455556666, got one of 111122223333; let it",
    ):
        indexed(stack).grants.drop(role)


@pytest.fixture(scope="module")
def decrypted(synthesize: Callable[[Any], dict[str, Any]]) -> dict[str, set[str]]:
    """The keys that each role decrypts with, by the beginning of its policy's name.

    The input bucket, the output bucket and the jobs' outputs have a key each.
    """

    def define(stack: Stack) -> None:
        keys = {
            name: kms.Key.from_key_arn(
                stack, f"Key{name}", f"arn:aws:kms:eu-west-1:111122223333:key/{name}"
            )
            for name in ("in", "out", "job")
        }
        pipeline = BatchTransform(
            stack,
            "Churn",
            model=TransformModel.from_model_name("churn"),
            instance_type="ml.m5.large",
            settings=replace(TransformSettings.csv(), output_key=keys["job"]),
            index=PredictionIndex(record_id=0),
            input_bucket=s3.Bucket.from_bucket_attributes(
                stack, "In", bucket_name="arrivals", encryption_key=keys["in"]
            ),
            output_bucket=s3.Bucket.from_bucket_attributes(
                stack, "Out", bucket_name="scores", encryption_key=keys["out"]
            ),
        )
        for grant in ("drop", "read", "score"):
            role = iam.Role(stack, grant, assumed_by=iam.AccountRootPrincipal())
            getattr(pipeline.grants, grant)(role)

    return {
        name: set(re.findall(r":key/(\w+)", json.dumps(statements)))
        for name, statements in statements_of_roles(synthesize(define)).items()
    }


@pytest.mark.parametrize(
    ("role", "keys"),
    [
        pytest.param("drop", {"in"}, id="who drops"),
        pytest.param("read", {"out", "job"}, id="who reads"),
        pytest.param("score", {"in", "out", "job"}, id="the model"),
        pytest.param("ChurnIndex", {"out", "job"}, id="index"),
    ],
)
def test_a_role_decrypts_what_it_reads_and_no_more(
    decrypted: dict[str, set[str]], role: str, keys: set[str]
) -> None:
    (found,) = [found for name, found in decrypted.items() if name.startswith(role)]

    assert found == keys


@pytest.mark.parametrize(
    ("grant", "actions"),
    [
        pytest.param("watch", ["kms:Decrypt", "kms:DescribeKey"], id="who watches"),
        pytest.param(
            "redrive",
            ["kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey"],
            id="who redrives also sends to queues",
        ),
    ],
)
def test_a_role_uses_the_pipelines_key_for_what_it_does(
    grant: str, actions: list[str], synthesize: Callable[[Any], dict[str, Any]]
) -> None:
    def define(stack: Stack) -> None:
        key = kms.Key.from_key_arn(stack, "Key", "arn:aws:kms:eu-west-1:111122223333:key/k")
        pipeline = BatchTransform(
            stack,
            "Churn",
            model=TransformModel.from_model_name("churn"),
            instance_type="ml.m5.large",
            encryption_key=key,
        )
        role = iam.Role(stack, "Who", assumed_by=iam.AccountRootPrincipal())
        getattr(pipeline.grants, grant)(role)

    (policy,) = [
        policy["Properties"]["PolicyDocument"]["Statement"]
        for name, policy in synthesize(define)["Resources"].items()
        if policy["Type"] == "AWS::IAM::Policy" and name.startswith("Who")
    ]
    (statement,) = [part for part in policy if "kms:Decrypt" in part["Action"]]

    assert statement["Action"] == actions


def test_settle_copies_outputs_of_jobs_that_have_a_key_of_their_own(
    decrypted: dict[str, set[str]],
) -> None:
    (found,) = [found for name, found in decrypted.items() if name.startswith("ChurnSettle")]

    assert found >= {"out", "job"}


def test_every_grant_is_documented() -> None:
    page = (PROJECT / "docs" / "operating.md").read_text()
    grants = [name for name in vars(BatchTransformGrants) if not name.startswith("_")]

    assert [name for name in grants if f"| `{name}(role)` |" not in page] == []
