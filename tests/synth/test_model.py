import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aws_cdk import App, Aws, CfnParameter, Stack
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from aws_cdk import aws_ssm as ssm

from batch_transform import BatchTransform, PrivateRegistry, TransformModel
from batch_transform.archive import content_hash, pack
from tests.policies import statements_of

IMAGE = "111122223333.dkr.ecr.eu-west-1.amazonaws.com/team/churn@sha256:abc"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "code").mkdir(parents=True)
    (folder / "model.json").write_text("{}")
    (folder / "code" / "inference.py").write_text("pass\n")
    (folder / "code" / "run").write_text("#!/bin/sh\n")
    (folder / "code" / "run").chmod(0o755)
    return folder


def test_the_same_content_is_the_same_archive_whenever_and_wherever(
    directory: Path, tmp_path: Path
) -> None:
    pack(directory, tmp_path / "one.tar.gz")
    hash_before = content_hash(directory)
    for path in directory.rglob("*"):
        os.utime(path, (0, 0))
    (directory / "code" / "__pycache__").mkdir()
    (directory / "code" / "__pycache__" / "inference.pyc").write_bytes(b"time")
    moved = directory.rename(tmp_path / "moved")
    pack(moved, tmp_path / "two.tar.gz")

    assert (tmp_path / "one.tar.gz").read_bytes() == (tmp_path / "two.tar.gz").read_bytes()
    assert content_hash(moved) == hash_before


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda folder: (folder / "model.json").write_text("{ }"), id="bytes"),
        pytest.param(lambda folder: (folder / "model.json").rename(folder / "m.json"), id="name"),
        pytest.param(lambda folder: (folder / "code" / "run").chmod(0o644), id="executable bit"),
        pytest.param(lambda folder: (folder / "new").touch(), id="an empty file"),
    ],
)
def test_other_content_has_another_hash(directory: Path, change: Callable[[Path], object]) -> None:
    before = content_hash(directory)

    change(directory)

    assert content_hash(directory) != before


def test_the_archive_has_files_at_its_root_and_nobody_as_owner(
    directory: Path, tmp_path: Path
) -> None:
    pack(directory, tmp_path / "model.tar.gz")

    with tarfile.open(tmp_path / "model.tar.gz") as archive:
        members = {member.name: member for member in archive.getmembers()}
    assert list(members) == ["code/inference.py", "code/run", "model.json"]
    assert members["code/run"].mode == 0o755
    assert {member.uname for member in members.values()} == {""}


def test_a_linked_file_is_packed_as_what_it_links_to(directory: Path, tmp_path: Path) -> None:
    (directory / "latest.json").symlink_to(directory / "model.json")
    pack(directory, tmp_path / "model.tar.gz")

    with tarfile.open(tmp_path / "model.tar.gz") as archive:
        assert archive.getmember("latest.json").isfile()


def deployed(
    synthesize: Callable[[Any], dict[str, Any]],
    make: Callable[[Stack], TransformModel],
    resource_type: str,
) -> dict[str, Any]:
    template = synthesize(
        lambda stack: BatchTransform(stack, "Churn", model=make(stack), instance_type="ml.m5.large")
    )
    (properties,) = [
        resource["Properties"]
        for name, resource in template["Resources"].items()
        if resource["Type"] == resource_type and "ChurnModel" in name
    ]
    return dict(properties)


def test_a_changed_model_is_a_new_model(
    synthesize: Callable[[Any], dict[str, Any]], directory: Path
) -> None:
    def url() -> str:
        model = deployed(
            synthesize,
            lambda _: TransformModel.from_artifact(directory, IMAGE),
            "AWS::SageMaker::Model",
        )
        assert "ModelName" not in model
        return str(model["PrimaryContainer"]["ModelDataUrl"])

    first = url()
    assert url() == first

    (directory / "model.json").write_text('{"better": true}')

    assert url() != first


def test_a_ready_archive_and_a_repository_are_taken_as_they_are(
    synthesize: Callable[[Any], dict[str, Any]], directory: Path, tmp_path: Path
) -> None:
    pack(directory, tmp_path / "model.tar.gz")

    def make(stack: Stack) -> TransformModel:
        repository = ecr.Repository.from_repository_name(stack, "Images", "churn")
        return TransformModel.from_artifact(
            tmp_path / "model.tar.gz", repository, image_tag="v3", environment={"A": "b"}
        )

    container = deployed(synthesize, make, "AWS::SageMaker::Model")["PrimaryContainer"]

    assert container["Image"]["Fn::Join"][1][-1].endswith("/churn:v3")
    assert container["Environment"] == {"A": "b"}


