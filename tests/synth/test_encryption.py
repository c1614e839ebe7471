"""One key for all that a pipeline keeps, and the use of it for everyone who touches that."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aws_cdk import Annotations as Metadata
from aws_cdk import App, Environment, PermissionsBoundary, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sns as sns
from aws_cdk.assertions import Annotations, Match
from aws_cdk.aws_scheduler import ScheduleExpression

from batch_transform import (
    BatchTransform,
    FunctionsVpc,
    Monitoring,
    PredictionIndex,
    TransformModel,
    TransformSettings,
)
from tests.policies import Statement, actions_of, statements_of_roles

PROJECT = Path(__file__).resolve().parents[2]

Template = dict[str, Any]
Synthesize = Callable[[Callable[[Stack], object]], Template]

#: What a caller of an action needs of the key of the resource.
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingKMSEncryption.html
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-key-management.html
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/encryption.usagenotes.html
NEEDED = {
    "s3:GetObject": {"kms:Decrypt"},
    "s3:PutObject": {"kms:Decrypt", "kms:GenerateDataKey"},
    "sqs:SendMessage": {"kms:Decrypt", "kms:GenerateDataKey"},
    "sqs:ReceiveMessage": {"kms:Decrypt"},
    "dynamodb:GetItem": {"kms:Decrypt"},
    "dynamodb:BatchGetItem": {"kms:Decrypt"},
    "dynamodb:Query": {"kms:Decrypt"},
    "dynamodb:PutItem": {"kms:Decrypt", "kms:Encrypt"},
    "dynamodb:UpdateItem": {"kms:Decrypt", "kms:Encrypt"},
    "dynamodb:DeleteItem": {"kms:Decrypt", "kms:Encrypt"},
    "dynamodb:BatchWriteItem": {"kms:Decrypt", "kms:Encrypt"},
}
# Where each kind of resource says with which key it is encrypted.
KEY_MEMBERS = {
    "AWS::SQS::Queue": ("KmsMasterKeyId",),
    "AWS::DynamoDB::Table": ("SSESpecification", "KMSMasterKeyId"),
    "AWS::Logs::LogGroup": ("KmsKeyId",),
    "AWS::Lambda::Function": ("KmsKeyArn",),
    "AWS::StepFunctions::StateMachine": ("EncryptionConfiguration", "KmsKeyId"),
    "AWS::S3::Bucket": (
        "BucketEncryption",
        "ServerSideEncryptionConfiguration",
        0,
        "ServerSideEncryptionByDefault",
        "KMSMasterKeyID",
    ),
}


def one_key_for_all(stack: Stack, model: TransformModel) -> BatchTransform:
    pipeline = BatchTransform(
        stack,
        "Churn",
        model=model,
        instance_type="ml.m5.large",
        settings=TransformSettings(content_type="text/csv", accept="text/csv"),
        index=PredictionIndex(record_id=0),
        schedule=ScheduleExpression.expression("rate(1 day)"),
        encryption_key=kms.Key(stack, "Key"),
    )
    someone = iam.Role(stack, "Someone", assumed_by=iam.AccountRootPrincipal())
    for grant in ("drop", "read", "backfill", "redrive"):
        getattr(pipeline.grants, grant)(someone)
    return pipeline


def keys_of_buckets(stack: Stack, model: TransformModel) -> BatchTransform:
    buckets: dict[str, Any] = {
        f"{name}_bucket": s3.Bucket(
            stack,
            name,
            encryption_key=kms.Key(stack, f"{name}Key"),
            event_bridge_enabled=name == "input",
        )
        for name in ("input", "output")
    }
    return BatchTransform(
        stack,
        "Churn",
        model=model,
        instance_type="ml.m5.large",
        index=PredictionIndex(record_id="id"),
        **buckets,
    )


@pytest.fixture(scope="module")
def model(model_files: Any) -> TransformModel:
    return TransformModel.from_artifact(model_files / "model", model_files / "image")


@pytest.fixture(scope="module")
def encrypted(synthesize: Synthesize, model: TransformModel) -> Template:
    return synthesize(lambda stack: one_key_for_all(stack, model))


@pytest.fixture(scope="module")
def with_bucket_keys(synthesize: Synthesize, model: TransformModel) -> Template:
    return synthesize(lambda stack: keys_of_buckets(stack, model))


def named_in(value: Any) -> set[str]:
    """The logical ids that a value refers to."""
    found: set[str] = set()
    if isinstance(value, dict):
        if "Ref" in value:
            found.add(value["Ref"])
        if "Fn::GetAtt" in value:
            found.add(value["Fn::GetAtt"][0])
    for part in value.values() if isinstance(value, dict) else value:
        if isinstance(part, dict | list):
            found |= named_in(part)
    return found


def keys_of_resources(template: Template) -> dict[str, str]:
    """The logical id of each encrypted resource and that of its key."""
    found: dict[str, str] = {}
    for name, resource in template["Resources"].items():
        value = resource.get("Properties", {})
        for member in KEY_MEMBERS.get(resource["Type"], ()):
            value = value[member] if isinstance(member, int) or member in value else {}
        if resource["Type"] in KEY_MEMBERS:
            for key in named_in(value):
                found[name] = key
    return found


def lacking(template: Template) -> Iterator[str]:
    """Say who may touch what is encrypted, and may not use the key for it."""
    keys = keys_of_resources(template)
    for role, statements in statements_of_roles(template).items():
        for statement in statements:
            if statement["Effect"] != "Allow":
                continue
            for resource in named_in([statement["Resource"]]) & set(keys):
                for action in actions_of([statement]) & set(NEEDED):
                    missing = NEEDED[action] - key_actions(statements, keys[resource])
                    if missing:
                        yield f"{role} {action} {resource}: {sorted(missing)}"


def key_actions(statements: list[Statement], key: str) -> set[str]:
    return {
        action
        for statement in statements
        if statement["Effect"] == "Allow" and "Condition" not in statement
        if key in named_in([statement["Resource"]])
        for action in actions_of([statement])
    }


@pytest.mark.parametrize("which", ["encrypted", "with_bucket_keys"])
def test_who_touches_what_is_encrypted_may_use_its_key(
    which: str, request: pytest.FixtureRequest
) -> None:
    template = request.getfixturevalue(which)

    assert keys_of_resources(template)
    assert list(lacking(template)) == []


def test_it_is_seen_when_a_role_lacks_the_key(encrypted: Template) -> None:
    taken = json.loads(json.dumps(encrypted).replace('"kms:GenerateDataKey"', '"kms:DescribeKey"'))

    said = " ".join(lacking(taken))

    for part in ("sqs:SendMessage", "s3:PutObject", "EveryMinuteRole", "Someone"):
        assert part in said


def test_the_key_encrypts_all_that_can_be_encrypted(encrypted: Template) -> None:
    kept = {
        name for name, resource in encrypted["Resources"].items() if resource["Type"] in KEY_MEMBERS
    }

    assert kept == set(keys_of_resources(encrypted))
    assert len(set(keys_of_resources(encrypted).values())) == 1


def test_the_jobs_encrypt_their_outputs_and_volumes_with_it(encrypted: Template) -> None:
    ((machine, key),) = [
        (resource["Properties"], keys_of_resources(encrypted)[name])
        for name, resource in encrypted["Resources"].items()
        if resource["Type"] == "AWS::StepFunctions::StateMachine"
    ]
    definition = "".join(
        part if isinstance(part, str) else f"<{next(iter(named_in(part)))}>"
        for part in machine["DefinitionString"]["Fn::Join"][1]
    )

    assert f'"KmsKeyId": "<{key}>"' in definition
    assert f'"VolumeKmsKeyId": "<{key}>"' in definition
    grants = [
        role
        for role, statements in statements_of_roles(encrypted).items()
        for statement in statements
        if "kms:CreateGrant" in actions_of([statement])
        and statement["Condition"] == {"Bool": {"kms:GrantIsForAWSResource": "true"}}
    ]
    assert len(grants) == 2  # the state machine's role, and the model's


def test_services_may_use_the_key_for_this_account_only(encrypted: Template) -> None:
    (key,) = [
        resource["Properties"]["KeyPolicy"]["Statement"]
        for resource in encrypted["Resources"].values()
        if resource["Type"] == "AWS::KMS::Key"
    ]
    services = {
        json.dumps(statement["Principal"]["Service"]): statement
        for statement in key
        if "Service" in statement["Principal"]
    }

    assert services['"events.amazonaws.com"']["Action"] == ["kms:Decrypt", "kms:GenerateDataKey"]
    assert services['"delivery.logs.amazonaws.com"']["Action"] == "kms:Decrypt"
    assert any("logs." in service and "AWS::Region" in service for service in services)
    for statement in services.values():
        assert "AWS::AccountId" in json.dumps(statement["Condition"])


def pipeline(stack: Stack, **arguments: Any) -> BatchTransform:
    model = TransformModel.from_model_name("churn")
    return BatchTransform(
        stack, "Churn", model=model, **{"instance_type": "ml.m5.large", **arguments}
    )


def test_local_storage_gets_no_key_and_a_key_of_the_settings_stays() -> None:
    stack = Stack(App(), "Scoring")
    key, own = kms.Key(stack, "Key"), kms.Key(stack, "Own")

    made = pipeline(
        stack,
        instance_type="ml.g5.xlarge",
        settings=TransformSettings(content_type="text/csv", output_key=own),
        encryption_key=key,
    )

    assert made.steps[0].settings.volume_key is None
    assert made.steps[0].settings.output_key is own


def warnings(stack: Stack) -> list[Any]:
    about_the_key = Match.string_like_regexp("policy of encryption_key must let .*docs/encryption")
    found: list[Any] = Annotations.from_stack(stack).find_warning("*", about_the_key)
    return found


def test_an_imported_key_is_warned_of_until_that_is_acknowledged() -> None:
    stack = Stack(App(), "Scoring")
    arn = "arn:aws:kms:eu-west-1:111122223333:key/1234-abcd"
    made = pipeline(stack, encryption_key=kms.Key.from_key_arn(stack, "Key", arn))
    assert warnings(stack)

    Metadata.of(made).acknowledge_warning("@batch-transform:policyOfImportedKey")
    assert not warnings(stack)


def test_a_key_of_the_app_is_not_warned_of() -> None:
    app = App()
    where = Environment(account="111122223333", region="eu-west-1")
    key = kms.Key(Stack(app, "Keys", env=where), "Key")
    stack = Stack(app, "Scoring", env=where)

    pipeline(stack, encryption_key=key)

    assert not warnings(stack)


def test_fails_when_the_key_is_an_alias() -> None:
    stack = Stack(App(), "Scoring")

    with pytest.raises(ValueError, match="got an alias, which policies cannot name; import the"):
        pipeline(stack, encryption_key=kms.Alias.from_alias_name(stack, "Key", "alias/data"))


def test_a_topic_that_exists_is_told_of_alarms(synthesize: Synthesize) -> None:
    arn = "arn:aws:sns:eu-west-1:111122223333:ops"

    def define(stack: Stack) -> None:
        topic = sns.Topic.from_topic_arn(stack, "Ops", arn)
        pipeline(stack, monitoring=Monitoring(topic=topic))

    alarms = [
        resource["Properties"]
        for resource in synthesize(define)["Resources"].values()
        if resource["Type"] == "AWS::CloudWatch::Alarm"
    ]

    assert alarms
    assert all(alarm["AlarmActions"] == [arn] for alarm in alarms)


def boundaries(template: Template) -> list[Any]:
    return [
        resource["Properties"].get("PermissionsBoundary")
        for resource in template["Resources"].values()
        if resource["Type"] == "AWS::IAM::Role"
    ]


def test_a_permissions_boundary_reaches_every_role(
    synthesize: Synthesize, model: TransformModel
) -> None:
    def by_aspect(stack: Stack) -> None:
        one_key_for_all(stack, model)
        boundary = iam.ManagedPolicy.from_managed_policy_name(stack, "Boundary", "ours")
        iam.PermissionsBoundary.of(stack).apply(boundary)

    found = boundaries(synthesize(by_aspect))
    assert found
    assert all("policy/ours" in json.dumps(boundary) for boundary in found)


def test_a_permissions_boundary_of_the_stage_reaches_every_role() -> None:
    app = App()
    stack = Stack(app, "Scoring", permissions_boundary=PermissionsBoundary.from_name("ours"))
    pipeline(stack, index=PredictionIndex(record_id="id"))

    found = boundaries(app.synth().get_stack_by_name("Scoring").template)
    assert found
    assert all("policy/ours" in json.dumps(boundary) for boundary in found)


@pytest.fixture(scope="module")
def connected(synthesize: Synthesize) -> Template:
    def define(stack: Stack) -> None:
        vpc = ec2.Vpc(stack, "Vpc", max_azs=2)
        pipeline(stack, functions_vpc=FunctionsVpc(vpc=vpc), index=PredictionIndex(record_id="id"))

    return synthesize(define)


def test_every_function_runs_in_the_private_subnets_behind_one_security_group(
    connected: Template,
) -> None:
    functions = [
        resource["Properties"]["VpcConfig"]
        for resource in connected["Resources"].values()
        if resource["Type"] == "AWS::Lambda::Function"
        and resource["Properties"].get("Handler", "").startswith("transform_lambdas.")
    ]

    assert len(functions) == 6
    for config in functions:
        assert config == functions[0]
        assert all("PrivateSubnet" in json.dumps(subnet) for subnet in config["SubnetIds"])
    (group,) = named_in(functions[0]["SecurityGroupIds"])
    (egress,) = connected["Resources"][group]["Properties"]["SecurityGroupEgress"]
    assert (egress["FromPort"], egress["ToPort"]) == (443, 443)
    assert "SecurityGroupIngress" not in connected["Resources"][group]["Properties"]


def test_interfaces_are_for_lambda_and_not_for_the_code_of_a_function(
    connected: Template,
) -> None:
    holders = 0
    for statements in statements_of_roles(connected).values():
        if "ec2:CreateNetworkInterface" not in actions_of(statements):
            continue
        holders += 1
        (deny,) = [statement for statement in statements if statement["Effect"] == "Deny"]
        allowed = {
            action
            for statement in statements
            if statement["Effect"] == "Allow"
            for action in actions_of([statement])
            if action.startswith("ec2:")
        }
        assert deny["Condition"] == {"Null": {"lambda:SourceFunctionArn": "false"}}
        assert set(deny["Action"]) == allowed
    assert holders == 6


def test_fails_when_functions_would_be_in_public_subnets() -> None:
    stack = Stack(App(), "Scoring")
    public = ec2.SubnetSelection(subnet_type=ec2.SubnetType.PUBLIC)

    with pytest.raises(ValueError, match="must have private subnets, got public ones"):
        pipeline(stack, functions_vpc=FunctionsVpc(vpc=ec2.Vpc(stack, "Vpc"), subnets=public))


def test_the_page_has_the_statements_that_an_imported_key_needs() -> None:
    app = App()
    where = Environment(account="111122223333", region="eu-west-1")
    stack = Stack(app, "Scoring", env=where)
    pipeline(stack, encryption_key=kms.Key(stack, "Key"))
    template = app.synth().get_stack_by_name("Scoring").template
    (policy,) = [
        resource["Properties"]["KeyPolicy"]["Statement"]
        for resource in template["Resources"].values()
        if resource["Type"] == "AWS::KMS::Key"
    ]
    text = (PROJECT / "docs" / "encryption.md").read_text()
    (block,) = re.findall(r"```json\n(.*?)```", text, flags=re.DOTALL)

    assert json.loads(block)["Statement"] == [plain(each) for each in policy if "Sid" in each]


def plain(value: Any) -> Any:
    """Write out what CloudFormation would join, in the partition `aws`."""
    if isinstance(value, dict) and "Fn::Join" in value:
        return "".join("aws" if isinstance(part, dict) else part for part in value["Fn::Join"][1])
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, list) else value
