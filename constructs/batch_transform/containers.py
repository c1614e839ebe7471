"""A container of a model: its image and its artifact."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from batch_transform.tokens import is_token

if TYPE_CHECKING:
    from aws_cdk import aws_ecr as ecr
    from aws_cdk import aws_kms as kms
    from aws_cdk import aws_lambda as lambda_

S3 = "s3://"
_TOKEN = r"\$\{Token\[[^\]]+\]\}"
ECR_URI = re.compile(
    rf"(?P<account>\d{{12}}|{_TOKEN})\.dkr\.ecr\.(?P<region>[a-z0-9-]+|{_TOKEN})"
    rf"\.(?:amazonaws\.com(?:\.cn)?|{_TOKEN})"
    rf"/(?P<repository>(?:[a-z0-9._/-]|{_TOKEN})+)(?:[:@].+)?"
)

# Reference §3.
_VARIABLE = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,1023}")
_VARIABLE_LENGTH = 1024
_MAX_VARIABLES = 100
_ENVIRONMENT_BYTES = 32 * 1024
_IMAGE_LENGTH = 255
_HOSTNAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")


@dataclass(frozen=True, kw_only=True, slots=True)
class PrivateRegistry:
    """A Docker registry in the model's VPC, which the image is pulled from instead of ECR.

    :param credentials: a function that returns the registry's user and password to SageMaker.
        Default: the registry asks for none.
    """

    credentials: lambda_.IFunction | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelContainer:
    """One container of a model.

    :param image: a directory with a Dockerfile, built for linux/amd64 at deployment; or the URI of
        an image in ECR (or in `registry`); or an ECR repository.
    :param artifact: a directory of model files, packed at synth; a `.tar.gz`; or the `s3://` URI of
        one that is in S3 already. SageMaker unpacks it to `/opt/ml/model`. Default: none, the
        model is in the image.
    :param artifact_key: the KMS key of the artifact's bucket, if one encrypts it.
    :param image_tag: of a repository. Default: `latest`.
    :param environment: variables of the container.
    :param hostname: names the container in log streams; all containers of a pipeline have one, or
        none. Alone, a container has no use for it.
    :param registry: where the image is, when it is not in ECR; the model then needs a VPC.
    :raises ValueError: there is no such artifact or image, or the service would refuse the rest.
    """

    image: str | Path | ecr.IRepository
    artifact: str | Path | None = None
    artifact_key: kms.IKey | None = None
    image_tag: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    hostname: str | None = None
    registry: PrivateRegistry | None = None

    def __post_init__(self) -> None:
        if self.artifact is not None:
            _check_artifact(self.artifact)
        _check_image(self.image, self.image_tag, self.registry)
        check_environment(self.environment)
        _check_hostname(self.hostname)


def is_in_s3(artifact: str) -> bool:
    """Whether an artifact is the URI of one, and no path."""
    return artifact.startswith(S3) or is_token(artifact)


def _check_artifact(artifact: str | Path) -> None:
    if isinstance(artifact, str) and is_in_s3(artifact):
        check_artifact_uri(artifact)
        return
    path = Path(artifact)
    if path.is_file() and path.name.endswith((".tar.gz", ".tgz")):
        return
    if path.is_dir() and any(path.iterdir()):
        return
    got = (
        f"an empty directory at {path}"
        if path.is_dir()
        else f"another kind of file at {path}"
        if path.exists()
        else f"nothing at {path}"
    )
    raise ValueError(
        "artifact must be a directory of model files, a .tar.gz, or the s3:// URI of one, got "
        f"{got}; run what trains or exports the model first, or correct the path"
    )


def check_artifact_uri(uri: str) -> None:
    """Refuse the URI of what is no archive.

    :raises ValueError: such a model would need ModelDataSource, which batch transform refuses
        (reference §1.9).
    """
    bucket, _, key = uri.removeprefix(S3).partition("/")
    if is_token(key or bucket):
        return
    if not key.endswith((".gz", ".tgz")):
        raise ValueError(
            f"artifact must be one .tar.gz when it is in S3, got {uri!r}; pack the files into an "
            "archive: what is not packed needs a ModelDataSource, and SageMaker refuses to run "
            "models with one in batch transform"
        )


def _check_image(
    image: str | Path | ecr.IRepository, tag: str | None, registry: PrivateRegistry | None
) -> None:
    if not isinstance(image, str | Path):
        if registry is not None:
            raise ValueError(
                "image must be a URI when registry is given, got an ECR repository; "
                "leave registry out"
            )
        return
    if tag is not None:
        raise ValueError(
            f"image_tag must come with a repository, got {tag!r} with {str(image)!r}; "
            "write the tag into the image's URI"
        )
    if registry is not None:
        if isinstance(image, Path):
            raise ValueError(
                f"image must be a URI when registry is given, got the directory {str(image)!r}; "
                "push the image to the registry, or leave registry out"
            )
        _check_image_length(image)
    elif not (isinstance(image, str) and ECR_URI.fullmatch(image)):
        if isinstance(image, str) and is_token(image):
            raise ValueError(
                "image must show its repository at synth when it is a string, got a token; "
                "pass the ecr.IRepository and image_tag"
            )
        if not (Path(image) / "Dockerfile").is_file():
            raise ValueError(
                f"image must be a directory with a Dockerfile or the URI of an image in ECR, "
                f"got {str(image)!r}; SageMaker pulls from ECR only, so copy the image there, "
                "or correct the path"
            )
    else:
        _check_image_length(image)


def check_ecr_uri(image: str) -> None:
    """Refuse what is not the URI of an image in ECR.

    :raises ValueError: it is none.
    """
    if not ECR_URI.fullmatch(image):
        raise ValueError(
            f"an image must be the URI of one in ECR, got {image!r}; "
            "pass such a URI, or the ecr.IRepository"
        )


def _check_image_length(uri: str) -> None:
    if not is_token(uri) and len(uri) > _IMAGE_LENGTH:
        raise ValueError(
            f"the URI of an image must have at most {_IMAGE_LENGTH} characters, got {len(uri)} in "
            f"{uri!r}; shorten the repository's name or the tag"
        )


def check_environment(environment: Mapping[str, str]) -> None:
    """Refuse what CreateModel would, which is only asked when the stack is half deployed.

    :raises ValueError: a container cannot have such variables.
    """
    if len(environment) > _MAX_VARIABLES:
        raise ValueError(
            f"environment must have at most {_MAX_VARIABLES} variables, got {len(environment)}; "
            "put the rest into a file of the artifact"
        )
    size = 0
    for name, value in environment.items():
        if not is_token(name) and not _VARIABLE.fullmatch(name):
            raise ValueError(
                "a variable of environment must be named by letters, digits and underscores, no "
                f"digit first, got {name!r}; rename it"
            )
        if is_token(value):
            continue
        if len(str(value)) > _VARIABLE_LENGTH:
            raise ValueError(
                f"a variable of environment must have at most {_VARIABLE_LENGTH} characters, got "
                f"{len(str(value))} in {name!r}; put it into a file of the artifact"
            )
        size += len(name.encode()) + len(str(value).encode())
    if size > _ENVIRONMENT_BYTES:
        raise ValueError(
            f"environment must have at most {_ENVIRONMENT_BYTES} bytes in all, got {size}; "
            "put the largest variables into a file of the artifact"
        )


def _check_hostname(hostname: str | None) -> None:
    if hostname is None or is_token(hostname) or _HOSTNAME.fullmatch(hostname):
        return
    raise ValueError(
        "a container's hostname must be letters, digits and inner hyphens, at most 63 characters, "
        f"got {hostname!r}; rename it"
    )


def check_hostnames(containers: Sequence[ModelContainer]) -> None:
    """Refuse hostnames that containers of one model cannot have together.

    :raises ValueError: only some have one, or two have the same.
    """
    given = [container.hostname for container in containers if container.hostname is not None]
    if given and len(given) < len(containers):
        raise ValueError(
            "all containers of a pipeline must have a hostname, or none, got "
            f"{len(given)} of {len(containers)}; name the others, too"
        )
    twice = sorted(name for name, count in Counter(given).items() if count > 1)
    if twice:
        raise ValueError(
            "containers of a pipeline must have different hostnames, got "
            f"{', '.join(map(repr, twice))} more than once; rename one"
        )
