import json
from collections.abc import Callable
from typing import Any

import jsonata  # type: ignore[import-untyped]  # it ships no type information
import pytest
from aws_cdk import App, Duration, Size, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_stepfunctions as sfn
from aws_cdk.assertions import Annotations, Match

from batch_transform import (
    BatchTransform,
    S3Location,
    TransformModel,
    TransformSettings,
    TransformTask,
)
from tests.policies import statements_of

Template = dict[str, Any]
KEY = "arn:aws:kms:eu-west-1:111122223333:key/1234-abcd"


def place(stack: Stack, key: str, *, bucket: str = "data", within: str | None = None) -> S3Location:
    child = stack.node.try_find_child(bucket)
    found = child or s3.Bucket.from_bucket_name(stack, bucket, f"{bucket}-bucket")
    return S3Location(bucket=found, key=key, within=within)  # type: ignore[arg-type]


def task(stack: Stack, construct_id: str = "Score", **options: Any) -> TransformTask:
    given: dict[str, Any] = {
        "model": TransformModel.from_model_name("churn-v1"),
        "instance_type": "ml.m5.large",
        "settings": TransformSettings.csv(),
        "source": place(stack, "in/"),
        "destination": place(stack, "scores/"),
    }
    return TransformTask(stack, construct_id, **given | options)


def machine(stack: Stack, chain: Any, **options: Any) -> None:
    body = sfn.DefinitionBody.from_chainable(chain)
    sfn.StateMachine(stack, "Mine", definition_body=body, **options)


@pytest.fixture(scope="module")
def template(synthesize: Callable[[Any], Template], model_files: Any) -> Template:
    """A JSONPath machine with three tasks in a row: by prefix, by manifest, with a model made."""

    def define(stack: Stack) -> None:
        key = kms.Key.from_key_arn(stack, "Key", KEY)
        sealed = s3.Bucket.from_bucket_attributes(
            stack, "Sealed", bucket_name="sealed-bucket", encryption_key=key
        )
        by_manifest = task(
            stack,
            "ByManifest",
            source=place(stack, "in/"),
            manifest=place(
                stack, "{% $states.input.manifest %}", bucket="lists", within="manifests/"
            ),
            job_name_prefix="nightly",
            outputs="{% $states.input %}",
        )
        role = iam.Role(stack, "ModelRole", assumed_by=iam.AccountRootPrincipal())
        by_manifest.grants.score(role)
        own_model = task(
            stack,
            "OwnModel",
            model=TransformModel.from_artifact(model_files / "model", model_files / "image"),
            destination=S3Location(bucket=sealed, key="scores/"),
            job_timeout=Duration.hours(2),
        )
        first = task(stack).add_catch(sfn.Fail(stack, "Broken"), errors=["States.TaskFailed"])
        start = sfn.Pass(stack, "Begin")
        chain = start.next(first).next(by_manifest).next(own_model).next(sfn.Succeed(stack, "End"))
        machine(stack, chain)

    return synthesize(define)


def definition(template: Template) -> dict[str, Any]:
    (resource,) = [
        part["Properties"]
        for part in template["Resources"].values()
        if part["Type"] == "AWS::StepFunctions::StateMachine"
    ]
    text = resource["DefinitionString"]
    if isinstance(text, dict):
        text = "".join(part if isinstance(part, str) else "<token>" for part in text["Fn::Join"][1])
    found: dict[str, Any] = json.loads(text)
    return found


def statements(template: Template, name: str) -> list[dict[str, Any]]:
    return statements_of({"Resources": template["Resources"]}, name)


def actions(statement: dict[str, Any]) -> list[str]:
    named = statement["Action"]
    return [named] if isinstance(named, str) else named


def test_the_task_stands_in_a_chain_of_other_states(template: Template) -> None:
    states = definition(template)["States"]

    assert states["Begin"]["Next"] == "Score"
    assert states["Score"]["Next"] == "ByManifest"
    assert states["ByManifest"]["Next"] == "OwnModel"
    assert states["OwnModel"]["Next"] == "End"
    assert [catch["Next"] for catch in states["Score"]["Catch"]] == ["Broken"]


def test_the_state_is_jsonata_in_a_machine_of_jsonpath(template: Template) -> None:
    found = definition(template)

    assert "QueryLanguage" not in found
    assert found["States"]["Score"]["QueryLanguage"] == "JSONata"


def test_the_request_is_that_of_a_pipeline_but_for_where_its_data_are(template: Template) -> None:
    arguments = definition(template)["States"]["Score"]["Arguments"]

    name = arguments.pop("TransformJobName")
    assert arguments == {
        "ModelName": "churn-v1",
        "TransformInput": {
            "ContentType": "text/csv",
            "SplitType": "Line",
            "DataSource": {
                "S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://data-bucket/in/"}
            },
        },
        "TransformOutput": {
            "Accept": "text/csv",
            "AssembleWith": "Line",
            "S3OutputPath": "s3://data-bucket/scores/",
        },
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
    }
    assert name.startswith("{% 'score-job-")


