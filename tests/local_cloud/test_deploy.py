"""Deploying hand-written assemblies."""

import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from local_cloud import DeployFailed, LocalCloud

from .assembly import model, write_assembly
from .conftest import ROLE

PARAMETER: dict[str, Any] = {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String"}}


def _parameter(name: str, value: object) -> dict[str, Any]:
    return {**PARAMETER, "Properties": {"Type": "String", "Name": name, "Value": value}}


def test_assets_are_published_and_outputs_come_back(
    cloud: LocalCloud, tmp_path: Path, image_dir: Path
) -> None:
    code = tmp_path / "code"
    (code / "package").mkdir(parents=True)
    (code / "package" / "module.py").write_text("VALUE = 1\n")
    archive = tmp_path / "model.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("empty"), io.BytesIO())
    template = {
        "Resources": {"Model": model("image-1", ROLE)},
        "Outputs": {"Name": {"Value": {"Fn::GetAtt": ["Model", "ModelName"]}}},
    }
    assembly = write_assembly(
        tmp_path / "cdk.out",
        {"Published": template},
        files={"code.zip": (code, "zip", "1"), "model.tar.gz": (archive, "file", "2")},
        images={"image-1": image_dir},
    )

    outputs = cloud.deploy(assembly)

    described = cloud.client("sagemaker").describe_model(ModelName=outputs["Published"]["Name"])
    assert described["PrimaryContainer"]["Image"] == (
        "000000000000.dkr.ecr.us-east-1.amazonaws.com/"
        "cdk-hnb659fds-container-assets-000000000000-us-east-1:image-1"
    )
    assert described["PrimaryContainer"]["Environment"] == {"A": "1"}
    s3, bucket = cloud.client("s3"), "cdk-hnb659fds-assets-000000000000-us-east-1"
    zipped = s3.get_object(Bucket=bucket, Key="code.zip")["Body"].read()
    assert zipfile.ZipFile(io.BytesIO(zipped)).namelist() == ["package/module.py"]
    plain = s3.get_object(Bucket=bucket, Key="model.tar.gz")["Body"].read()
    assert plain == archive.read_bytes()
    stack = cloud.client("cloudformation").describe_stacks(StackName="Published")["Stacks"][0]
    assert {"Key": "team", "Value": "churn"} in stack["Tags"]


def test_a_second_deployment_changes_what_changed(
    cloud: LocalCloud, tmp_path: Path, image_dir: Path
) -> None:
    def deploy(tag: str) -> str:
        template = {
            "Resources": {"Model": model(tag, ROLE)},
            "Outputs": {"Name": {"Value": {"Fn::GetAtt": ["Model", "ModelName"]}}},
        }
        write_assembly(tmp_path, {"Changed": template}, images={tag: image_dir})
        return cloud.deploy(tmp_path)["Changed"]["Name"]

    first = deploy("v1")
    assert deploy("v1") == first
    second = deploy("v2")
    assert second != first
    names = [m["ModelName"] for m in cloud.client("sagemaker").list_models()["Models"]]
    assert second in names
    assert first not in names


def test_stacks_deploy_after_those_they_depend_on(cloud: LocalCloud, tmp_path: Path) -> None:
    exporting = {
        "Resources": {"P": _parameter("/exported", "from the other stack")},
        "Outputs": {"V": {"Value": {"Ref": "P"}, "Export": {"Name": "exported-name"}}},
    }
    importing = {
        "Resources": {"P": _parameter("/imported", {"Fn::ImportValue": "exported-name"})},
        "Outputs": {"Value": {"Value": {"Fn::GetAtt": ["P", "Value"]}}},
    }
    write_assembly(
        tmp_path,
        {"AImporting": importing, "BExporting": exporting},
        depends_on={"AImporting": ["BExporting"]},
    )
    assert cloud.deploy(tmp_path)["AImporting"] == {"Value": "/exported"}


def test_a_stage_goes_to_its_own_account_and_region(cloud: LocalCloud, tmp_path: Path) -> None:
    write_assembly(tmp_path, {}, nested=["assembly-Prod"])
    write_assembly(
        tmp_path / "assembly-Prod",
        {
            "Prod-Stack": {
                "Resources": {"P": _parameter("/where", {"Ref": "AWS::AccountId"})},
                "Outputs": {"Value": {"Value": {"Fn::Sub": "${AWS::AccountId} ${AWS::Region}"}}},
            }
        },
        environment="aws://111122223333/eu-west-1",
    )
    assert cloud.deploy(tmp_path) == {"Prod-Stack": {"Value": "111122223333 eu-west-1"}}
    there = cloud.client("ssm", account="111122223333", region="eu-west-1")
    assert there.get_parameter(Name="/where")["Parameter"]["Value"] == "111122223333"
    here = cloud.client("ssm")
    with pytest.raises(here.exceptions.ParameterNotFound):
        here.get_parameter(Name="/where")


def test_a_template_may_be_large(cloud: LocalCloud, tmp_path: Path) -> None:
    template = {
        "Metadata": {"Padding": "x" * 60_000},
        "Resources": {"P": _parameter("/large", "1")},
    }
    write_assembly(tmp_path, {"Large": template})
    assert cloud.deploy(tmp_path) == {"Large": {}}


def test_template_parameters_can_be_given(cloud: LocalCloud, tmp_path: Path) -> None:
    template = {
        "Parameters": {"Given": {"Type": "String"}},
        "Resources": {"P": _parameter("/given", {"Ref": "Given"})},
        "Outputs": {"Value": {"Value": {"Ref": "Given"}}},
    }
    write_assembly(tmp_path, {"Parametrized": template})
    outputs = cloud.deploy(tmp_path, parameters={"Parametrized": {"Given": "this"}})
    assert outputs["Parametrized"]["Value"] == "this"
    with pytest.raises(DeployFailed, match="got Unknown; it has Parametrized"):
        cloud.deploy(tmp_path, parameters={"Unknown": {}})


def test_fails_with_the_resource_and_its_reason_and_can_be_deployed_again(
    cloud: LocalCloud, tmp_path: Path, image_dir: Path
) -> None:
    unknown = model("x", ROLE)
    unknown["Properties"]["PrimaryContainer"]["Image"] = "public/image:1"
    write_assembly(
        tmp_path,
        {"Failing": {"Resources": {"Good": _parameter("/good", "1"), "Model": unknown}}},
    )
    with pytest.raises(
        DeployFailed,
        match=r"stack Failing must deploy, got ROLLBACK_COMPLETE: Model "
        r"\(AWS::SageMaker::Model\): .*public/image:1 not found.*register the directory",
    ):
        cloud.deploy(tmp_path)

    cloud.images.register("public/image:1", image_dir)
    assert cloud.deploy(tmp_path) == {"Failing": {}}


def test_fails_when_a_resource_type_is_unknown(cloud: LocalCloud, tmp_path: Path) -> None:
    write_assembly(
        tmp_path, {"Unknown": {"Resources": {"Odd": {"Type": "AWS::No::Such", "Properties": {}}}}}
    )
    with pytest.raises(DeployFailed, match=r"stack Unknown must .*AWS::No::Such"):
        cloud.deploy(tmp_path)


def test_fails_when_an_image_asset_has_no_serve(cloud: LocalCloud, tmp_path: Path) -> None:
    (tmp_path / "image").mkdir()
    write_assembly(tmp_path, {"NoServe": {"Resources": {}}}, images={"t": tmp_path / "image"})
    with pytest.raises(DeployFailed, match="NoServe: a model image directory must hold"):
        cloud.deploy(tmp_path)


def test_fails_when_there_is_no_assembly(cloud: LocalCloud, tmp_path: Path) -> None:
    with pytest.raises(DeployFailed, match=r"must have the file .*manifest\.json.*cdk synth"):
        cloud.deploy(tmp_path)


def test_fails_when_an_asset_is_missing(cloud: LocalCloud, tmp_path: Path) -> None:
    files = {"gone.zip": (Path("asset.gone"), "zip", "1")}
    write_assembly(tmp_path, {"Gone": {"Resources": {}}}, files=files)
    with pytest.raises(DeployFailed, match=r"Gone must have its assets.*asset\.gone; run: cdk"):
        cloud.deploy(tmp_path)


def test_fails_when_stacks_depend_on_each_other(cloud: LocalCloud, tmp_path: Path) -> None:
    empty: dict[str, Any] = {"Resources": {}}
    write_assembly(tmp_path, {"A": empty, "B": empty}, depends_on={"A": ["B"], "B": ["A"]})
    with pytest.raises(DeployFailed, match="circle, got A, B"):
        cloud.deploy(tmp_path)


def test_fails_with_what_it_waits_for_when_the_time_is_over(
    cloud: LocalCloud, tmp_path: Path
) -> None:
    handle = {"Type": "AWS::CloudFormation::WaitConditionHandle"}
    condition = {
        "Type": "AWS::CloudFormation::WaitCondition",
        "Properties": {"Handle": {"Ref": "Handle"}, "Timeout": "20", "Count": 1},
    }
    write_assembly(tmp_path, {"Waiting": {"Resources": {"Handle": handle, "Never": condition}}})
    with pytest.raises(DeployFailed, match="within 1 s, got CREATE_IN_PROGRESS still at Never"):
        cloud.deploy(tmp_path, limit_s=1)


def test_an_update_adds_changes_and_removes_resources(cloud: LocalCloud, tmp_path: Path) -> None:
    def deploy(code: str, **parameters: str) -> None:
        function = {
            "Type": "AWS::Lambda::Function",
            "Properties": {
                "Runtime": "python3.13",
                "Role": ROLE,
                "Handler": "index.handle",
                "Code": {"ZipFile": code},
                "FunctionName": "updated",
            },
        }
        queue = {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": "kept"}}
        named = {name: _parameter(f"/updated/{name}", value) for name, value in parameters.items()}
        template = {"Resources": {"Function": function, "Queue": queue, **named}}
        write_assembly(tmp_path, {"Updated": template})
        cloud.deploy(tmp_path)

    def called() -> object:
        return json.load(cloud.client("lambda").invoke(FunctionName="updated")["Payload"])

    sqs = cloud.client("sqs")
    deploy("def handle(event, context):\n    return 1\n", first="1", second="2")
    assert called() == 1
    url = sqs.get_queue_url(QueueName="kept")["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="data")

    deploy("def handle(event, context):\n    return 2\n", first="one", third="3")

    assert called() == 2
    page = cloud.client("ssm").get_parameters_by_path(Path="/updated")["Parameters"]
    assert {each["Name"]: each["Value"] for each in page} == {
        "/updated/first": "one",
        "/updated/third": "3",
    }
    (message,) = sqs.receive_message(QueueUrl=url)["Messages"]
    assert message["Body"] == "data"


def test_an_update_that_fails_leaves_what_was_there_and_can_be_taken_back(
    cloud: LocalCloud, tmp_path: Path, image_dir: Path
) -> None:
    unknown = model("x", ROLE)
    unknown["Properties"]["PrimaryContainer"]["Image"] = "public/unknown:1"

    def deploy(tag: str, **more: dict[str, Any]) -> str:
        resources = {"Model": model(tag, ROLE), **more}
        for resource in more.values():
            resource["DependsOn"] = ["Model"]
        template = {
            "Resources": resources,
            "Outputs": {"Name": {"Value": {"Fn::GetAtt": ["Model", "ModelName"]}}},
        }
        write_assembly(tmp_path, {"Refused": template}, images={tag: image_dir})
        return cloud.deploy(tmp_path)["Refused"]["Name"]

    first = deploy("r1")
    with pytest.raises(DeployFailed, match=r"got UPDATE_ROLLBACK_COMPLETE: Other .*unknown:1"):
        deploy("r2", Other=unknown)

    names = [m["ModelName"] for m in cloud.client("sagemaker").list_models()["Models"]]
    assert [name for name in names if name.startswith("Refused-")] == [first]
    assert deploy("r1") == first
    assert deploy("r2") != first