def test_only_sagemaker_of_this_account_may_act_as_the_model(
    synthesize: Callable[[Any], dict[str, Any]], directory: Path
) -> None:
    role = deployed(
        synthesize, lambda _: TransformModel.from_artifact(directory, IMAGE), "AWS::IAM::Role"
    )

    (statement,) = role["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Principal"] == {"Service": "sagemaker.amazonaws.com"}
    assert statement["Condition"]["StringEquals"] == {
        "aws:SourceAccount": {"Ref": "AWS::AccountId"}
    }
    sources = str(statement["Condition"]["ArnLike"]["aws:SourceArn"])
    assert ":transform-job/*" in sources
    assert "ManagedPolicyArns" not in role


def test_an_existing_model_may_be_named_in_any_case(
    synthesize: Callable[[Any], dict[str, Any]],
) -> None:
    def define(stack: Stack) -> None:
        pipeline = BatchTransform(
            stack,
            "Churn",
            model=TransformModel.from_model_name("Churn-V1"),
            instance_type="ml.m5.large",
        )
        role = iam.Role.from_role_arn(stack, "Role", "arn:aws:iam::111122223333:role/churn")
        pipeline.grants.score(role)

    template = synthesize(define)
    text = str(template["Resources"])

    assert "AWS::SageMaker::Model" not in text
    assert ":model/Churn-V1" in text
    assert ":model/churn-v1" in text
    assert [
        resource["Properties"]["Roles"]
        for name, resource in template["Resources"].items()
        if name.startswith("RolePolicy")
    ] == [["churn"]]


@pytest.mark.parametrize(
    ("make", "remedy"),
    [
        pytest.param(
            lambda folder: TransformModel.from_artifact(folder / "none", IMAGE),
            r"got nothing at .*none; run what trains or exports the model first",
            id="no artifact",
        ),
        pytest.param(
            lambda folder: TransformModel.from_artifact(folder / "model.json", IMAGE),
            "got another kind of file",
            id="not an archive",
        ),
        pytest.param(
            lambda folder: TransformModel.from_artifact(folder, "docker.io/me/churn:1"),
            "SageMaker pulls from ECR only, so copy the image there",
            id="another registry",
        ),
        pytest.param(
            lambda folder: TransformModel.from_artifact("s3://models/churn/", IMAGE),
            "refuses to run models with one in batch transform",
            id="unpacked files in S3",
        ),
        pytest.param(
            lambda folder: TransformModel.from_artifact(folder, f"{IMAGE}{'0' * 255}"),
            "at most 255 characters, got 321",
            id="an image with too long a name",
        ),
        pytest.param(
            lambda folder: TransformModel.from_artifact(
                None, "registry.example.com/churn:1", registry=PrivateRegistry()
            ),
            r"pass vpc=ModelVpc\(vpc=\.\.\.\)",
            id="a private registry without a way to it",
        ),
        pytest.param(
            lambda folder: TransformModel.from_artifact(folder, folder, registry=PrivateRegistry()),
            "push the image to the registry, or leave registry out",
            id="a directory in a private registry",
        ),
        pytest.param(
            lambda folder: TransformModel.from_artifact(folder, folder),
            "must be a directory with a Dockerfile",
            id="no Dockerfile",
        ),
        pytest.param(
            lambda folder: TransformModel.from_artifact(folder, IMAGE, image_tag="v1"),
            "write the tag into the image's URI",
            id="two tags",
        ),
    ],
)
def test_fails_when_there_is_no_such_model(
    make: Callable[[Path], TransformModel], remedy: str, directory: Path
) -> None:
    with pytest.raises(ValueError, match=remedy):
        make(directory)


