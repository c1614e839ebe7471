"""Every way to name a model: containers in a row, a VPC, packages, roles of others."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from aws_cdk import App, Aws, CfnParameter, Environment, Stack, Tags
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sagemaker as sagemaker
from aws_cdk.assertions import Annotations, Match
from botocore.validate import ParamValidator

from batch_transform import (
    BatchStrategy,
    BatchTransform,
    ModelContainer,
    ModelVpc,
    PrivateRegistry,
    TransformModel,
    TransformSettings,
)
from batch_transform.bound_model import MANY_RECORDS_WARNING
from batch_transform.model_roles import S3_ENDPOINT_WARNING
from tests.policies import statements_of
from tests.shapes import members

ECR = "111122223333.dkr.ecr.eu-west-1.amazonaws.com"
PACKAGE = "arn:aws:sagemaker:eu-west-1:111122223333:model-package/churn/3"
KEY = "arn:aws:kms:eu-west-1:111122223333:key/1234-abcd"

# What CreateModel takes and we do not write, and why. A member that is in neither is a new one.
REFUSED = {
    "ModelName": "CloudFormation names it, so that a changed model is a new one",
    "Mode": "SingleModel is the default, and batch transform runs no MultiModel (reference §3)",
    "MultiModelConfig": "batch transform runs no MultiModel container (reference §3)",
    "ModelDataSource": "batch transform refuses such models when a job is created (reference §1.9)",
    "AdditionalModelDataSources": "for endpoints; CloudFormation has no such property",
    "ContainerMetricsConfig": "metrics of endpoints; CloudFormation has no such property",
    "InferenceExecutionConfig": "Serial is the default, and Direct is for endpoints (reference §3)",
}


@pytest.fixture(scope="module")
def stack(model_files: Path) -> Stack:
    stack = Stack(App(analytics_reporting=False), "Scoring")
    vpc = ec2.Vpc.from_vpc_attributes(
        stack,
        "Vpc",
        vpc_id="vpc-12345678",
        availability_zones=["a", "b"],
        private_subnet_ids=["subnet-12345671", "subnet-12345672"],
        isolated_subnet_ids=["subnet-12345673", "subnet-12345674"],
    )
    key = kms.Key.from_key_arn(stack, "Key", KEY)
    models = s3.Bucket.from_bucket_attributes(
        stack, "Models", bucket_arn="arn:aws:s3:::models", encryption_key=key
    )

    def define(construct_id: str, model: TransformModel) -> BatchTransform:
        return BatchTransform(stack, construct_id, model=model, instance_type="ml.m5.large")

    two = define(
        "Two",
        TransformModel.pipeline(
            [
                ModelContainer(
                    image=f"{ECR}/team/features:1",
                    artifact=model_files / "model",
                    environment={"A": "b"},
                    hostname="features",
                ),
                ModelContainer(
                    image="registry.example.com/churn:1",
                    artifact=models.s3_url_for_object("churn/v1.tar.gz"),
                    artifact_key=key,
                    hostname="churn",
                    registry=PrivateRegistry(
                        credentials=lambda_.Function.from_function_arn(
                            stack,
                            "Credentials",
                            "arn:aws:lambda:eu-west-1:111122223333:function:credentials",
                        )
                    ),
                ),
            ],
            network_isolation=True,
            vpc=ModelVpc(vpc=vpc),
        ),
    )
    Tags.of(two).add("team", "growth")
    define(
        "Package",
        TransformModel.from_model_package(
            PACKAGE,
            artifacts=["s3://models/churn/v1.tar.gz"],
            images=[f"{ECR}/team/churn:1"],
            environment={"A": "b"},
            inference_specification="small",
            vpc=ModelVpc(
                vpc=vpc,
                subnets=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_ISOLATED),
                security_groups=[
                    ec2.SecurityGroup.from_security_group_id(stack, "Group", "sg-12345678")
                ],
            ),
        ),
    )
    role = iam.Role.from_role_arn(stack, "Theirs", "arn:aws:iam::111122223333:role/theirs")
    theirs = define(
        "Theirs2",
        TransformModel.from_artifact(
            CfnParameter(stack, "Artifact").value_as_string,
            f"{Aws.ACCOUNT_ID}.dkr.ecr.{Aws.REGION}.{Aws.URL_SUFFIX}/team/churn:1",
            role=role,
        ),
    )
    theirs.grants.score(role)
    define(
        "Inside",
        TransformModel.from_artifact(
            None, ecr.Repository.from_repository_name(stack, "Images", "churn"), image_tag="7"
        ),
    )
    return stack


@pytest.fixture(scope="module")
def resources(stack: Stack) -> dict[str, Any]:
    app = App.of(stack)
    assert app is not None
    template = app.synth().get_stack_by_name("Scoring").template
    return dict(template["Resources"])


@pytest.fixture(scope="module")
def shape() -> Any:
    service = botocore.session.get_session().get_service_model("sagemaker")
    return service.operation_model("CreateModel").input_shape


def model(resources: dict[str, Any], pipeline: str) -> dict[str, Any]:
    (found,) = [
        resource["Properties"]
        for name, resource in resources.items()
        if resource["Type"] == "AWS::SageMaker::Model" and name.startswith(pipeline)
    ]
    return dict(found)


def role_statements(resources: dict[str, Any], role: str) -> list[dict[str, Any]]:
    return statements_of({"Resources": resources}, role)


def allowing(statements: list[dict[str, Any]], action: str) -> list[dict[str, Any]]:
    return [s for s in statements if action in s["Action"] or action == s["Action"]]


def warned_of(stack: Stack, warning: str) -> list[str]:
    found = Annotations.from_stack(stack).find_warning("*", Match.any_value())
    return [w.id for w in found if f"[ack: {warning}]" in str(w.entry.data)]


def test_a_pipeline_has_its_containers_in_order_and_one_role(resources: dict[str, Any]) -> None:
    made = model(resources, "Two")

    first, second = made["Containers"]
    assert "PrimaryContainer" not in made
    assert (first["ContainerHostname"], second["ContainerHostname"]) == ("features", "churn")
    assert first["Image"] == f"{ECR}/team/features:1"
    assert first["Environment"] == {"A": "b"}
    assert second["Image"] == "registry.example.com/churn:1"
    assert second["ModelDataUrl"] == "s3://models/churn/v1.tar.gz"
    assert second["ImageConfig"]["RepositoryAccessMode"] == "Vpc"
    assert made["EnableNetworkIsolation"] is True
    assert len([n for n in resources if n.startswith("TwoModelRole")]) == 1


def test_the_role_of_a_pipeline_reads_what_each_container_needs(
    resources: dict[str, Any],
) -> None:
    statements = role_statements(resources, "TwoModelRole")

    objects, *_ = allowing(statements, "s3:GetObject")
    assert "models/churn/v1.tar.gz" in str(objects["Resource"])
    assert len(objects["Resource"]) == 2
    (pull,) = allowing(statements, "ecr:BatchGetImage")
    assert "repository/team/features" in str(pull["Resource"])
    assert allowing(statements, "kms:Decrypt")[0]["Resource"] == KEY
    assert allowing(statements, "lambda:InvokeFunction")[0]["Resource"].endswith(":credentials")


def test_a_model_in_a_vpc_may_make_interfaces_there_and_nowhere_else(
    resources: dict[str, Any],
) -> None:
    statements = role_statements(resources, "TwoModelRole")

    (create,) = allowing(statements, "ec2:CreateNetworkInterface")
    assert "*" not in create["Resource"]
    named = str(create["Resource"])
    assert "subnet/subnet-12345671" in named
    assert "subnet/subnet-12345672" in named
    assert "TwoModelSecurityGroup" in named
    for action in ("ec2:CreateNetworkInterfacePermission", "ec2:DeleteNetworkInterface"):
        (permit,) = [
            s for s in statements if isinstance(s["Action"], list) and action in s["Action"]
        ]
        assert "subnet/subnet-12345671" in str(permit["Condition"]["ArnLike"]["ec2:Subnet"])
    (forget,) = allowing(statements, "ec2:DeleteNetworkInterfacePermission")
    assert "aws:RequestedRegion" in forget["Condition"]["StringEquals"]
    needed = {
        "ec2:DescribeDhcpOptions",
        "ec2:DescribeNetworkInterfaces",
        "ec2:DescribeSecurityGroups",
        "ec2:DescribeSubnets",
        "ec2:DescribeVpcs",
    }
    (describe,) = allowing(statements, "ec2:DescribeVpcs")
    assert set(describe["Action"]) == needed


def test_the_security_group_of_a_model_lets_nothing_in(resources: dict[str, Any]) -> None:
    (group,) = [r["Properties"] for r in resources.values() if r["Type"].endswith("SecurityGroup")]

    assert "SecurityGroupIngress" not in group
    (out,) = group["SecurityGroupEgress"]
    assert (out["IpProtocol"], out["FromPort"], out["ToPort"]) == ("tcp", 443, 443)
    assert model(resources, "Two")["VpcConfig"]["Subnets"] == ["subnet-12345671", "subnet-12345672"]


def test_subnets_and_groups_may_be_chosen_and_isolated_ones_are_warned_of(
    resources: dict[str, Any], stack: Stack
) -> None:
    assert model(resources, "Package")["VpcConfig"] == {
        "SecurityGroupIds": ["sg-12345678"],
        "Subnets": ["subnet-12345673", "subnet-12345674"],
    }
    assert warned_of(stack, S3_ENDPOINT_WARNING) == ["/Scoring/Package/Model"]


def test_a_package_is_isolated_unless_told_otherwise(resources: dict[str, Any]) -> None:
    made = model(resources, "Package")

    assert made["EnableNetworkIsolation"] is True
    assert made["PrimaryContainer"] == {
        "Environment": {"A": "b"},
        "InferenceSpecificationName": "small",
        "ModelPackageName": PACKAGE,
    }
    statements = role_statements(resources, "PackageModelRole")
    assert "models/churn/v1.tar.gz" in str(allowing(statements, "s3:GetObject")[0]["Resource"])
    assert "repository/team/churn" in str(allowing(statements, "ecr:BatchGetImage"))


def test_a_role_of_others_gets_what_it_needs_when_asked_and_not_before(
    resources: dict[str, Any],
) -> None:
    made = model(resources, "Theirs2")

    assert made["ExecutionRoleArn"] == "arn:aws:iam::111122223333:role/theirs"
    assert made["PrimaryContainer"]["ModelDataUrl"] == {"Ref": "Artifact"}
    assert not [name for name in resources if name.startswith("Theirs2ModelRole")]
    statements = role_statements(resources, "TheirsPolicy")
    artifact, *_ = allowing(statements, "s3:GetObject")
    assert artifact["Resource"] == {
        "Fn::Join": [
            "",
            [
                "arn:",
                {"Ref": "AWS::Partition"},
                ":s3:::",
                {"Fn::Select": [1, {"Fn::Split": ["s3://", {"Ref": "Artifact"}]}]},
            ],
        ]
    }
    assert "repository/team/churn" in str(allowing(statements, "ecr:BatchGetImage"))
    (definition,) = [r for n, r in resources.items() if n.startswith("Theirs2Model")]
    assert any(name.startswith("TheirsPolicy") for name in definition["DependsOn"])


def test_a_model_may_be_in_its_image(resources: dict[str, Any]) -> None:
    container = model(resources, "Inside")["PrimaryContainer"]

    assert list(container) == ["Image"]
    assert container["Image"]["Fn::Join"][1][-1].endswith("/churn:7")
    read = allowing(role_statements(resources, "InsideModelRole"), "s3:GetObject")
    assert len(read) == 1  # the drops


def written(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, dict) and not path.endswith("Environment"):
        if len(value) == 1 and next(iter(value)) in ("Ref", "Fn::GetAtt", "Fn::Join", "Fn::Sub"):
            yield path
            return
        for name, member in value.items():
            yield from written(member, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for member in value:
            yield from written(member, path)
    else:
        yield path


def test_every_member_of_create_model_is_written_or_refused_on_purpose(
    resources: dict[str, Any], shape: Any
) -> None:
    """Fails when AWS adds a member: give it a field, or a reason in REFUSED."""
    ours = {
        leaf
        for name in ("Two", "Package", "Theirs2", "Inside")
        for leaf in written(model(resources, name))
    }
    # A container is the same in a pipeline and alone.
    ours = {leaf.replace("PrimaryContainer.", "Containers.") for leaf in ours}
    theirs = {
        leaf.replace("PrimaryContainer.", "Containers.") for leaf in members(shape, but=REFUSED)
    }

    assert ours == theirs


def test_every_refused_member_is_one_of_the_api(shape: Any) -> None:
    container = shape.members["PrimaryContainer"]

    assert set(REFUSED) <= {*shape.members, *container.members}


def test_the_models_are_what_create_model_takes(resources: dict[str, Any], shape: Any) -> None:
    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            if any(name == "Ref" or name.startswith("Fn::") for name in value):
                return "arn:aws:iam::111122223333:role/token"
            return {name: plain(part) for name, part in value.items()}
        return [plain(part) for part in value] if isinstance(value, list) else value

    for name in ("Two", "Package", "Theirs2", "Inside"):
        request = plain(model(resources, name)) | {"ModelName": "any"}
        assert ParamValidator().validate(request, shape).generate_report() == ""


@pytest.mark.parametrize(
    ("make", "remedy"),
    [
        pytest.param(
            lambda: TransformModel.pipeline([ModelContainer(image=f"{ECR}/a:1")]),
            "got 1; use TransformModel.from_artifact for one",
            id="one container",
        ),
        pytest.param(
            lambda: TransformModel.pipeline([ModelContainer(image=f"{ECR}/a:1")] * 16),
            "must have 2 to 15 containers, got 16",
            id="too many containers",
        ),
        pytest.param(
            lambda: TransformModel.pipeline(
                [
                    ModelContainer(image=f"{ECR}/a:1", hostname="a"),
                    ModelContainer(image=f"{ECR}/a:1"),
                ]
            ),
            "got 1 of 2; name the others, too",
            id="a container without a hostname",
        ),
        pytest.param(
            lambda: TransformModel.pipeline([ModelContainer(image=f"{ECR}/a:1", hostname="a")] * 2),
            "got 'a' more than once; rename one",
            id="a hostname twice",
        ),
        pytest.param(
            lambda: ModelContainer(image=f"{ECR}/a:1", hostname="a_b"),
            "got 'a_b'; rename it",
            id="no hostname",
        ),
        pytest.param(
            lambda: TransformModel.from_model_package("churn/3"),
            "got 'churn/3'; see `aws sagemaker list-model-packages`",
            id="no ARN",
        ),
        pytest.param(
            lambda: TransformModel.from_model_package(PACKAGE.replace("package", "package-group")),
            "must be the ARN of a version of a model package",
            id="a package group",
        ),
        pytest.param(
            lambda: TransformModel.from_model_package(PACKAGE, artifacts=["s3://models/churn/"]),
            "refuses to run models with one in batch transform",
            id="a package of unpacked files",
        ),
        pytest.param(
            lambda: TransformModel.from_model_package(PACKAGE, images=["churn:1"]),
            "got 'churn:1'; pass such a URI, or the ecr.IRepository",
            id="a package's image elsewhere",
        ),
    ],
)
def test_fails_when_the_service_would_refuse_the_model(
    make: Callable[[], object], remedy: str
) -> None:
    with pytest.raises(ValueError, match=remedy):
        make()


@pytest.mark.parametrize(
    ("properties", "cause"),
    [
        pytest.param(
            {
                "primary_container": {
                    "image": f"{ECR}/a:1",
                    "modelDataSource": {
                        "s3DataSource": {
                            "compressionType": "None",
                            "s3DataType": "S3Prefix",
                            "s3Uri": "s3://models/churn/",
                        }
                    },
                }
            },
            "which use ModelDataSource attribute; give each container one .tar.gz",
            id="ModelDataSource",
        ),
        pytest.param(
            {"primary_container": {"image": f"{ECR}/a:1", "mode": "MultiModel"}},
            "must have containers of Mode SingleModel, got MultiModel",
            id="MultiModel",
        ),
        pytest.param(
            {
                "containers": [{"image": f"{ECR}/a:1"}, {"image": f"{ECR}/b:1"}],
                "inference_execution_config": {"mode": "Direct"},
            },
            "Mode of a model for batch must be Serial, got Direct",
            id="Direct",
        ),
    ],
)
def test_fails_when_batch_transform_cannot_run_a_model_of_the_app(
    properties: dict[str, Any], cause: str
) -> None:
    model = sagemaker.CfnModel(Stack(App(), "Scoring"), "Model", **properties)

    with pytest.raises(ValueError, match=f"Scoring/Model must be a model .*{cause}"):
        TransformModel.from_cfn_model(model)


def test_a_model_of_the_app_is_used_by_its_name() -> None:
    stack = Stack(App(), "Scoring")
    model = sagemaker.CfnModel(
        stack, "Model", primary_container={"image": f"{ECR}/a:1", "modelDataUrl": "s3://b/m.tar.gz"}
    )

    pipeline = BatchTransform(
        stack,
        "Churn",
        model=TransformModel.from_cfn_model(model),
        instance_type="ml.m5.large",
    )

    assert stack.resolve(pipeline.steps[0].model.name) == {"Fn::GetAtt": ["Model", "ModelName"]}
    assert stack.resolve([*pipeline.steps[0].model.arns]) == [{"Ref": "Model"}]


def test_many_records_in_a_request_to_several_containers_are_warned_of(stack: Stack) -> None:
    assert warned_of(stack, MANY_RECORDS_WARNING) == ["/Scoring/Two/Model"]


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(TransformSettings(batch_strategy=BatchStrategy.SINGLE_RECORD), id="single"),
        pytest.param(TransformSettings.whole_files("image/png"), id="whole files"),
    ],
)
def test_one_record_in_a_request_is_not(settings: TransformSettings) -> None:
    stack = Stack(App(), "Scoring")
    BatchTransform(
        stack,
        "Two",
        model=TransformModel.pipeline([ModelContainer(image=f"{ECR}/a:1")] * 2),
        instance_type="ml.m5.large",
        settings=settings,
    )

    assert warned_of(stack, MANY_RECORDS_WARNING) == []


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(TransformModel.from_artifact(None, f"{ECR}/a:1"), id="image"),
        pytest.param(TransformModel.from_model_package(PACKAGE), id="package"),
    ],
)
def test_fails_when_what_a_model_is_made_of_is_in_another_region(model: TransformModel) -> None:
    stack = Stack(App(), "Scoring", env=Environment(region="us-east-1"))

    with pytest.raises(ValueError, match=r"region us-east-1, got .* of eu-west-1; copy it there"):
        BatchTransform(stack, "Churn", model=model, instance_type="ml.m5.large")
