import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from aws_cdk import App, Duration, RemovalPolicy, Size, Stack, TimeZone
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sns as sns
from aws_cdk.aws_scheduler import ScheduleExpression

import batch_transform
from batch_transform import (
    AccountSettings,
    AccountVpc,
    BatchPolicy,
    BatchTransform,
    DataCapture,
    Experiment,
    FunctionsVpc,
    InstanceCount,
    ModelContainer,
    ModelVpc,
    Monitoring,
    PredictionIndex,
    PrivateRegistry,
    S3Location,
    SplitType,
    TransformModel,
    TransformSettings,
    TransformStep,
    Uploads,
    define_pipelines,
)
from batch_transform.accounts_file import AccountsFile
from batch_transform.log_retention import LOG_RETENTION
from batch_transform.pipelines_file import load, schema
from batch_transform.yaml_text import YamlError
from scripts.schemas import rendered

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = schema()
UNITS = r"_(s|minutes|hours|days|bytes|kib|mib|gib)$"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write `pipelines.yaml`, and `accounts.yaml`, beside a model `m` and an image `i`."""
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.json").write_text("{}")
    (tmp_path / "i").mkdir()
    (tmp_path / "i" / "Dockerfile").write_text("FROM scratch\n")
    monkeypatch.chdir(tmp_path)

    def run(pipelines: str, accounts: str | None = None) -> Path:
        if accounts is not None:
            (tmp_path / "accounts.yaml").write_text(accounts)
        path = tmp_path / "pipelines.yaml"
        path.write_text(pipelines)
        return path

    return run


CHURN = """\
pipelines:
  Churn:
    model: {name: churn-v1}
    instance_type: ml.m5.large
"""

ACCOUNTS = """\
accounts:
  Test:
    account: "111122223333"
    region: eu-west-1
    names: {arrivals: test-arrivals, runs: 1, days: 7, live: false}
  Prod:
    account: "444455556666"
    region: us-east-1
    names: {arrivals: prod-arrivals, runs: 8, days: 90, live: true}
    tags: {stage: prod}
    permissions_boundary: developers
"""


def synthesized(path: Path) -> dict[str, Any]:
    app = App(analytics_reporting=False)
    define_pipelines(app, path)
    return {stack.stack_name: stack.template for stack in app.synth().stacks_recursively}


def of_type(template: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [each["Properties"] for each in template["Resources"].values() if each["Type"] == kind]


def variables(template: dict[str, Any], module: str) -> dict[str, Any]:
    (function,) = [
        resource["Properties"]
        for resource in template["Resources"].values()
        if resource.get("Properties", {}).get("Handler") == f"transform_lambdas.{module}.handle"
    ]
    return dict(function["Environment"]["Variables"])


def test_what_the_file_leaves_out_has_the_library_s_default(write: Callable[..., Path]) -> None:
    (template,) = synthesized(write(CHURN)).values()

    assert variables(template, "dispatch")["MAX_WAIT_S"] == "60"
    assert variables(template, "intake")["INPUT_PREFIX"] == "input/"


def test_every_member_reaches_the_pipeline(write: Callable[..., Path]) -> None:
    path = write("""\
pipelines:
  Churn:
    model: {artifact: m, image: i, environment: {A: b}, network_isolation: true}
    instance_type: ml.m5.xlarge
    instance_count: 2
    settings:
      csv:
        accept: text/csv
        compression_type: Gzip
        batch_strategy: MultiRecord
        max_payload_mib: 5
        max_concurrent_transforms: 2
        model_client: {invocations_timeout_s: 30, invocations_max_retries: 0}
        data_processing: {input_filter: "$[1:]", join_source: Input, output_filter: "$[0,-1]"}
        environment: {LOG: info}
        tags: {team: growth}
    index: {record_id: 0, retention_days: 9}
    batch: {max_wait_s: 3, max_objects: 7, max_bytes: 1000, marker: _SUCCESS}
    input_bucket: arrivals
    uploads: {prefix: drops/, suffix: .csv, max_size_kib: 1}
    schedule: rate(1 day)
    max_concurrent_runs: 4
    max_attempts: 5
    max_failed_fraction: 0.25
    check_records: false
    job_timeout_minutes: 10
    pipeline_id: churn
