"""The SageMaker model that scores, and the role under which its container runs."""

import re
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aws_cdk import ArnFormat, Stack, Token
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3_assets as s3_assets
from aws_cdk import aws_sagemaker as sagemaker
from aws_cdk import aws_ssm as ssm
from constructs import Construct

from batch_transform.archive import content_hash, pack
from batch_transform.buckets import RUNS, TransformBuckets
from batch_transform.model_parameter import (
    ModelParameter,
    check_parameter_name,
    model_parameter,
)
from batch_transform.settings import TransformSettings
from batch_transform.settle import TRANSFORM_LOG_GROUP

_ECR_URI = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.(?P<domain>amazonaws\.com(?:\.cn)?)"
    r"/(?P<repository>[a-z0-9._/-]+)(?:[:@].+)?"
)

# Of a model's container (reference §3).
_VARIABLE = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,1023}")
_VARIABLE_LENGTH = 1024
_MAX_VARIABLES = 100

_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
_NAMES = re.compile(r"[a-zA-Z0-9*?-]{1,63}")


@dataclass(frozen=True, kw_only=True, slots=True)
class BoundModel:
    """A model as a pipeline uses it.

    :param name: for the ModelName of requests; JSONata when only a run knows it.
    :param arns: the ARNs that jobs may name, also with wildcards.
    :param role: the execution role; `None` when the model is not ours.
    :param parameter: what holds the model's name; the state machine has to read it first.
    """

    name: str
    arns: tuple[str, ...]
    role: iam.IRole | None
    parameter: ModelParameter | None = None