def evaluate(expression: str, **states: Any) -> Any:
    parsed = jsonata.Jsonata(expression.removeprefix("{%").removesuffix("%}"))
    parsed.register_lambda("uuid", lambda: "0b4f3f5e-6b5c-4b8e-9d3b-6f1f6c1d2e3f")
    return parsed.evaluate(None, {"states": states})


def test_a_job_s_name_differs_for_each_attempt_and_fits(template: Template) -> None:
    states = definition(template)["States"]
    context = {"State": {"RetryCount": 999}}

    for state in ("Score", "ByManifest", "OwnModel"):
        name = evaluate(states[state]["Arguments"]["TransformJobName"], context=context)
        assert len(name) <= 63
        assert name.endswith("-999")
    assert name != evaluate(
        states["OwnModel"]["Arguments"]["TransformJobName"], context={"State": {"RetryCount": 1}}
    )


def test_a_manifest_told_by_the_state_machine_becomes_a_uri(template: Template) -> None:
    state = definition(template)["States"]["ByManifest"]
    source = state["Arguments"]["TransformInput"]["DataSource"]["S3DataSource"]

    assert source["S3DataType"] == "ManifestFile"
    assert (
        evaluate(source["S3Uri"], input={"manifest": "manifests/1.json"})
        == "s3://lists-bucket/manifests/1.json"
    )
    assert state["Output"] == "{% $states.input %}"


@pytest.mark.parametrize("key", ["manifest/1.json", "x/manifests/1.json", "", "manifests"])
def test_a_key_beside_what_was_allowed_fails_the_state(key: str, template: Template) -> None:
    state = definition(template)["States"]["ByManifest"]
    source = state["Arguments"]["TransformInput"]["DataSource"]["S3DataSource"]

    with pytest.raises(jsonata.JException, match="a key must begin with manifests/, got"):
        evaluate(source["S3Uri"], input={"manifest": key})


def test_it_waits_and_retries_as_a_pipeline_does(template: Template) -> None:
    from batch_transform.state_machine import JOB_RETRY

    state = definition(template)["States"]["OwnModel"]

    assert state["Resource"] == "arn:aws:states:::sagemaker:createTransformJob.sync"
    assert state["Retry"] == JOB_RETRY
    assert state["TimeoutSeconds"] == 7200
    assert definition(template)["States"]["Score"]["TimeoutSeconds"] == 86_400


def test_the_machine_s_role_may_what_that_of_a_pipeline_may_of_jobs(
    template: Template, synthesize: Callable[[Any], Template]
) -> None:
    pipeline = synthesize(
        lambda stack: BatchTransform(
            stack,
            "Churn",
            model=TransformModel.from_model_name("churn-v1"),
            instance_type="ml.m5.large",
        )
    )

    def of_jobs(found: list[dict[str, Any]]) -> set[str]:
        return {
            action
            for statement in found
            for action in actions(statement)
            if action.startswith("sagemaker:") or action.endswith(("Rule", "PutTargets"))
        }

    own = of_jobs(statements(template, "MineRole"))
    assert own
    assert own == of_jobs(statements(pipeline, "ChurnRunRole"))


def test_the_machine_s_role_creates_jobs_of_each_task_s_model_and_instances_only(
    template: Template,
) -> None:
    creates = [
        statement
        for statement in statements(template, "MineRole")
        if "sagemaker:CreateTransformJob" in actions(statement)
    ]

    # Two of the tasks have one model, so CDK makes one statement of theirs.
    named, made = sorted(creates, key=lambda part: "OwnModel" in str(part))
    for part in (named, made):
        instances = part["Condition"]["ForAnyValue:StringEquals"]
        assert instances == {"sagemaker:InstanceTypes": ["ml.m5.large"]}
    assert ":model/churn-v1" in str(named["Condition"]["ArnLike"]["sagemaker:ModelArn"])
    assert ":transform-job/nightly-*" in str(named["Resource"])
    assert "OwnModelJobModel" in str(made["Condition"]["ArnLike"]["sagemaker:ModelArn"])
    assert ":transform-job/own-model-job-" in str(made["Resource"])


def test_no_role_is_defined_but_that_of_the_machine_and_of_the_model_that_is_made(
    template: Template,
) -> None:
    roles = sorted(
        name[:-8]
        for name, part in template["Resources"].items()
        if part["Type"] == "AWS::IAM::Role"
    )

    assert roles == ["MineRole", "ModelRole", "OwnModelJobModelRole"]
    assert "iam:PassRole" not in json.dumps(template)


def test_the_model_s_role_reads_the_source_and_writes_the_destination_and_no_more(
    template: Template,
) -> None:
    found = statements(template, "OwnModelJobModelRole")
    writes = [part for part in found if "s3:PutObject" in actions(part)]
    reads = [part for part in found if actions(part) == ["s3:GetObject"]]

    assert "sealed-bucket/scores/*" in str([part["Resource"] for part in writes])
    assert "data-bucket/in/*" in str([part["Resource"] for part in reads])
    assert "scores" not in str([part["Resource"] for part in reads])
    assert KEY in str([part["Resource"] for part in found if "kms:Decrypt" in actions(part)])