""")
    (template,) = synthesized(path).values()
    text = str(template)

    dispatch = variables(template, "dispatch")
    assert dispatch["PIPELINE_ID"] == "churn"
    assert dispatch["INPUT_BUCKET"] == "arrivals"
    assert (dispatch["MAX_WAIT_S"], dispatch["MAX_OBJECTS"]) == ("3", "7")
    assert (dispatch["MAX_BYTES"], dispatch["MARKER"]) == ("1000", "_SUCCESS")
    assert dispatch["MAX_CONCURRENT_RUNS"] == "4"
    intake = variables(template, "intake")
    assert (intake["INPUT_PREFIX"], intake["INPUT_SUFFIXES"]) == ("drops/", '[".csv"]')
    assert (intake["MIN_DROP_BYTES"], intake["MAX_DROP_BYTES"]) == ("", "1024")
    settle = variables(template, "settle")
    assert (settle["MAX_ATTEMPTS"], settle["MAX_FAILED_FRACTION"]) == ("5", "0.25")
    assert settle["RECORD_CHECKS"] == "[null]"
    assert variables(template, "index")["RETENTION_DAYS"] == "9"
    for part in (
        '"InvocationsTimeoutInSeconds": 30, "InvocationsMaxRetries": 0',
        '"InputFilter": "$[1:]", "OutputFilter": "$[0,-1]", "JoinSource": "Input"',
        '"CompressionType": "Gzip"',
        '"MaxPayloadInMB": 5',
        '"InstanceCount": 2',
        '"TimeoutSeconds": 600',
        "'ScheduleExpression': 'rate(1 day)'",
    ):
        assert part in text


def test_other_formats_are_their_factories(write: Callable[..., Path]) -> None:
    path = write("""\
pipelines:
  Images:
    model: {name: resnet}
    instance_type: ml.g5.xlarge
    settings: {whole_files: {content_type: image/jpeg, accept: application/json}}
  Lines:
    model: {name: churn}
    instance_type: ml.m5.large
    settings: {json_lines: {}}
    index: {record_id: id}
""")
    templates = synthesized(path)

    assert '"ContentType": "image/jpeg", "SplitType": "None"' in str(templates["Images"])
    assert variables(templates["Lines"], "index")["RECORD_FORMAT"] == "jsonlines"


KEY = "arn:aws:kms:eu-west-1:111122223333:key/1234-abcd"
ROLE = "arn:aws:iam::111122223333:role/scoring"
IMAGE = "111122223333.dkr.ecr.eu-west-1.amazonaws.com/churn:3"
PACKAGE = "arn:aws:sagemaker:eu-west-1:111122223333:model-package/churn/3"


def _key(stack: Stack) -> kms.IKey:
    return kms.Key.from_key_arn(stack, "Imported", KEY)


def _vpc(stack: Stack) -> dict[str, Any]:
    zones = {"availability_zone": "any", "route_table_id": "any"}
    return {
        "vpc": ec2.Vpc.from_vpc_attributes(
            stack, "Vpc", vpc_id="vpc-1", availability_zones=["any"]
        ),
        "subnets": ec2.SubnetSelection(
            subnets=[
                ec2.Subnet.from_subnet_attributes(stack, "Subnet", subnet_id="subnet-1", **zones)
            ]
        ),
    }


def _model(**given: Any) -> Callable[[Stack], dict[str, Any]]:
    """Return the arguments of a pipeline of a model; what depends on the stack is a function."""
    make = given.pop("make")
    return lambda stack: {
        "model": make(**{k: v(stack) if callable(v) else v for k, v in given.items()}),
        "instance_type": "ml.m5.large",
    }


SAME = [
    pytest.param(
        "model: {name: churn-v1}",
        _model(make=TransformModel.from_model_name, name="churn-v1"),
        id="a model that exists",
    ),
    pytest.param(
        f"model: {{artifact: m, image: i, environment: {{A: b}}, role: '{ROLE}'}}",
        _model(
            make=TransformModel.from_artifact,
            artifact=Path("m"),
            image=Path("i"),
            environment={"A": "b"},
            role=lambda stack: iam.Role.from_role_arn(stack, "Role", ROLE),
        ),
        id="folders and a role",
    ),
    pytest.param(
        f"model: {{artifact: s3://models/a.tar.gz, artifact_key: '{KEY}', image: '{IMAGE}'}}",
        _model(
            make=TransformModel.from_artifact,
            artifact="s3://models/a.tar.gz",
            artifact_key=_key,
            image=IMAGE,
        ),
        id="an archive in S3 and an image in ECR",
    ),
    pytest.param(
        "model: {image: {repository: churn}, image_tag: v3}",
        _model(
            make=TransformModel.from_artifact,
            artifact=None,
            image=lambda stack: ecr.Repository.from_repository_name(stack, "Images", "churn"),
            image_tag="v3",
        ),
        id="a repository of the account, the model in the image",
    ),
    pytest.param(
        "model:\n      image: registry.example.com/churn:3\n"
        "      registry: {credentials: 'arn:aws:lambda:eu-west-1:111122223333:function:login'}\n"
        "      vpc: {vpc: vpc-1, subnets: [subnet-1], security_groups: [sg-1]}",
        _model(
            make=TransformModel.from_artifact,
            artifact=None,
            image="registry.example.com/churn:3",
            registry=lambda stack: PrivateRegistry(
                credentials=lambda_.Function.from_function_arn(
                    stack, "Login", "arn:aws:lambda:eu-west-1:111122223333:function:login"
                )
            ),
            vpc=lambda stack: ModelVpc(
                **_vpc(stack),
                security_groups=[ec2.SecurityGroup.from_security_group_id(stack, "G", "sg-1")],
            ),
        ),
        id="an image of a registry in a VPC",
    ),
    pytest.param(
        f"model: {{package_arn: '{PACKAGE}', artifacts: ['s3://models/a.tar.gz'], "
        f"images: ['{IMAGE}'], inference_specification: fast}}",
        _model(
            make=TransformModel.from_model_package,
            package_arn=PACKAGE,
            artifacts=["s3://models/a.tar.gz"],
            images=[IMAGE],
            inference_specification="fast",
        ),
        id="a package of the registry",
    ),
    pytest.param(
        "model: {parameter: /churn/model, allowed_models: churn-*}",
        _model(
            make=TransformModel.from_ssm_parameter,
            parameter="/churn/model",
            allowed_models="churn-*",
        ),
        id="what a parameter names",
    ),
    pytest.param(
        f"model: {{containers: [{{image: '{IMAGE}', hostname: first}}, "
        "{image: i, artifact: m, hostname: second}]}",
        _model(
            make=TransformModel.pipeline,
            containers=lambda _: [
                ModelContainer(image=IMAGE, hostname="first"),
                ModelContainer(image=Path("i"), artifact=Path("m"), hostname="second"),
            ],
        ),
        id="containers in turn",
    ),
    pytest.param(
        """\