class TransformModel(ABC):
    """The model of a pipeline; made by one of its `from_…` methods."""

    @staticmethod
    def from_artifact(
        artifact: str | Path,
        image: str | Path | ecr.IRepository,
        *,
        image_tag: str | None = None,
        environment: Mapping[str, str] | None = None,
        network_isolation: bool = False,
    ) -> "TransformModel":
        """A model that is deployed with the pipeline.

        A change of the artifact, the image or the environment is a new model: CloudFormation
        makes it, points the pipeline to it, and removes the old one.

        :param artifact: a directory, packed at synth, or a ready `.tar.gz`.
        :param image: a directory with a Dockerfile, built for linux/amd64 at deployment; or the
            URI of an image in ECR; or a repository.
        :param image_tag: of a repository. Default: `latest`.
        :param environment: of the model's container.
        :param network_isolation: the container reaches no network.
        :raises ValueError: there is no such artifact or image, or no container can have such an
            environment.
        """
        return _ArtifactModel(
            artifact=_checked_artifact(Path(artifact)),
            image=_checked_image(image, image_tag),
            environment=_checked_environment(environment or {}),
            network_isolation=network_isolation,
        )

    @staticmethod
    def from_model_name(name: str) -> "TransformModel":
        """A SageMaker model that exists in the stack's account and region.

        Its execution role has to read drops and write outputs: `pipeline.grants.score(role)`.

        :raises ValueError: no model can have that name.
        """
        return _NamedModel(name=_checked_name(name))

    @staticmethod
    def from_ssm_parameter(
        parameter: str | ssm.IStringParameter, *, allowed_models: str | Sequence[str]
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
    def bind(
        self, scope: Construct, *, buckets: TransformBuckets, settings: TransformSettings
    ) -> BoundModel:
        """Define in `scope` what the model needs; called by the pipeline, once."""


@dataclass(frozen=True, kw_only=True)
class _Image:
    """An image that a role can pull."""

    uri: str
    repository_arn: str


def _checked_artifact(artifact: Path) -> Path:
    if artifact.is_file() and artifact.name.endswith((".tar.gz", ".tgz")):
        return artifact.resolve()
    if artifact.is_dir() and any(artifact.iterdir()):
        return artifact.resolve()
    got = (
        f"an empty directory at {artifact}"
        if artifact.is_dir()
        else f"another kind of file at {artifact}"
        if artifact.exists()
        else f"nothing at {artifact}"
    )
    raise ValueError(
        f"artifact must be a directory of model files or a .tar.gz, got {got}; "
        "run what trains or exports the model first, or correct the path"
    )


def _checked_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Refuse what CreateModel would, which is only asked when the stack is half deployed."""
    if len(environment) > _MAX_VARIABLES:
        raise ValueError(
            f"environment must have at most {_MAX_VARIABLES} variables, got {len(environment)}; "
            "put the rest into a file of the artifact"
        )
    for name, value in environment.items():
        if not Token.is_unresolved(name) and not _VARIABLE.fullmatch(name):
            raise ValueError(
                "a variable of environment must be named by letters, digits and underscores, no "
                f"digit first, got {name!r}; rename it"
            )
        if not Token.is_unresolved(value) and len(str(value)) > _VARIABLE_LENGTH:
            raise ValueError(
                f"a variable of environment must have at most {_VARIABLE_LENGTH} characters, got "
                f"{len(str(value))} in {name!r}; put it into a file of the artifact"
            )
    return dict(environment)


def _checked_image(
    image: str | Path | ecr.IRepository, tag: str | None
) -> Path | str | tuple[ecr.IRepository, str]:
    if not isinstance(image, str | Path):
        return image, tag or "latest"
    if tag is not None:
        raise ValueError(
            f"image_tag must come with a repository, got {tag!r} with {str(image)!r}; "
            "write the tag into the image's URI"
        )
    if isinstance(image, str) and _ECR_URI.fullmatch(image):
        return image
    if isinstance(image, str) and Token.is_unresolved(image):
        raise ValueError(
            "image must be known at synth when it is a string, got a token; "
            "pass the ecr.IRepository and image_tag"
        )
    directory = Path(image)
    if not (directory / "Dockerfile").is_file():
        raise ValueError(
            f"image must be a directory with a Dockerfile or the URI of an image in ECR, "
            f"got {str(image)!r}; SageMaker pulls from ECR only, so copy the image there, "
            "or correct the path"
        )
    return directory.resolve()


@dataclass(frozen=True, kw_only=True)
class _ArtifactModel(TransformModel):
    artifact: Path
    image: Path | str | tuple[ecr.IRepository, str]
    environment: Mapping[str, str] = field(default_factory=dict)
    network_isolation: bool = False

    def bind(
        self, scope: Construct, *, buckets: TransformBuckets, settings: TransformSettings
    ) -> BoundModel:
        artifact = self._artifact_asset(scope)
        image = self._image(scope)
        role = _execution_role(scope)
        role.add_to_policy(
            iam.PolicyStatement(
                actions=["s3:GetObject"],
                resources=[artifact.bucket.arn_for_objects(artifact.s3_object_key)],
            )
        )
        for statement in (
            *_pull_statements(image),
            *scoring_statements(scope, buckets=buckets, settings=settings),
        ):
            role.add_to_policy(statement)
        model = sagemaker.CfnModel(
            scope,
            "Model",
            enable_network_isolation=self.network_isolation or None,
            execution_role_arn=role.role_arn,
            primary_container=sagemaker.CfnModel.ContainerDefinitionProperty(
                environment=dict(self.environment) or None,
                image=image.uri,
                model_data_url=artifact.s3_object_url,
            ),
        )
        # SageMaker reads the artifact with the role when it creates the model.
        model.node.add_dependency(role)
        return BoundModel(name=model.attr_model_name, arns=(model.ref,), role=role)

    def _artifact_asset(self, scope: Construct) -> s3_assets.Asset:
        if self.artifact.is_file():
            return s3_assets.Asset(scope, "Artifact", path=str(self.artifact))
        with tempfile.TemporaryDirectory() as directory:
            archive = Path(directory) / "model.tar.gz"
            pack(self.artifact, archive)
            return s3_assets.Asset(
                scope, "Artifact", path=str(archive), asset_hash=content_hash(self.artifact)
            )

    def _image(self, scope: Construct) -> _Image:
        if isinstance(self.image, Path):
            asset = ecr_assets.DockerImageAsset(
                scope,
                "Image",
                directory=str(self.image),
                exclude=["**/__pycache__", "**/*.pyc"],
                platform=ecr_assets.Platform.LINUX_AMD64,
            )
            return _Image(uri=asset.image_uri, repository_arn=asset.repository.repository_arn)
        if isinstance(self.image, str):
            uri = _ECR_URI.fullmatch(self.image)
            assert uri is not None  # from_artifact looked
            arn = Stack.of(scope).format_arn(
                account=uri["account"],
                region=uri["region"],
                resource="repository",
                resource_name=uri["repository"],
                service="ecr",
            )
            return _Image(uri=self.image, repository_arn=arn)
        repository, tag = self.image
        return _Image(
            uri=repository.repository_uri_for_tag(tag), repository_arn=repository.repository_arn
        )


@dataclass(frozen=True, kw_only=True)
class _NamedModel(TransformModel):
    name: str

    def bind(
        self, scope: Construct, *, buckets: TransformBuckets, settings: TransformSettings
    ) -> BoundModel:
        return BoundModel(name=self.name, arns=_model_arns(scope, self.name), role=None)


@dataclass(frozen=True, kw_only=True)
class _ParameterModel(TransformModel):
    parameter: str | ssm.IStringParameter
    allowed_models: tuple[str, ...]

    def bind(
        self, scope: Construct, *, buckets: TransformBuckets, settings: TransformSettings
    ) -> BoundModel:
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


def _execution_role(scope: Construct) -> iam.Role:
    stack = Stack.of(scope)
    # A model is checked when it is made and used by jobs; nothing else may act as this role.
    callers = [
        stack.format_arn(service="sagemaker", resource=resource, resource_name="*")
        for resource in ("model", "transform-job")
    ]
    return iam.Role(
        scope,
        "Role",
        assumed_by=iam.ServicePrincipal(
            "sagemaker.amazonaws.com",
            conditions={
                "StringEquals": {"aws:SourceAccount": stack.account},
                "ArnLike": {"aws:SourceArn": callers},
            },
        ),
        description="What the model's container may do in a transform job",
    )


def _pull_statements(image: _Image) -> list[iam.PolicyStatement]:
    return [
        iam.PolicyStatement(actions=["ecr:GetAuthorizationToken"], resources=["*"]),
        iam.PolicyStatement(
            actions=[
                "ecr:BatchCheckLayerAvailability",
                "ecr:BatchGetImage",
                "ecr:GetDownloadUrlForLayer",
            ],
            resources=[image.repository_arn],
        ),
    ]


def scoring_statements(
    scope: Construct, *, buckets: TransformBuckets, settings: TransformSettings
) -> list[iam.PolicyStatement]:
    """Return what the role of a model needs in order to score a pipeline's drops."""
    output = buckets.output
    written = [output.arn_for_objects(f"{RUNS}*")]
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
        iam.PolicyStatement(
            actions=["s3:GetObject"],
            resources=[
                buckets.inputs_arn(),
                output.arn_for_objects(f"{RUNS}*/manifest.json"),
            ],
        ),
        iam.PolicyStatement(
            # Needed already when the job is created: the service looks whether the objects exist.
            actions=["s3:ListBucket"],
            resources=[buckets.input.bucket_arn, output.bucket_arn],
        ),
        iam.PolicyStatement(actions=["s3:AbortMultipartUpload", "s3:PutObject"], resources=written),
        *buckets.key_use("kms:Decrypt", "kms:GenerateDataKey"),
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
    if capture_key is not None:
        statements.append(
            iam.PolicyStatement(
                actions=["kms:Decrypt", "kms:GenerateDataKey"], resources=[capture_key.key_arn]
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
