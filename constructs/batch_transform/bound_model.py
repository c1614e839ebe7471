"""A model as a pipeline uses it: defined in its stack, or named."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aws_cdk import Annotations, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from batch_transform.bound_container import (
    Needs,
    artifact_arn,
    bind_container,
    check_region,
    repository_arn,
)
from batch_transform.containers import ModelContainer
from batch_transform.deployed import place_of
from batch_transform.job_data import JobData, distinct_keys
from batch_transform.model import (
    ContainerModel,
    DefinedModel,
    MadeModel,
    NamedModel,
    PackageModel,
    ParameterModel,
    TransformModel,
)
from batch_transform.model_parameter import ModelParameter, model_parameter
from batch_transform.model_roles import bind_vpc, execution_role
from batch_transform.settings import BatchStrategy, SplitType, TransformSettings
from batch_transform.settle import TRANSFORM_LOG_GROUP
from batch_transform.statements import Statement, allow
from batch_transform.tokens import is_token

MANY_RECORDS_WARNING = "@batch-transform:modelManyRecords"

_Containers = list[sagemaker.CfnModel.ContainerDefinitionProperty]


@dataclass(frozen=True, kw_only=True, slots=True)
class BoundModel:
    """A model as a pipeline uses it.

    :param name: for the ModelName of requests; JSONata when only a run knows it.
    :param arns: the ARNs that jobs may name, also with wildcards.
    :param role: the execution role; `None` when the model is not ours.
    :param statements: what its role needs so that the containers start, besides scoring.
    :param parameter: what holds the model's name; the state machine has to read it first.
    """

    name: str
    arns: tuple[str, ...]
    role: iam.IRole | None
    statements: tuple[Statement, ...] = ()
    parameter: ModelParameter | None = None


def bind_model(
    scope: Construct, model: TransformModel, *, data: JobData, settings: TransformSettings
) -> BoundModel:
    """Define in `scope` what the model needs; called once for each kind of job that it runs.

    :param data: what these jobs read and write.
    """
    match model:
        case ContainerModel():
            if len(model.containers) > 1:
                _warn_of_many_records(scope, settings)
            containers, needs = _bind_containers(scope, model.containers)
            return _make(scope, model, containers, needs, data=data, settings=settings)
        case PackageModel():
            containers, needs = _bind_package(scope, model)
            return _make(scope, model, containers, needs, data=data, settings=settings)
        case DefinedModel():
            return BoundModel(name=model.model.attr_model_name, arns=(model.model.ref,), role=None)
        case NamedModel():
            return BoundModel(name=model.name, arns=_model_arns(scope, model.name), role=None)
        case ParameterModel():
            parameter = model_parameter(scope, model.parameter)
            return BoundModel(
                name=parameter.expression,
                arns=_model_arns(scope, *model.allowed_models),
                role=None,
                parameter=parameter,
            )
    raise TypeError(f"model must be made by TransformModel, got {model!r}; call one of its methods")


def _make(
    scope: Construct,
    model: MadeModel,
    containers: _Containers,
    needs: Needs,
    *,
    data: JobData,
    settings: TransformSettings,
) -> BoundModel:
    statements = needs.statements()
    vpc_config = None
    if model.vpc is not None:
        vpc_config, network = bind_vpc(scope, model.vpc)
        statements += network
    role = model.role or execution_role(
        scope, [*statements, *scoring_statements(scope, data=data, settings=settings)]
    )
    made = sagemaker.CfnModel(
        scope,
        "Model",
        enable_network_isolation=model.network_isolation or None,
        execution_role_arn=role.role_arn,
        primary_container=containers[0] if len(containers) == 1 else None,
        containers=containers if len(containers) > 1 else None,
        vpc_config=vpc_config,
    )
    # SageMaker reads the artifact with the role when it creates the model.
    made.node.add_dependency(role)
    return BoundModel(
        name=made.attr_model_name,
        arns=(made.ref,),
        role=role,
        statements=tuple(statements),
    )


def _bind_containers(
    scope: Construct, containers: Sequence[ModelContainer]
) -> tuple[_Containers, Needs]:
    if len(containers) == 1:
        definition, needs = bind_container(scope, containers[0])
        return [definition], needs
    bound = [
        bind_container(Construct(scope, f"Container{number}"), container)
        for number, container in enumerate(containers, start=1)
    ]
    return [definition for definition, _ in bound], sum((needs for _, needs in bound), Needs())


def _bind_package(scope: Construct, model: PackageModel) -> tuple[_Containers, Needs]:
    if not is_token(model.package_arn):
        check_region(scope, model.package_arn.split(":")[3], of=model.package_arn)
    definition = sagemaker.CfnModel.ContainerDefinitionProperty(
        environment=dict(model.environment) or None,
        inference_specification_name=model.inference_specification,
        model_package_name=model.package_arn,
    )
    needs = Needs(
        objects=tuple(artifact_arn(scope, uri) for uri in model.artifacts),
        keys=() if model.artifact_key is None else (model.artifact_key,),
        repositories=tuple(repository_arn(scope, image) for image in model.images),
    )
    return [definition], needs


def _model_arns(scope: Construct, *names: str) -> tuple[str, ...]:
    """Return the ARNs of models of these names, or patterns of names."""
    # SageMaker's ARNs have names in lower case.
    spelled = [
        spelling
        for name in names
        for spelling in ([name] if is_token(name) else [name, name.lower()])
    ]
    return tuple(
        place_of(scope).arn("sagemaker", f"model/{name}") for name in dict.fromkeys(spelled)
    )


def _warn_of_many_records(scope: Construct, settings: TransformSettings) -> None:
    if settings.split_type is SplitType.NONE:
        return  # A request is a whole object.
    if settings.batch_strategy is not BatchStrategy.SINGLE_RECORD:
        Annotations.of(scope).add_warning_v2(
            MANY_RECORDS_WARNING,
            "each container of a pipeline must take many records in one request, got "
            f"batch_strategy {settings.batch_strategy or 'MultiRecord by default'}; set "
            "SINGLE_RECORD, or acknowledge this when every container answers a line with a line",
        )


def as_the_api_has_it(model: sagemaker.CfnModel) -> dict[str, Any]:
    """Return what of a model's definition decides whether batch transform can run it."""
    members = {
        "PrimaryContainer": model.primary_container,
        "Containers": model.containers,
        "InferenceExecutionConfig": model.inference_execution_config,
    }
    resolved = Stack.of(model).resolve(members)
    return {name: _in_pascal_case(value) for name, value in resolved.items()}