steps:
      - name: prepare
        model: {name: prepare-v1}
        instance_type: [ml.m5.large, ml.m5.xlarge]
        instance_count: {objects_per_instance: 10, bytes_per_instance: 1073741824, maximum: 4}
        settings: {csv: {}}
        job_timeout_hours: 2
      - {name: score, model: {name: churn-v1}, instance_type: ml.m5.large, settings: {csv: {}}}
    run_timeout_days: 2""",
        lambda _: {
            "steps": [
                TransformStep(
                    name="prepare",
                    model=TransformModel.from_model_name("prepare-v1"),
                    instance_type=["ml.m5.large", "ml.m5.xlarge"],
                    instance_count=InstanceCount.from_batch(
                        objects_per_instance=10, bytes_per_instance=Size.gibibytes(1), maximum=4
                    ),
                    settings=TransformSettings.csv(),
                    job_timeout=Duration.hours(2),
                ),
                TransformStep(
                    name="score",
                    model=TransformModel.from_model_name("churn-v1"),
                    instance_type="ml.m5.large",
                    settings=TransformSettings.csv(),
                ),
            ],
            "run_timeout": Duration.days(2),
        },
        id="steps",
    ),
    pytest.param(
        f"""\
model: {{name: churn-v1}}
    settings:
      content_type: application/x-npy
      split_type: None
      max_payload_mib: 20
      output_key: {KEY}
      volume_key: {KEY}
      ami_version: al2-ami-sagemaker-batch-gpu-535
      accept: text/csv
      experiment: {{experiment_name: churn, run_name: nightly}}
      data_capture: {{bucket: captured, prefix: c/, key: '{KEY}', generate_inference_id: true}}""",
        lambda stack: {
            "model": TransformModel.from_model_name("churn-v1"),
            "instance_type": "ml.m5.large",
            "settings": TransformSettings(
                content_type="application/x-npy",
                split_type=SplitType.NONE,
                max_payload=Size.mebibytes(20),
                output_key=_key(stack),
                volume_key=_key(Stack(stack, "Other")),
                ami_version="al2-ami-sagemaker-batch-gpu-535",
                accept="text/csv",
                experiment=Experiment(experiment_name="churn", run_name="nightly"),
                data_capture=DataCapture(
                    bucket=s3.Bucket.from_bucket_name(stack, "Captured", "captured"),
                    prefix="c/",
                    key=_key(Stack(stack, "Third")),
                    generate_inference_id=True,
                ),
            ),
        },
        id="settings of no preset, and capture",
    ),
    pytest.param(
        f"""\
