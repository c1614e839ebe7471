"""A container of a model as CreateModel has it, and what the model's role needs for it."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aws_cdk import Fn
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from batch_transform.archive import content_hash, pack
from batch_transform.assets import file_asset
from batch_transform.containers import ECR_URI, S3, ModelContainer, PrivateRegistry, is_in_s3
from batch_transform.deployed import place_of
from batch_transform.statements import Statement, allow
from batch_transform.tokens import is_token

if TYPE_CHECKING:
    from aws_cdk import aws_lambda as lambda_


@dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    """What the role of a model needs so that its containers start.

    :param objects: ARNs of artifacts.
    :param repositories: ARNs of ECR repositories.
    """

    objects: tuple[str, ...] = ()
    keys: tuple[kms.IKey, ...] = ()
    repositories: tuple[str, ...] = ()
    functions: "tuple[lambda_.IFunction, ...]" = ()

    def __add__(self, other: "Needs") -> "Needs":
        return Needs(
            objects=self.objects + other.objects,
            keys=self.keys + other.keys,
            repositories=self.repositories + other.repositories,
            functions=self.functions + other.functions,
        )

    def statements(self) -> list[Statement]:
        """Return the policy statements; each resource once, and none for what is not needed."""
        found = [
            (["s3:GetObject"], self.objects),
            (["kms:Decrypt"], [key.key_arn for key in self.keys]),
            (["ecr:GetAuthorizationToken"], ["*"] if self.repositories else []),
            (
                [
                    "ecr:BatchCheckLayerAvailability",
                    "ecr:BatchGetImage",
                    "ecr:GetDownloadUrlForLayer",
                ],
                self.repositories,
            ),
            (["lambda:InvokeFunction"], [function.function_arn for function in self.functions]),
        ]
        return [
            allow(actions=actions, resources=list(dict.fromkeys(resources)))
            for actions, resources in found
            if resources
        ]


def bind_container(
    scope: Construct, container: ModelContainer
) -> tuple[sagemaker.CfnModel.ContainerDefinitionProperty, Needs]:
    """Define the assets of a container in `scope`; return it as CreateModel has it."""
    image, needs = _bind_image(scope, container)
    url: str | None = None
    if container.artifact is not None:
        url, artifact_arn = _bind_artifact(scope, container.artifact)
        keys = () if container.artifact_key is None else (container.artifact_key,)
        needs += Needs(objects=(artifact_arn,), keys=keys)
    definition = sagemaker.CfnModel.ContainerDefinitionProperty(
        container_hostname=container.hostname,
        environment=dict(container.environment) or None,
        image=image,
        image_config=_image_config(container.registry),
        model_data_url=url,
    )
    return definition, needs


def artifact_arn(scope: Construct, uri: str) -> str:
    """Return the ARN of an object by its `s3://` URI, which deployment may be the first to know."""
    path = (
        Fn.select(1, Fn.split(S3, uri))
        if is_token(uri) and not uri.startswith(S3)
        else uri.removeprefix(S3)
    )
    return place_of(scope).arn("s3", path, region="", account="")


def repository_arn(scope: Construct, image: str | ecr.IRepository) -> str:
    """Return the ARN of the repository of an image in ECR.

    :raises ValueError: the image is in another region than the stack.
    """
    if not isinstance(image, str):
        return image.repository_arn
    uri = ECR_URI.fullmatch(image)
    assert uri is not None  # check_ecr_uri looked
    check_region(scope, uri["region"], of=f"image {image!r}")
    return place_of(scope).arn(
        "ecr", f"repository/{uri['repository']}", region=uri["region"], account=uri["account"]
    )


def check_region(scope: Construct, region: str, *, of: str) -> None:
    """Refuse what a model needs and is in another region: SageMaker takes nothing from there.

    :param of: what it is, for the message.
    :raises ValueError: it is not in the region of the stack.
    """
    here = place_of(scope).region
    if region != here and not is_token(region) and not is_token(here):
        raise ValueError(
            f"what a model is made of must be in the stack's region {here}, got {of} of {region}; "
            "copy it there"
        )


def _bind_artifact(scope: Construct, artifact: str | Path) -> tuple[str, str]:
    """Return the artifact's URL and the ARN of its object."""
    if isinstance(artifact, str) and is_in_s3(artifact):
        return artifact, artifact_arn(scope, artifact)
    path = Path(artifact).resolve()
    if path.is_file():
        asset = file_asset(scope, "Artifact", path)
    else:
        with tempfile.TemporaryDirectory() as directory:
            archive = Path(directory) / "model.tar.gz"
            pack(path, archive)
            asset = file_asset(scope, "Artifact", archive, asset_hash=content_hash(path))
    key = f"{asset.bucket_name}/{asset.object_key}"
    return asset.s3_object_url, place_of(scope).arn("s3", key, region="", account="")


def _bind_image(scope: Construct, container: ModelContainer) -> tuple[str, Needs]:
    """Return the image's URI, and what pulling it needs."""
    image = container.image
    if not isinstance(image, str | Path):
        uri = image.repository_uri_for_tag(container.image_tag or "latest")
        return uri, Needs(repositories=(image.repository_arn,))
    if container.registry is not None:
        credentials = container.registry.credentials
        return str(image), Needs(functions=() if credentials is None else (credentials,))
    if isinstance(image, str) and ECR_URI.fullmatch(image):
        return image, Needs(repositories=(repository_arn(scope, image),))
    asset = ecr_assets.DockerImageAsset(
        scope,
        "Image",
        directory=str(Path(image).resolve()),
        exclude=["**/__pycache__", "**/*.pyc"],
        platform=ecr_assets.Platform.LINUX_AMD64,
    )
    return asset.image_uri, Needs(repositories=(asset.repository.repository_arn,))


def _image_config(
    registry: PrivateRegistry | None,
) -> sagemaker.CfnModel.ImageConfigProperty | None:
    if registry is None:
        return None
    credentials = registry.credentials
    return sagemaker.CfnModel.ImageConfigProperty(
        repository_access_mode="Vpc",
        repository_auth_config=None
        if credentials is None
        else sagemaker.CfnModel.RepositoryAuthConfigProperty(
            repository_credentials_provider_arn=credentials.function_arn
        ),
    )