def _in_pascal_case(value: Any) -> Any:
    if isinstance(value, dict):
        return {name[:1].upper() + name[1:]: _in_pascal_case(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_in_pascal_case(part) for part in value]
    return value


def scoring_statements(
    scope: Construct, *, data: JobData, settings: TransformSettings
) -> list[Statement]:
    """Return what the role of a model needs in order to run jobs with these data and settings."""
    written = [*data.written]
    if settings.data_capture is not None:
        capture = settings.data_capture
        written.append(capture.bucket.arn_for_objects(f"{capture.prefix}*"))
    transform_logs_arn = place_of(scope).arn("logs", f"log-group:{TRANSFORM_LOG_GROUP}*")
    statements = [
        allow(actions=["s3:GetObject"], resources=[*data.read]),
        allow(
            # Needed already when the job is created: the service looks whether the objects exist.
            actions=["s3:ListBucket"],
            resources=[*data.listed],
        ),
        allow(actions=["s3:AbortMultipartUpload", "s3:PutObject"], resources=written),
        allow(
            actions=[
                "logs:CreateLogGroup",
                "logs:CreateLogStream",
                "logs:DescribeLogStreams",
                "logs:PutLogEvents",
            ],
            resources=[transform_logs_arn],
        ),
        allow(
            actions=["cloudwatch:PutMetricData"],
            conditions={"StringLike": {"cloudwatch:namespace": "/aws/sagemaker/*"}},
            resources=["*"],
        ),
    ]
    capture_key = settings.data_capture.key if settings.data_capture else None
    keys = distinct_keys(*data.keys, capture_key)
    if keys:
        statements.append(
            allow(
                actions=["kms:Decrypt", "kms:GenerateDataKey"],
                resources=[key.key_arn for key in keys],
            )
        )
    return [*statements, *volume_key_statements(settings)]


def volume_key_statements(settings: TransformSettings) -> list[Statement]:
    """Return what both who starts a job and its model need to encrypt its volumes."""
    if settings.volume_key is None:
        return []
    return [
        allow(
            actions=["kms:CreateGrant"],
            conditions={"Bool": {"kms:GrantIsForAWSResource": "true"}},
            resources=[settings.volume_key.key_arn],
        )
    ]