model: {{name: churn-v1}}
    instance_type: ml.m5.large
    settings: {{csv: {{id_column: 0, gzip: true}}}}
    index: {{record_id: 0, value: [-1], retention_days: 90}}
    batch: {{max_wait_minutes: 10, max_bytes: 1073741824}}
    input_bucket: {{name: arrivals, encryption_key: '{KEY}'}}
    output_bucket: results
    uploads: {{prefix: drops/, suffix: [.a, .b], min_size_bytes: 1, max_size_gib: 1, events: false}}
    schedule: {{expression: 'cron(0 2 * * ? *)', time_zone: Europe/Berlin}}
    output_prefix: scores/
    encryption_key: {KEY}
    functions_vpc: {{vpc: vpc-1, subnets: [subnet-1]}}
    monitoring:
      topic: arn:aws:sns:eu-west-1:111122223333:on-call
      longest_wait_hours: 8
      dashboard: false
    removal_policy: DESTROY
    log_retention_days: 400""",
        lambda stack: {
            "model": TransformModel.from_model_name("churn-v1"),
            "instance_type": "ml.m5.large",
            "settings": TransformSettings.csv(id_column=0, gzip=True),
            "index": PredictionIndex(record_id=0, value=[-1], retention=Duration.days(90)),
            "batch": BatchPolicy(max_wait=Duration.minutes(10), max_bytes=Size.gibibytes(1)),
            "input_bucket": s3.Bucket.from_bucket_attributes(
                stack, "Arrivals", bucket_name="arrivals", encryption_key=_key(stack)
            ),
            "output_bucket": s3.Bucket.from_bucket_name(stack, "Results", "results"),
            "uploads": Uploads(
                prefix="drops/",
                suffix=[".a", ".b"],
                min_size=Size.bytes(1),
                max_size=Size.gibibytes(1),
                events=False,
            ),
            "schedule": ScheduleExpression.cron(
                minute="0", hour="2", time_zone=TimeZone.EUROPE_BERLIN
            ),
            "output_prefix": "scores/",
            "encryption_key": stack.node.find_child("Imported"),
            "functions_vpc": FunctionsVpc(**_vpc(stack)),
            "monitoring": Monitoring(
                topic=sns.Topic.from_topic_arn(
                    stack, "OnCall", "arn:aws:sns:eu-west-1:111122223333:on-call"
                ),
                longest_wait=Duration.hours(8),
                dashboard=False,
            ),
            "removal_policy": RemovalPolicy.DESTROY,
            "log_retention": logs.RetentionDays.THIRTEEN_MONTHS,
        },
        id="all around the jobs",
    ),
]


@pytest.mark.parametrize(("members", "arguments"), SAME)
def test_a_file_makes_what_the_same_program_makes(
    members: str, arguments: Callable[[Stack], dict[str, Any]], write: Callable[..., Path]
) -> None:
    text = f"pipelines:\n  Churn:\n    {members}\n"
    if "instance_type" not in members:
        text += "    instance_type: ml.m5.large\n"
    path = write(text)
    app = App(analytics_reporting=False)
    stack = Stack(app, "Churn")
    BatchTransform(stack, "Churn", **arguments(stack))

    assert synthesized(path)["Churn"] == app.synth().get_stack_by_name("Churn").template
    jsonschema.validate(yaml.safe_load(text), SCHEMA)


def test_what_exists_may_be_named_by_ssm_parameters(write: Callable[..., Path]) -> None:
    path = write(
        CHURN
        + "    encryption_key: {ssm: /baseline/key}\n"
        + "    monitoring: {topic: {ssm: /baseline/topic}}\n"
        + "    functions_vpc: {vpc: {ssm: /baseline/vpc}, subnets: [{ssm: /baseline/subnet}]}\n"
    )
    (template,) = synthesized(path).values()

    read = {each["Default"]: name for name, each in template["Parameters"].items()}
    assert {*read} >= {f"/baseline/{name}" for name in ("key", "topic", "vpc", "subnet")}
    (input_bucket, _) = of_type(template, "AWS::S3::Bucket")
    (rule,) = input_bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    key = rule["ServerSideEncryptionByDefault"]["KMSMasterKeyID"]
    assert key == {"Ref": read["/baseline/key"]}
    (group,) = of_type(template, "AWS::EC2::SecurityGroup")
    assert group["VpcId"] == {"Ref": read["/baseline/vpc"]}


def test_the_members_are_the_parameters_of_the_construct() -> None:
    """The module of BatchTransform is parsed by those who do without CDK."""
    said = {re.sub(UNITS, "", name) for name in SCHEMA["$defs"]["Pipeline"]["properties"]}
    own = {*inspect.signature(BatchTransform.__init__).parameters} - {
        "self",
        "scope",
        "construct_id",
    }

    assert said - own == {"accounts", "tags", "acknowledge"}
    assert own - said == set()


def test_the_members_of_value_objects_are_their_fields() -> None:
    exported = [getattr(batch_transform, name) for name in batch_transform.__all__]
    others = {S3Location, AccountSettings, AccountVpc}  # of a task, and of an account
    values = (each for each in exported if isinstance(each, type) and each not in others)
    objects = [each for each in values if is_dataclass(each)]
    said = {name: [*form.get("properties", {})] for name, form in SCHEMA["$defs"].items()}
    said["InstanceCount"] = said["InstanceCountFromBatch"]

    assert len(objects) > 10
    for each in objects:
        bare = {re.sub(UNITS, "", name) for name in said[each.__name__]}
        assert bare == {re.sub(UNITS, "", field.name) for field in fields(each)}


def test_every_description_is_a_docstring_s() -> None:
    bare = [
        f"{name}.{member}"
        for name, form in SCHEMA["$defs"].items()
        for member, each in form.get("properties", {}).items()
        if "description" not in each and "$ref" not in each
    ]
    described = [name for name in bare if name.startswith(("Pipeline.", "TransformModel"))]
    assert described == []


def test_days_of_logs_are_those_that_cdk_knows() -> None:
    assert {*LOG_RETENTION.values()} == {each.name for each in logs.RetentionDays} - {"INFINITE"}


def test_the_schemas_are_written_anew_when_a_docstring_changes() -> None:
    for path, text in rendered().items():
        assert path.read_text() == text, "run python scripts/schemas.py"


def test_the_schemas_are_schemas_and_know_the_project_s_files(write: Callable[..., Path]) -> None:
    for made in (SCHEMA, schema(AccountsFile)):
        jsonschema.Draft202012Validator.check_schema(made)
    jsonschema.validate(yaml.safe_load((ROOT / "pipelines.yaml").read_text()), SCHEMA)
    jsonschema.validate(yaml.safe_load(ACCOUNTS), schema(AccountsFile))


def test_an_editor_sees_a_mistake_and_takes_a_name_for_a_number() -> None:
    def members(**changed: object) -> dict[str, Any]:
        return {"pipelines": {"A": {"model": {"name": "a"}, "instance_type": "x", **changed}}}

    for member in ("max_attempts", "instance_type", "instance_count", "input_bucket"):
        jsonschema.validate(members(**{member: "${here}"}), SCHEMA)
    with pytest.raises(jsonschema.ValidationError, match="unexpected"):
        jsonschema.validate(members(max_attempt=1), SCHEMA)
    with pytest.raises(jsonschema.ValidationError, match="'three'"):
        jsonschema.validate(members(max_attempts="three"), SCHEMA)


def test_a_file_is_checked_without_cdk_and_node(write: Callable[..., Path]) -> None:
    program = (
        "import sys; from pathlib import Path; from batch_transform.pipelines_file import load\n"
        "load(Path('pipelines.yaml')); print(*sys.modules)"
    )
    path = write(CHURN + f"    encryption_key: {KEY}\n    input_bucket: arrivals\n", ACCOUNTS_ONE)
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=path.parent,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'constructs'}{os.pathsep}{ROOT / 'src'}"},
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {name.partition(".")[0] for name in done.stdout.split()}
    assert "batch_transform" in imported
    assert imported & {"aws_cdk", "jsii", "constructs"} == set()


def test_each_account_gets_every_pipeline_that_names_no_others(write: Callable[..., Path]) -> None:
    path = write(
        CHURN
        + "    tags: {owner: growth}\n"
        + "  Fraud:\n    accounts: [Prod]\n    model: {name: a}\n    instance_type: ml.m5.large\n",
        ACCOUNTS,
    )
    app = App(context={"@aws-cdk/core:explicitStackTags": True})
    define_pipelines(app, path)

    stacks = app.synth().stacks_recursively
    assert {
        stack.stack_name: (stack.environment.account, stack.environment.region, stack.tags)
        for stack in stacks
    } == {
        "Test-Churn": ("111122223333", "eu-west-1", {"owner": "growth"}),
        "Prod-Churn": ("444455556666", "us-east-1", {"owner": "growth", "stage": "prod"}),
        "Prod-Fraud": ("444455556666", "us-east-1", {"stage": "prod"}),
    }
    bounded = {
        stack.stack_name: {
            "PermissionsBoundary" in role for role in of_type(stack.template, "AWS::IAM::Role")
        }
        for stack in stacks
    }
    assert bounded == {"Test-Churn": {False}, "Prod-Churn": {True}, "Prod-Fraud": {True}}


def test_names_of_the_account_stand_for_text_and_numbers(write: Callable[..., Path]) -> None:
    path = write(
        """\