def test_the_role_of_an_existing_model_can_be_granted_the_same(template: Template) -> None:
    found = statements(template, "ModelRole")
    reads = [part["Resource"] for part in found if actions(part) == ["s3:GetObject"]]
    listed = [part["Resource"] for part in found if actions(part) == ["s3:ListBucket"]]

    assert "data-bucket/in/*" in str(reads)
    assert "lists-bucket/manifests/*" in str(reads)
    assert "data-bucket" in str(listed)
    assert "lists-bucket" in str(listed)


def test_it_stands_in_a_machine_of_jsonata_and_in_a_map(
    synthesize: Callable[[Any], Template],
) -> None:
    def define(stack: Stack) -> None:
        each = sfn.Map.jsonata(stack, "Each")
        each.item_processor(
            task(stack, source=place(stack, "{% $states.input.folder & '/' %}", within="in/"))
        )
        machine(stack, each, query_language=sfn.QueryLanguage.JSONATA)

    found = synthesize(define)
    state = definition(found)["States"]["Each"]["ItemProcessor"]["States"]["Score"]

    source = state["Arguments"]["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"]
    assert evaluate(source, input={"folder": "in/a"}) == "s3://data-bucket/in/a/"
    assert any(
        "sagemaker:CreateTransformJob" in actions(part) for part in statements(found, "MineRole")
    )


def test_a_retry_of_the_user_s_comes_after_ours(synthesize: Callable[[Any], Template]) -> None:
    """`States.ALL` has to be the last."""

    def define(stack: Stack) -> None:
        machine(stack, task(stack).add_retry(max_attempts=1))

    retry = definition(synthesize(define))["States"]["Score"]["Retry"]

    assert retry[-1]["ErrorEquals"] == ["States.ALL"]
    assert len(retry) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(
            {"settings": TransformSettings(max_payload=Size.mebibytes(101))},
            "MaxPayloadInMB",
            id="what the service refuses",
        ),
        pytest.param({"instance_type": "ml.m5.lage"}, "ml.m5.large", id="an unknown instance type"),
        pytest.param(
            {"job_name_prefix": "a-name-that-is-much-too-long"},
            "job_name_prefix must be .* at most 22 characters",
            id="a name that would not fit",
        ),
        pytest.param(
            {"job_timeout": Duration.seconds(5)}, "job_timeout must be 1 minute", id="a timeout"
        ),
    ],
)
def test_fails_when_a_pipeline_would_as_well(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task(Stack(App(), "Scoring"), **options)


def test_fails_when_source_and_destination_overlap() -> None:
    stack = Stack(App(), "Scoring")

    with pytest.raises(ValueError, match="source and destination must not overlap, got 'in'"):
        task(stack, source=place(stack, "in"), destination=place(stack, "in_old/"))
    with pytest.raises(ValueError, match="must not overlap, got '' and 'scores/'"):
        task(stack, "Other", source=place(stack, "{% $states.input.key %}", within=""))


def test_the_same_prefix_of_two_buckets_is_no_overlap() -> None:
    stack = Stack(App(), "Scoring")

    task(stack, destination=place(stack, "in/", bucket="other"))


def test_fails_when_the_destination_is_no_folder() -> None:
    stack = Stack(App(), "Scoring")

    with pytest.raises(ValueError, match="destination must end with '/', got 'scores'; use"):
        task(stack, destination=place(stack, "scores"))


def test_fails_when_a_key_comes_at_run_time_and_permissions_have_no_end() -> None:
    with pytest.raises(ValueError, match="within must be given when key is JSONata"):
        place(Stack(App(), "Scoring"), "{% $states.input.folder %}")


def test_fails_when_a_key_is_json_path() -> None:
    with pytest.raises(ValueError, match=r"got a sfn\.JsonPath; write '{% \$states\.input"):
        place(Stack(App(), "Scoring"), sfn.JsonPath.string_at("$.folder"), within="in/")


def test_fails_when_a_key_is_not_within_its_prefix() -> None:
    with pytest.raises(ValueError, match="key must begin with within 'in/', got 'out/'"):
        place(Stack(App(), "Scoring"), "out/", within="in/")


def test_fails_when_only_a_run_knows_the_model() -> None:
    with pytest.raises(ValueError, match="must be known at deployment, got one that an SSM"):
        task(
            Stack(App(), "Scoring"),
            model=TransformModel.from_ssm_parameter("/churn/model", allowed_models=["churn-*"]),
        )


@pytest.mark.parametrize(
    ("key", "warned"),
    [pytest.param("in", True, id="text"), pytest.param("in/", False, id="folder")],
)
def test_warns_of_a_prefix_with_which_other_folders_begin(key: str, warned: bool) -> None:
    stack = Stack(App(), "Scoring")
    task(stack, source=place(stack, key))

    found = Annotations.from_stack(stack).find_warning(
        "*", Match.string_like_regexp("source should end with '/'")
    )
    assert bool(found) is warned
