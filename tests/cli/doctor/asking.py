"""An app that asks for one of each thing, as our constructs write it."""

import json
from dataclasses import dataclass
from typing import Any

from batch_transform_cli.doctor.assembly import AppStack

ACCOUNT = "123456789012"
REGION = "eu-west-1"


@dataclass(frozen=True, kw_only=True)
class World:
    """The ids of what the app names."""

    key: str
    subnet: str
    group: str
    topic: str


def container(image: str = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/churn:1") -> dict[str, str]:
    return {"Image": image, "ModelDataUrl": "s3://models/model.tar.gz"}


def asking(
    world: World,
    *,
    account: str | None = ACCOUNT,
    region: str | None = REGION,
    image: str = container()["Image"],
    subnet: Any = None,
) -> AppStack:
    """Return the app's one stack."""
    subnet = subnet or {"Ref": "Subnet"}
    job = {
        "Type": "Task",
        "Resource": "arn:aws:states:::sagemaker:createTransformJob.sync",
        "Arguments": {
            "ModelName": "churn-v1",
            "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 2},
        },
    }
    read = {
        "Type": "Task",
        "Resource": "arn:aws:states:::aws-sdk:ssm:getParameter",
        "Arguments": {"Name": "/churn/model"},
    }
    announce = {"Source": "batch-transform", "Detail": {"pipeline": "churn"}}
    definition = {"States": {"Read": read, "Job": job, "Announce": {"Entries": [announce]}}}
    key = world.key
    resources = {
        "Model": _resource(
            "SageMaker::Model",
            PrimaryContainer=container(image),
            ExecutionRoleArn=f"arn:aws:iam::{ACCOUNT}:role/scoring",
            VpcConfig={"Subnets": [subnet], "SecurityGroupIds": [world.group]},
        ),
        "Machine": _resource(
            "StepFunctions::StateMachine",
            DefinitionString=json.dumps(definition),
            EncryptionConfiguration={"KmsKeyId": key},
        ),
        "Queue": _resource("SQS::Queue", KmsMasterKeyId=key),
        "Logs": _resource("Logs::LogGroup", KmsKeyId=key),
        "Function": _resource(
            "Lambda::Function",
            VpcConfig={"SubnetIds": [subnet], "SecurityGroupIds": [world.group]},
        ),
        "Uploads": _resource(
            "Events::Rule",
            EventPattern={"source": ["aws.s3"], "detail": {"bucket": {"name": ["arrivals"]}}},
        ),
        "Role": _resource(
            "IAM::Role", PermissionsBoundary=f"arn:aws:iam::{ACCOUNT}:policy/boundary"
        ),
        "Alarm": _resource("CloudWatch::Alarm", AlarmActions=[world.topic]),
        "InputBucket": _resource(
            "SSM::Parameter", Name="/batch-transform/churn/input-bucket", Value="arrivals"
        ),
        "Settings": _resource(
            "SSM::Parameter",
            Name="/batch-transform/churn/settings",
            Value=json.dumps({"max-concurrent-runs": 2, "input-prefix": "in/"}),
        ),
    }
    return AppStack(
        name="Churn",
        display_name="Churn",
        account=account,
        region=region,
        template={
            "Parameters": {
                "Subnet": {
                    "Type": "AWS::SSM::Parameter::Value<String>",
                    "Default": "/batch-transform-account/subnet-1-id",
                }
            },
            "Resources": resources,
        },
        bootstrap_parameter="/cdk-bootstrap/hnb659fds/version",
        bootstrap_version=6,
    )


def _resource(kind: str, **properties: Any) -> dict[str, Any]:
    return {"Type": f"AWS::{kind}", "Properties": properties}
