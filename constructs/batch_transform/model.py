"""The SageMaker model that scores: made with the pipeline, or one that exists already."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aws_cdk import Annotations, ArnFormat, Stack, Token
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

import transform_request
from batch_transform.containers import (
    ModelContainer,
    Needs,
    PrivateRegistry,
    artifact_arn,
    bind_container,
    check_artifact_uri,
    check_ecr_uri,
    check_environment,
    check_hostnames,
    check_region,
    repository_arn,
)
from batch_transform.job_data import JobData, distinct_keys
from batch_transform.model_parameter import (
    ModelParameter,
    check_parameter_name,
    model_parameter,
)
from batch_transform.model_roles import ModelVpc, bind_vpc, execution_role
from batch_transform.settings import BatchStrategy, SplitType, TransformSettings
from batch_transform.settle import TRANSFORM_LOG_GROUP

if TYPE_CHECKING:
    from aws_cdk import aws_ssm as ssm

MANY_RECORDS_WARNING = "@batch-transform:modelManyRecords"

_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
_NAMES = re.compile(r"[a-zA-Z0-9*?-]{1,63}")
_PACKAGE_ARN = re.compile(
    r"arn:aws[a-z-]*:sagemaker:[a-z0-9-]+:[0-9]{12}:model-package/"
    r"[a-zA-Z0-9]([a-zA-Z0-9-]){0,62}(?<!-)(/[0-9]{1,9})?"
)
_MAX_CONTAINERS = 15


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
    statements: tuple[iam.PolicyStatement, ...] = ()
    parameter: ModelParameter | None = None


class TransformModel(ABC):
    """The model of a pipeline; made by one of its static methods.

    What is made with the pipeline is a new model after every change of an artifact, an image or a
    variable: CloudFormation makes it, points the pipeline to it, and removes the old one, so that
    none pile up.

    Such a model gets an execution role of its own, with no more than it needs. One that is given as
    `role` is left as it is. It must trust `sagemaker.amazonaws.com`, and
    `pipeline.grants.score(role)` adds what it needs.
    """

    @staticmethod
    def from_artifact(
        artifact: str | Path | None,
        image: str | Path | ecr.IRepository,
        *,
        artifact_key: kms.IKey | None = None,
        image_tag: str | None = None,
        environment: Mapping[str, str] | None = None,
        registry: PrivateRegistry | None = None,
        network_isolation: bool = False,
        vpc: ModelVpc | None = None,
        role: iam.IRole | None = None,
    ) -> "TransformModel":
        """A model of one container that is deployed with the pipeline.

        :param artifact: a directory of model files, packed at synth; a `.tar.gz`; or the `s3://`
            URI of one that is in S3 already. `None`: the model is in the image.
        :param image: a directory with a Dockerfile, built for linux/amd64 at deployment; or the
            URI of an image in ECR (or in `registry`); or an ECR repository.
        :param artifact_key: the KMS key of the artifact's bucket, if one encrypts it.
        :param image_tag: of a repository. Default: `latest`.
        :param environment: of the model's container.
        :param registry: where the image is, when it is not in ECR; needs `vpc`.
        :param network_isolation: the container reaches no network.
        :param vpc: what the container is connected to. Default: no VPC of yours.
        :param role: see the class. Default: a new one.
        :raises ValueError: there is no such artifact or image, or the service would refuse the
            model.
        """
        container = ModelContainer(
            artifact=artifact,
            image=image,
            artifact_key=artifact_key,
            image_tag=image_tag,
            environment=environment or {},
            registry=registry,
        )
        return _ContainerModel(
            containers=(container,), network_isolation=network_isolation, vpc=vpc, role=role
        )

    @staticmethod
    def pipeline(
        containers: Sequence[ModelContainer],
        *,
        network_isolation: bool = False,
        vpc: ModelVpc | None = None,
        role: iam.IRole | None = None,
    ) -> "TransformModel":
        """A model of 2 to 15 containers that is deployed with the pipeline.

        Each request passes all of them in this order on one machine, and the reply of one is the
        request of the next. A custom image must listen where `SAGEMAKER_BIND_TO_PORT` says, and
        have the label `com.amazonaws.sagemaker.capabilities.accept-bind-to-port=true`.

        :param network_isolation: the containers reach no network.
        :param vpc: what the containers are connected to. Default: no VPC of yours.
        :param role: of all containers; see the class. Default: a new one.
        :raises ValueError: the service would refuse the model.
        """
        if not 2 <= len(containers) <= _MAX_CONTAINERS:
            raise ValueError(
                f"a pipeline must have 2 to {_MAX_CONTAINERS} containers, got {len(containers)}; "
                "use TransformModel.from_artifact for one, or put steps together"
            )
        check_hostnames(containers)
        return _ContainerModel(
            containers=tuple(containers), network_isolation=network_isolation, vpc=vpc, role=role
        )

    @staticmethod
    def from_model_package(
        package_arn: str,
        *,
        artifacts: Sequence[str] = (),
        artifact_key: kms.IKey | None = None,
        images: Sequence[str | ecr.IRepository] = (),
        environment: Mapping[str, str] | None = None,
        inference_specification: str | None = None,
        network_isolation: bool = True,
        vpc: ModelVpc | None = None,
        role: iam.IRole | None = None,
    ) -> "TransformModel":
        """A model of a package in the model registry or from AWS Marketplace.

        What is in a package is not known at synth, so name what its role has to read. A package of
        Marketplace needs neither `artifacts` nor `images`.

        :param package_arn: of one version, such as
            `arn:aws:sagemaker:eu-west-1:111122223333:model-package/churn/3`.
        :param artifacts: the `s3://` URIs of the package's archives.
        :param artifact_key: the KMS key of their buckets, if one encrypts them.
        :param images: URIs or repositories of the package's images in ECR.
        :param environment: added to that of the package.
        :param inference_specification: the name of an additional one of the package. Default: the
            package's own.
        :param network_isolation: the container reaches no network; Marketplace demands it.
        :param vpc: what the container is connected to. Default: no VPC of yours.
        :param role: see the class. Default: a new one.
        :raises ValueError: no package can have that ARN, or the service would refuse the model.
        """
        if not Token.is_unresolved(package_arn) and not _PACKAGE_ARN.fullmatch(package_arn):
            raise ValueError(
                "package_arn must be the ARN of a version of a model package, got "
                f"{package_arn!r}; see `aws sagemaker list-model-packages`"
            )
        for uri in artifacts:
            check_artifact_uri(uri)
        for image in images:
            if isinstance(image, str):
                check_ecr_uri(image)
        check_environment(environment or {})
        return _PackageModel(
            package_arn=package_arn,
            artifacts=tuple(artifacts),
            artifact_key=artifact_key,
            images=tuple(images),
            environment=environment or {},
            inference_specification=inference_specification,
            network_isolation=network_isolation,
            vpc=vpc,
            role=role,
        )

    @staticmethod
    def from_cfn_model(model: sagemaker.CfnModel) -> "TransformModel":
        """A model that is defined elsewhere in the app.

        Its execution role has to read drops and write outputs: `pipeline.grants.score(role)`.

        :raises ValueError: batch transform cannot run it.
        """
        try:
            transform_request.validate_model(_as_the_api_has_it(model))
        except transform_request.InvalidRequest as error:
            raise ValueError(
                f"{model.node.path} must be a model that batch transform can run, got one of which "
                f"it says: {'; '.join(error.problems)}; give each container one .tar.gz as "
                "modelDataUrl"
            ) from error
        return _CfnModel(model=model)

    @staticmethod
    def from_model_name(name: str) -> "TransformModel":
        """A SageMaker model that exists in the stack's account and region.

        Its execution role has to read drops and write outputs: `pipeline.grants.score(role)`.

        :raises ValueError: no model can have that name.
        """
        return _NamedModel(name=_checked_name(name))

    @staticmethod
    def from_ssm_parameter(
        parameter: "str | ssm.IStringParameter", *, allowed_models: str | Sequence[str]
    ) -> "TransformModel":
        """The model whose name an SSM parameter holds at the moment when a run begins.

        To promote another model, write its name into the parameter; nothing is deployed. A run ends
        with the model it began with: all its steps and retries use the value that was read first.

        The models exist already, and the execution role of each has to read drops and write
        outputs: `pipeline.grants.score(role)`.

        :param parameter: the parameter, or its name, in the stack's account and region; a `String`.
        :param allowed_models: names of the models that jobs may use, or patterns of them with `*`
            and `?`, such as `churn-*`. Another name in the parameter is refused by IAM.
        :raises ValueError: no parameter or model can have such a name.
        """
        if isinstance(parameter, str):
            check_parameter_name(parameter)
        names = [allowed_models] if isinstance(allowed_models, str) else [*allowed_models]
        return _ParameterModel(parameter=parameter, allowed_models=_checked_patterns(names))

    @abstractmethod
    def bind(self, scope: Construct, *, data: JobData, settings: TransformSettings) -> BoundModel:
        """Define in `scope` what the model needs; called once for each kind of job that it runs.

        :param data: what these jobs read and write.
        """


@dataclass(frozen=True, kw_only=True)
class _MadeModel(TransformModel):
    """A model that is deployed with the pipeline."""

    network_isolation: bool
    vpc: ModelVpc | None
    role: iam.IRole | None

    @abstractmethod
    def bind_containers(
        self, scope: Construct
    ) -> tuple[list[sagemaker.CfnModel.ContainerDefinitionProperty], Needs]:
        """Define what the containers need in `scope`; return them as CreateModel has them."""

    def bind(self, scope: Construct, *, data: JobData, settings: TransformSettings) -> BoundModel:
        containers, needs = self.bind_containers(scope)
        statements = needs.statements()
        vpc_config = None
        if self.vpc is not None:
            vpc_config, network = bind_vpc(scope, self.vpc)
            statements += network
        role = self.role or _own_role(
            scope, [*statements, *scoring_statements(scope, data=data, settings=settings)]
        )
        model = sagemaker.CfnModel(
            scope,
            "Model",
            enable_network_isolation=self.network_isolation or None,
            execution_role_arn=role.role_arn,
            primary_container=containers[0] if len(containers) == 1 else None,
            containers=containers if len(containers) > 1 else None,
            vpc_config=vpc_config,
        )
        # SageMaker reads the artifact with the role when it creates the model.
        model.node.add_dependency(role)
        return BoundModel(
            name=model.attr_model_name,
            arns=(model.ref,),
            role=role,
            statements=tuple(statements),
        )


@dataclass(frozen=True, kw_only=True)
class _ContainerModel(_MadeModel):
    containers: tuple[ModelContainer, ...]

    def __post_init__(self) -> None:
        if self.vpc is None and any(container.registry for container in self.containers):
            raise ValueError(
                "a model must have a vpc when an image is in a private registry, got none; "
                "pass vpc=ModelVpc(vpc=...), from where the registry is reached"
            )

    def bind(self, scope: Construct, *, data: JobData, settings: TransformSettings) -> BoundModel:
        if len(self.containers) > 1:
            _warn_of_many_records(scope, settings)
        return super().bind(scope, data=data, settings=settings)

    def bind_containers(
        self, scope: Construct
    ) -> tuple[list[sagemaker.CfnModel.ContainerDefinitionProperty], Needs]:
        if len(self.containers) == 1:
            definition, needs = bind_container(scope, self.containers[0])
            return [definition], needs
        bound = [
            bind_container(Construct(scope, f"Container{number}"), container)
            for number, container in enumerate(self.containers, start=1)
        ]
        return [definition for definition, _ in bound], sum((needs for _, needs in bound), Needs())


@dataclass(frozen=True, kw_only=True)
class _PackageModel(_MadeModel):
    package_arn: str
    artifacts: tuple[str, ...]
    artifact_key: kms.IKey | None
    images: tuple[str | ecr.IRepository, ...]
    environment: Mapping[str, str]
    inference_specification: str | None

    def bind_containers(
        self, scope: Construct
    ) -> tuple[list[sagemaker.CfnModel.ContainerDefinitionProperty], Needs]:
        if not Token.is_unresolved(self.package_arn):
            check_region(scope, self.package_arn.split(":")[3], of=self.package_arn)
        definition = sagemaker.CfnModel.ContainerDefinitionProperty(
            environment=dict(self.environment) or None,
            inference_specification_name=self.inference_specification,
            model_package_name=self.package_arn,
        )
        needs = Needs(
            objects=tuple(artifact_arn(scope, uri) for uri in self.artifacts),
            keys=() if self.artifact_key is None else (self.artifact_key,),
            repositories=tuple(repository_arn(scope, image) for image in self.images),
        )
        return [definition], needs


@dataclass(frozen=True, kw_only=True)
class _CfnModel(TransformModel):
    model: sagemaker.CfnModel

    def bind(self, scope: Construct, *, data: JobData, settings: TransformSettings) -> BoundModel:
        return BoundModel(name=self.model.attr_model_name, arns=(self.model.ref,), role=None)


@dataclass(frozen=True, kw_only=True)
class _NamedModel(TransformModel):
    name: str

    def bind(self, scope: Construct, *, data: JobData, settings: TransformSettings) -> BoundModel:
        return BoundModel(name=self.name, arns=_model_arns(scope, self.name), role=None)


@dataclass(frozen=True, kw_only=True)
class _ParameterModel(TransformModel):
    parameter: "str | ssm.IStringParameter"
    allowed_models: tuple[str, ...]

    def bind(self, scope: Construct, *, data: JobData, settings: TransformSettings) -> BoundModel:
        parameter = model_parameter(scope, self.parameter)
        return BoundModel(
            name=parameter.expression,
            arns=_model_arns(scope, *self.allowed_models),
            role=None,
            parameter=parameter,
        )


def _model_arns(scope: Construct, *names: str) -> tuple[str, ...]:
    """Return the ARNs of models of these names, or patterns of names."""
    # SageMaker's ARNs have names in lower case.
    spelled = [
        spelling
        for name in names
        for spelling in ([name] if Token.is_unresolved(name) else [name, name.lower()])
    ]
    return tuple(
        Stack.of(scope).format_arn(service="sagemaker", resource="model", resource_name=name)
        for name in dict.fromkeys(spelled)
    )


def _checked_name(name: str) -> str:
    if not Token.is_unresolved(name) and not _NAME.fullmatch(name):
        raise ValueError(
            "the name of a model must be letters, digits and inner hyphens, at most 63 characters, "
            f"got {name!r}; pass what `aws sagemaker list-models` calls ModelName, not an ARN"
        )
    return name


def _checked_patterns(patterns: Sequence[str]) -> tuple[str, ...]:
    if not patterns:
        raise ValueError(
            "allowed_models must have a name or pattern, got none; use for example 'churn-*'"
        )
    for pattern in patterns:
        if Token.is_unresolved(pattern):
            continue
        if not _NAMES.fullmatch(pattern) or not pattern.strip("*?"):
            raise ValueError(
                "allowed_models must be names of models, or patterns of more than wildcards, "
                f"got {pattern!r}; use for example 'churn-*'"
            )
    return tuple(patterns)


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


def _as_the_api_has_it(model: sagemaker.CfnModel) -> dict[str, Any]:
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


def _own_role(scope: Construct, statements: Sequence[iam.PolicyStatement]) -> iam.Role:
    role = execution_role(scope)
    for statement in statements:
        role.add_to_policy(statement)
    return role


def scoring_statements(
    scope: Construct, *, data: JobData, settings: TransformSettings
) -> list[iam.PolicyStatement]:
    """Return what the role of a model needs in order to run jobs with these data and settings."""
    written = [*data.written]
    if settings.data_capture is not None:
        capture = settings.data_capture
        written.append(capture.bucket.arn_for_objects(f"{capture.prefix}*"))
    transform_logs_arn = Stack.of(scope).format_arn(
        arn_format=ArnFormat.COLON_RESOURCE_NAME,
        resource="log-group",
        resource_name=f"{TRANSFORM_LOG_GROUP}*",
        service="logs",
    )
    statements = [
        iam.PolicyStatement(actions=["s3:GetObject"], resources=[*data.read]),
        iam.PolicyStatement(
            # Needed already when the job is created: the service looks whether the objects exist.
            actions=["s3:ListBucket"],
            resources=[*data.listed],
        ),
        iam.PolicyStatement(actions=["s3:AbortMultipartUpload", "s3:PutObject"], resources=written),
        iam.PolicyStatement(
            actions=[
                "logs:CreateLogGroup",
                "logs:CreateLogStream",
                "logs:DescribeLogStreams",
                "logs:PutLogEvents",
            ],
            resources=[transform_logs_arn],
        ),
        iam.PolicyStatement(
            actions=["cloudwatch:PutMetricData"],
            conditions={"StringLike": {"cloudwatch:namespace": "/aws/sagemaker/*"}},
            resources=["*"],
        ),
    ]
    capture_key = settings.data_capture.key if settings.data_capture else None
    keys = distinct_keys(*data.keys, capture_key)
    if keys:
        statements.append(
            iam.PolicyStatement(
                actions=["kms:Decrypt", "kms:GenerateDataKey"],
                resources=[key.key_arn for key in keys],
            )
        )
    return [*statements, *volume_key_statements(settings)]


def volume_key_statements(settings: TransformSettings) -> list[iam.PolicyStatement]:
    """Return what both who starts a job and its model need to encrypt its volumes."""
    if settings.volume_key is None:
        return []
    return [
        iam.PolicyStatement(
            actions=["kms:CreateGrant"],
            conditions={"Bool": {"kms:GrantIsForAWSResource": "true"}},
            resources=[settings.volume_key.key_arn],
        )
    ]