pipelines:
  Churn:
    model:
      image: ${account}.dkr.ecr.${region}.amazonaws.com/churn:3
      environment: {STAGE: "${stage}", TEXT: "$${stage}", FLAG: "is ${live}"}
    instance_type: ml.m5.large
    input_bucket: ${arrivals}
    max_concurrent_runs: ${runs}
    index: {record_id: id, retention_days: "${days}"}
""",
        ACCOUNTS,
    )
    templates = synthesized(path)

    test, prod = templates["Test-Churn"], templates["Prod-Churn"]
    assert variables(test, "dispatch")["INPUT_BUCKET"] == "test-arrivals"
    assert variables(prod, "dispatch")["INPUT_BUCKET"] == "prod-arrivals"
    assert variables(prod, "dispatch")["MAX_CONCURRENT_RUNS"] == "8"
    assert variables(prod, "index")["RETENTION_DAYS"] == "90"
    (model,) = of_type(prod, "AWS::SageMaker::Model")
    assert model["PrimaryContainer"] == {
        "Image": "444455556666.dkr.ecr.us-east-1.amazonaws.com/churn:3",
        "Environment": {"STAGE": "Prod", "TEXT": "${stage}", "FLAG": "is true"},
    }


def test_a_warning_is_acknowledged_with_its_reason(write: Callable[..., Path]) -> None:
    def warnings(path: Path) -> int:
        app = App()
        define_pipelines(app, path)
        return len(app.synth().get_stack_by_name("Churn").messages)

    shared = CHURN + "    input_bucket: arrivals\n"
    said = '    acknowledge: {"@batch-transform:eventsOfImportedBucket": "on since March"}\n'
    assert (warnings(write(shared)), warnings(write(shared + said))) == (1, 0)


ACCOUNTS_ONE = """\
accounts:
  Prod: {account: "444455556666", region: us-east-1}
