"""The SageMaker model that scores: made with the pipeline, or one that exists already."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import transform_request
from batch_transform.containers import (
    ModelContainer,
    PrivateRegistry,
    check_artifact_uri,
    check_ecr_uri,
    check_environment,
    check_hostnames,
)
from batch_transform.networks import ModelVpc
from batch_transform.tokens import is_token

if TYPE_CHECKING:
    from aws_cdk import aws_ecr as ecr
    from aws_cdk import aws_iam as iam
    from aws_cdk import aws_kms as kms
    from aws_cdk import aws_sagemaker as sagemaker
    from aws_cdk import aws_ssm as ssm

_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
_NAMES = re.compile(r"[a-zA-Z0-9*?-]{1,63}")
_PARAMETER = re.compile(r"[a-zA-Z0-9_.-]+|(/[a-zA-Z0-9_.-]+)+")
_PACKAGE_ARN = re.compile(
    r"arn:aws[a-z-]*:sagemaker:[a-z0-9-]+:[0-9]{12}:model-package/"
    r"[a-zA-Z0-9]([a-zA-Z0-9-]){0,62}(?<!-)(/[0-9]{1,9})?"
)
_MAX_CONTAINERS = 15


class TransformModel:
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
    ) -> TransformModel:
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
        return ContainerModel(
            containers=(container,), network_isolation=network_isolation, vpc=vpc, role=role
        )

    @staticmethod
    def pipeline(
        containers: Sequence[ModelContainer],
        *,
        network_isolation: bool = False,
        vpc: ModelVpc | None = None,
        role: iam.IRole | None = None,
    ) -> TransformModel:
        """A model of 2 to 15 containers that is deployed with the pipeline.

        Each request passes all of them in this order on one machine, and the reply of one is the
        request of the next. A custom image must listen where `SAGEMAKER_BIND_TO_PORT` says, and
        have the label `com.amazonaws.sagemaker.capabilities.accept-bind-to-port=true`.

        :param containers: in the order in which a request passes them.
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
        return ContainerModel(
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
    ) -> TransformModel:
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
        if not is_token(package_arn) and not _PACKAGE_ARN.fullmatch(package_arn):
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
        return PackageModel(
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
    def from_cfn_model(model: sagemaker.CfnModel) -> TransformModel:
        """A model that is defined elsewhere in the app.

        Its execution role has to read drops and write outputs: `pipeline.grants.score(role)`.

        :raises ValueError: batch transform cannot run it.
        """
        from batch_transform.bound_model import as_the_api_has_it  # who has a CfnModel has CDK

        try:
            transform_request.validate_model(as_the_api_has_it(model))
        except transform_request.InvalidRequest as error:
            raise ValueError(
                f"{model.node.path} must be a model that batch transform can run, got one of which "
                f"it says: {'; '.join(error.problems)}; give each container one .tar.gz as "
                "modelDataUrl"
            ) from error
        return DefinedModel(model=model)

    @staticmethod
    def from_model_name(name: str) -> TransformModel:
        """A SageMaker model that exists in the stack's account and region.

        Its execution role has to read drops and write outputs: `pipeline.grants.score(role)`.

        :param name: what `aws sagemaker list-models` calls ModelName.
        :raises ValueError: no model can have that name.
        """
        return NamedModel(name=_checked_name(name))

    @staticmethod
    def from_ssm_parameter(
        parameter: str | ssm.IStringParameter, *, allowed_models: str | Sequence[str]
    ) -> TransformModel:
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
            _check_parameter_name(parameter)
        names = [allowed_models] if isinstance(allowed_models, str) else [*allowed_models]
        return ParameterModel(parameter=parameter, allowed_models=_checked_patterns(names))


@dataclass(frozen=True, kw_only=True)
class MadeModel(TransformModel):
    """A model that is deployed with the pipeline."""

    network_isolation: bool
    vpc: ModelVpc | None
    role: iam.IRole | None


@dataclass(frozen=True, kw_only=True)
class ContainerModel(MadeModel):
    """A model of these containers."""

    containers: tuple[ModelContainer, ...]

    def __post_init__(self) -> None:
        if self.vpc is None and any(container.registry for container in self.containers):
            raise ValueError(
                "a model must have a vpc when an image is in a private registry, got none; "
                "pass vpc=ModelVpc(vpc=...), from where the registry is reached"
            )


@dataclass(frozen=True, kw_only=True)
class PackageModel(MadeModel):
    """A model of a package."""

    package_arn: str
    artifacts: tuple[str, ...]
    artifact_key: kms.IKey | None
    images: tuple[str | ecr.IRepository, ...]
    environment: Mapping[str, str]
    inference_specification: str | None


@dataclass(frozen=True, kw_only=True)
class DefinedModel(TransformModel):
    """A model that the app defines."""

    model: sagemaker.CfnModel


@dataclass(frozen=True, kw_only=True)
class NamedModel(TransformModel):
    """A model that exists."""

    name: str


@dataclass(frozen=True, kw_only=True)
class ParameterModel(TransformModel):
    """The model that a parameter names when a run begins."""

    parameter: str | ssm.IStringParameter
    allowed_models: tuple[str, ...]


def _checked_name(name: str) -> str:
    if not is_token(name) and not _NAME.fullmatch(name):
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
        if is_token(pattern):
            continue
        if not _NAMES.fullmatch(pattern) or not pattern.strip("*?"):
            raise ValueError(
                "allowed_models must be names of models, or patterns of more than wildcards, "
                f"got {pattern!r}; use for example 'churn-*'"
            )
    return tuple(patterns)


def _check_parameter_name(name: str) -> None:
    if is_token(name):
        raise ValueError(
            "the name of a model's parameter must be known at synth when it is a string, got a "
            "token; pass the ssm.IStringParameter"
        )
    if not _PARAMETER.fullmatch(name):
        raise ValueError(
            "the name of a model's parameter must be a word of letters, digits, '.', '-' and '_', "
            f"or a path of such words that begins with '/', got {name!r}; "
            "use for example '/churn/model'"
        )