def test_fails_when_the_artifact_is_an_empty_directory(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got an empty directory"):
        TransformModel.from_artifact(tmp_path, IMAGE)


def test_fails_when_the_image_is_a_string_that_only_deployment_knows(directory: Path) -> None:
    uri = CfnParameter(Stack(App(), "Scoring"), "Image").value_as_string

    with pytest.raises(ValueError, match=r"pass the ecr\.IRepository"):
        TransformModel.from_artifact(directory, uri)


@pytest.mark.parametrize(
    ("environment", "match"),
    [
        pytest.param({"LOG-LEVEL": "info"}, "got 'LOG-LEVEL'; rename it", id="hyphen"),
        pytest.param({"1ST": "x"}, "got '1ST'; rename it", id="digit first"),
        pytest.param(
            {"A": "x" * 1025}, "at most 1024 characters, got 1025 in 'A'", id="long value"
        ),
        pytest.param(
            {f"A{i}": "" for i in range(101)}, "at most 100 variables, got 101", id="too many"
        ),
        pytest.param(
            {f"A{i}": "x" * 1000 for i in range(33)}, "at most 32768 bytes in all", id="too large"
        ),
    ],
)
def test_fails_when_the_service_would_refuse_the_model_s_environment(
    environment: dict[str, str], match: str, model_files: Path
) -> None:
    with pytest.raises(ValueError, match=match):
        TransformModel.from_artifact(
            model_files / "model", model_files / "image", environment=environment
        )


def test_a_variable_may_be_known_only_at_deployment(model_files: Path) -> None:
    TransformModel.from_artifact(
        model_files / "model", model_files / "image", environment={"WHERE": Aws.REGION}
    )


def run_policy(template: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The statements of the state machine's role by their first action."""
    return {
        statement["Action"] if isinstance(statement["Action"], str) else statement["Action"][0]: (
            statement
        )
        for statement in statements_of(template, "ChurnRunRole")
    }


def test_a_run_reads_only_the_parameter_of_its_model_and_uses_only_the_models_allowed(
    synthesize: Callable[[Any], dict[str, Any]],
) -> None:
    template = synthesize(
        lambda stack: BatchTransform(
            stack,
            "Churn",
            model=TransformModel.from_ssm_parameter("/churn/model", allowed_models="Churn-*"),
            instance_type="ml.m5.large",
        )
    )

    allowed = run_policy(template)
    assert allowed["ssm:GetParameter"]["Action"] == "ssm:GetParameter"
    assert str(allowed["ssm:GetParameter"]["Resource"]).endswith(":parameter/churn/model']]}")
    models = allowed["sagemaker:CreateTransformJob"]["Condition"]["ArnLike"]["sagemaker:ModelArn"]
    assert [str(arn).partition(":model/")[2] for arn in models] == ["Churn-*']]}", "churn-*']]}"]


def test_a_parameter_of_the_same_app_may_name_the_model(
    synthesize: Callable[[Any], dict[str, Any]],
) -> None:
    def define(stack: Stack) -> None:
        parameter = ssm.StringParameter(stack, "Current", string_value="churn-v1")
        BatchTransform(
            stack,
            "Churn",
            model=TransformModel.from_ssm_parameter(parameter, allowed_models=["churn-v?"]),
            instance_type="ml.m5.large",
        )

    template = synthesize(define)

    (read,) = [r for n, r in template["Resources"].items() if n.startswith("ChurnRunStateMachine")]
    definition = read["Properties"]["DefinitionString"]["Fn::Join"][1]
    (current,) = [n for n in template["Resources"] if n.startswith("Current")]
    at = definition.index({"Ref": current})
    assert definition[at - 1].endswith('"Arguments": {"Name": "')
    assert current in str(run_policy(template)["ssm:GetParameter"]["Resource"])


@pytest.mark.parametrize(
    ("make", "remedy"),
    [
        pytest.param(
            lambda: TransformModel.from_ssm_parameter("churn/model", allowed_models="churn-*"),
            "got 'churn/model'; use for example '/churn/model'",
            id="no path",
        ),
        pytest.param(
            lambda: TransformModel.from_ssm_parameter(Aws.STACK_NAME, allowed_models="churn-*"),
            r"got a token; pass the ssm\.IStringParameter",
            id="a token for a name",
        ),
        pytest.param(
            lambda: TransformModel.from_ssm_parameter("/churn/model", allowed_models="*"),
            r"more than wildcards, got '\*'",
            id="any model",
        ),
        pytest.param(
            lambda: TransformModel.from_ssm_parameter("/churn/model", allowed_models=[]),
            "must have a name or pattern, got none",
            id="no model",
        ),
        pytest.param(
            lambda: TransformModel.from_model_name("churn_v1"),
            "got 'churn_v1'; pass what `aws sagemaker list-models` calls ModelName",
            id="no name of a model",
        ),
    ],
)
def test_fails_when_no_parameter_or_model_has_such_a_name(
    make: Callable[[], TransformModel], remedy: str
) -> None:
    with pytest.raises(ValueError, match=remedy):
        make()