"""


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        pytest.param(
            "instances: {ml.m5.large: 19}",
            "limits.instances.ml.m5.large: must be at least the 20 instances that runs may have at "
            "once (Churn 2, Fraud 18), got 19; lower max_concurrent_runs or instance_count, or "
            "raise this and the account's quota",
            id="of a type",
        ),
        pytest.param(
            "instances: {ml.m5.xlarge: 17}",
            "limits.instances.ml.m5.xlarge: must be at least the 18 instances",
            id="of a type to fall back on",
        ),
        pytest.param(
            "total_instances: 19",
            "limits.total_instances: must be at least the 20 instances",
            id="of all types, of which a run has one",
        ),
    ],
)
def test_fails_when_pipelines_may_ask_for_more_than_the_account_has(
    limits: str, sentence: str, write: Callable[..., Path]
) -> None:
    fraud = """\
  Fraud:
    model: {name: fraud}
    instance_type: [ml.m5.large, ml.m5.xlarge]
    instance_count: {objects_per_instance: 1, maximum: 6}
    max_concurrent_runs: 3
"""
    accounts = ACCOUNTS_ONE.replace("us-east-1}", f"us-east-1, limits: {{{limits}}}}}")
    with pytest.raises(YamlError) as refused:
        load(write(CHURN + fraud, accounts))
    assert str(refused.value).startswith(f"accounts.yaml:2: accounts.Prod.{sentence}")

    assert load(write(CHURN + fraud, accounts.replace("17", "18").replace("19", "20")))


@pytest.mark.parametrize(
    ("pipelines", "accounts", "message"),
    [
        pytest.param(
            CHURN + "    accounts: [Test, Prd]\n",
            ACCOUNTS,
            "pipelines.yaml:5: pipelines.Churn.accounts.1: must be one of Test, Prod, got 'Prd'; "
            "write Prod",
            id="an account that is not there",
        ),
        pytest.param(
            CHURN + "    input_bucket: ${arrival}\n",
            ACCOUNTS,
            "pipelines.yaml:5: pipelines.Churn.input_bucket: must be a name that the account has, "
            "got '${arrival}'; write ${arrivals}, or write $${arrival} for the text itself",
            id="a name that is not there",
        ),
        pytest.param(
            CHURN + "    uploads: {suffix: '.${kinds}'}\n",
            ACCOUNTS_ONE.replace("us-east-1", "us-east-1, names: {kinds: [csv, tsv]}"),
            "pipelines.yaml:5: pipelines.Churn.uploads.suffix: must have a name of text or a "
            "number inside text, got '${kinds}', which is a list; let it stand alone",
            id="a list inside a text",
        ),
        pytest.param(
            CHURN + "    input_bucket: ${arrivals}\n",
            ACCOUNTS.replace("arrivals: test-arrivals, ", ""),
            "pipelines.yaml:5: pipelines.Churn.input_bucket: in Test: must be a name that the "
            "account has, got '${arrivals}'; add it to names in accounts.yaml, or write "
            "$${arrivals} for the text itself",
            id="a name that one account lacks",
        ),
        pytest.param(
            CHURN + "    input_bucket: arrivals\n",
            ACCOUNTS,
            "pipelines.yaml:5: pipelines.Churn.input_bucket: must be a bucket of the pipeline's "
            "own account, got 'arrivals' in Test and Prod; give it a name that differs, such as "
            "${bucket} with `bucket` in the names of each account",
            id="one bucket for two accounts",
        ),
        pytest.param(
            CHURN,
            "accounts:\n  Prod: {account: 444455556666, region: Ireland}\n",
            "accounts.yaml:2: accounts.Prod.account: must be a valid string, got 444455556666; put "
            "it in quotes\n"
            "accounts.yaml:2: accounts.Prod.region: must be a region such as eu-west-1, got "
            "'Ireland'; correct it",
            id="what is no account and no region",
        ),
        pytest.param(
            CHURN,
            ACCOUNTS.replace("arrivals: test", "region: test"),
            "accounts.yaml:5: accounts.Test.names: names must be others than account, region, "
            "stage, got 'region'; rename it",
            id="a name that is there already",
        ),
    ],
)
def test_fails_when_accounts_and_pipelines_do_not_fit(
    pipelines: str, accounts: str, message: str, write: Callable[..., Path]
) -> None:
    with pytest.raises(YamlError) as refused:
        load(write(pipelines, accounts))

    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            CHURN + "    instance_typ: x\n",
            "pipelines.yaml:5: pipelines.Churn.instance_typ: must be a member that exists, "
            "got 'instance_typ'; write instance_type",
            id="unknown member",
        ),
        pytest.param(
            "pipelines:\n  Churn:\n    model: {name: a}\n",
            "pipelines.yaml:3: pipelines.Churn: a pipeline must have model and instance_type, or "
            "steps, got model; give what is missing",
            id="missing member",
        ),
        pytest.param(
            CHURN + "    max_attempts: many\n",
            "pipelines.yaml:5: pipelines.Churn.max_attempts: "
            "must be a valid integer, got 'many'; correct it",
            id="wrong type",
        ),
        pytest.param(
            CHURN + "    instance_type: ml.m5.xlarge\n",
            "pipelines.yaml:5: pipelines.Churn: "
            "must have 'instance_type' once, got it twice; rename or remove one",
            id="member twice",
        ),
        pytest.param(
            CHURN + "    settings: {csv: {data_processing: {join_source: input}}}\n",
            "pipelines.yaml:5: pipelines.Churn.settings.csv.data_processing.join_source: "
            "must be 'None' or 'Input', got 'input'; correct it",
            id="unknown value",
        ),
        pytest.param(
            CHURN.replace("{name: churn-v1}", "{name: a, artifact: m, image: i}"),
            "pipelines.yaml:3: pipelines.Churn.model.name: must not stand beside artifact, image, "
            "got 'name'; leave one of them out",
            id="two kinds of model",
        ),
        pytest.param(
            CHURN + "    uploads:\n      prefix: in\n",
            "pipelines.yaml:6: pipelines.Churn.uploads: the prefix of uploads must end with '/' "
            "and not start with it, got 'in'; use 'in/', or objects beside it would be taken for "
            "drops",
            id="what the library refuses",
        ),
        pytest.param(
            CHURN + "    settings:\n      csv:\n        max_payload_mib: 200\n",
            "pipelines.yaml:7: pipelines.Churn: MaxPayloadInMB must be at most 100, got 200; "
            "lower it, or give 0 to send payloads of any size in chunks",
            id="what the service refuses, in its own words",
        ),
        pytest.param(
            CHURN + "    batch:\n      max_wait_s: -3\n",
            "pipelines.yaml:6: pipelines.Churn.batch.max_wait_s: "
            "must be greater than or equal to 0, got -3; correct it",
            id="less than nothing",
        ),
        pytest.param(
            CHURN + "    input_bucket: s3://arrivals/\n",
            "pipelines.yaml:5: pipelines.Churn.input_bucket: "
            "must be a bucket's plain name such as my-bucket, got 's3://arrivals/'; correct it",
            id="a bucket's URI",
        ),
        pytest.param(
            CHURN + "    schedule: daily\n",
            "pipelines.yaml:5: pipelines.Churn.schedule: "
            "must be a schedule such as rate(1 day), got 'daily'; correct it",
            id="no schedule",
        ),
        pytest.param(
            "pipelines:\n  Churn:\n",
            "pipelines.yaml:2: pipelines.Churn: "
            "must have members, got None; leave it out, or write them indented below it",
            id="an empty pipeline",
        ),
        pytest.param(
            "pipelines: {}\n",
            "pipelines.yaml:1: pipelines: must have a member, got none; add the first",
            id="an empty list of pipelines",
        ),
        pytest.param(
            CHURN.replace("Churn", "churn_v1"),
            "pipelines.yaml:2: pipelines.churn_v1: must be at most 64 letters, digits and "
            "hyphens, a letter first, got 'churn_v1'; correct it",
            id="a name that no stack can have",
        ),
        pytest.param(
            CHURN + "    instance_count: !!python/name:os.system x\n",
            "pipelines.yaml:5: must be YAML, got could not determine a constructor for the tag "
            "'tag:yaml.org,2002:python/name:os.system'; correct the line",
            id="a tag of Python's",
        ),
        pytest.param(
            "pipelines: \x01\n",
            "pipelines.yaml:1: must be text in UTF-8, got control characters are not allowed; "
            "save it again as UTF-8",
            id="a control character",
        ),
        pytest.param(
            CHURN.replace("Churn:", "Churn: &all")
            + "    uploads: {prefix: in/}\n  Other:\n    <<: *all\n    uploads: {prefix: in}\n",
            "pipelines.yaml:8: pipelines.Other.uploads: the prefix of uploads must end with '/' "
            "and not start with it, got 'in'; use 'in/', or objects beside it would be taken for "
            "drops",
            id="own member before a merged one",
        ),
        pytest.param(
            "pipelines: [\n",
            "pipelines.yaml:2: must be YAML, got did not find expected node content; correct the "
            "line",
            id="no YAML",
        ),
        pytest.param(
            "",
            "pipelines.yaml:1: must have members, got none; add the first",
            id="empty",
        ),
        pytest.param(
            "accounts: {}\n",
            "pipelines.yaml:1: pipelines: must be given, got nothing; add it\n"
            "pipelines.yaml:1: accounts: must stand in a file of its own, got it beside "
            "pipelines; move it to accounts.yaml",
            id="accounts in the file of pipelines",
        ),
    ],
)
def test_fails_in_one_line_that_names_file_and_place(
    text: str, message: str, write: Callable[..., Path]
) -> None:
    with pytest.raises(YamlError) as refused:
        synthesized(write(text))

    assert str(refused.value) == message


def test_fails_when_the_file_is_not_utf_8(write: Callable[..., Path]) -> None:
    path = write(CHURN)
    path.write_bytes(CHURN.encode("utf-16"))

    with pytest.raises(YamlError, match=r"must be text in UTF-8, got .*; save it again"):
        synthesized(path)


def test_fails_when_the_artifact_is_not_built(write: Callable[..., Path]) -> None:
    path = write(CHURN.replace("{name: churn-v1}", "{artifact: build/model, image: i}"))

    with pytest.raises(YamlError, match=r"Churn.model: artifact must be .*; run what trains"):
        synthesized(path)


def test_everything_that_is_wrong_is_told_at_once(write: Callable[..., Path]) -> None:
    path = write("""\
pipelines:
  Churn:
    model: {image: i, artifcat: m}
    instance_typ: ml.m5.large
    settings: {csv: {}, json_lines: {}}
    uploads: {prefix: in}
    job_timeout_s: 600
    index:
  Fraud:
    model: {name: fraud}
    instance_type: ml.big
    settings:
      csv:
        max_concurrent_transforms: -1
    index: {record_id: id}
    max_attempts: 0
    job_timeout_hours: 1
    job_timeout_s: 3600
""")
    with pytest.raises(YamlError) as refused:
        load(path)

    assert [(each.line, each.sentence) for each in refused.value.problems] == [
        (3, "must be a member that exists, got 'artifcat'; write artifact"),
        (4, "must be a member that exists, got 'instance_typ'; write instance_type"),
        (5, "must not stand beside csv, got 'json_lines'; leave one of them out"),
        (
            6,
            "the prefix of uploads must end with '/' and not start with it, got 'in'; use 'in/', "
            "or objects beside it would be taken for drops",
        ),
        (8, "must have members, got None; leave it out, or write them indented below it"),
        (
            18,
            "job_timeout must be given once, got job_timeout_s and job_timeout_hours; leave one of "
            "them out",
        ),
    ]

    write(path.read_text().split("  Fraud:")[1].join(["pipelines:\n  Fraud:", ""]))
    path.write_text(path.read_text().replace("    job_timeout_s: 3600\n", ""))
    with pytest.raises(YamlError) as refused:
        load(path)

    assert [(each.line, each.sentence.split()[0]) for each in refused.value.problems] == [
        (4, "TransformResources.InstanceType"),
        (7, "MaxConcurrentTransforms"),
        (8, "record_id"),
        (9, "max_attempts"),
    ]


def test_fails_when_there_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(YamlError, match="correct the path, or create it"):
        define_pipelines(App(), tmp_path / "pipelines.yaml")


def test_the_project_s_own_file_is_the_example() -> None:
    content = yaml.safe_load((ROOT / "pipelines.yaml").read_text())

    assert list(content["pipelines"]) == ["BreastCancer"]
