"""Models: whether artifact and image are there, and can be read by the model's role."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from batch_transform_cli.doctor.findings import Finding, fail, ok, skipped
from batch_transform_cli.doctor.needs import Model, Network, Parameter
from batch_transform_cli.doctor.networks import network_findings
from batch_transform_cli.doctor.reader import Absent, NotAllowed
from batch_transform_cli.doctor.site import Check, Site

_IMAGE = re.compile(
    r"(?P<account>\d{12})\.dkr[.-]ecr\.(?P<region>[a-z0-9-]+)\.[a-z.]+/"
    r"(?P<repository>[^:@]+)(?:@(?P<digest>sha256:\w+)|:(?P<tag>[\w.-]+))?"
)
_PULL = ("ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer", "ecr:BatchCheckLayerAvailability")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageName:
    """An image in ECR."""

    account: str
    region: str
    repository: str
    tag: str
    digest: str

    @classmethod
    def read(cls, uri: str) -> "ImageName | None":
        """Read a URI; `None` if it is not in ECR."""
        match = _IMAGE.fullmatch(uri)
        if match is None:
            return None
        parts = {name: part or "" for name, part in match.groupdict().items()}
        if not parts["digest"] and not parts["tag"]:
            parts["tag"] = "latest"
        return cls(**parts)

    @property
    def request(self) -> dict[str, Any]:
        """How ECR's operations name it."""
        by = {"imageDigest": self.digest} if self.digest else {"imageTag": self.tag}
        return {
            "registryId": self.account,
            "repositoryName": self.repository,
            "imageIds": [by],
        }

    def repository_arn(self, partition: str) -> str:
        """Return the ARN of its repository."""
        return f"arn:{partition}:ecr:{self.region}:{self.account}:repository/{self.repository}"


def trusts_sagemaker(trust: Mapping[str, Any]) -> bool:
    """Whether SageMaker may take a role on; conditions are not evaluated."""
    statements = trust.get("Statement", [])
    for each in statements if isinstance(statements, list) else [statements]:
        principal = each.get("Principal", {})
        services = principal.get("Service", []) if isinstance(principal, Mapping) else principal
        if each.get("Effect") == "Allow" and "sagemaker.amazonaws.com" in services:
            return True
    return False


def role_findings(role: str, answers: Sequence[Mapping[str, Any]], stack: str) -> Iterator[Finding]:
    """Say what IAM's simulation says that a role may not do."""
    refused = [each for each in answers if each["EvalDecision"] != "allowed"]
    for each in refused:
        bounded = each.get("PermissionsBoundaryDecisionDetail", {}).get(
            "AllowedByPermissionsBoundary", True
        )
        yield fail(
            "role",
            f"{role} may not {each['EvalActionName']} on {each.get('EvalResourceName', '*')}"
            + ("" if bounded else ": its permissions boundary forbids it"),
            f"pipeline.grants.score(role) for a role of yours, or deploy {stack}"
            if bounded
            else "widen the boundary",
        )
    if not refused:
        yield ok("role", f"{role} may read what it has to")


def _artifact(item: tuple[str, Model], site: Site) -> Iterator[Finding]:
    uri, model = item
    parts = urlsplit(uri)
    try:
        site.reader.read("s3", "head_object", Bucket=parts.netloc, Key=parts.path[1:])
    except Absent:
        fix = f"mend the URI, or\naws s3 cp model.tar.gz {uri}"
        yield fail("artifact", f"{uri} of {model.owner} is not there", fix)
        return
    yield ok("artifact", f"{uri} of {model.owner} is there{_whose_eyes(site, model)}")
    region = site.reader.read("s3", "head_bucket", Bucket=parts.netloc).get("BucketRegion")
    if region not in (None, site.region):
        fix = f"copy it to a bucket of {site.region}; SageMaker reads from its own region"
        yield fail("artifact", f"{uri} of {model.owner} is in {region}", fix)


def _image(item: tuple[str, Model], site: Site) -> Iterator[Finding]:
    uri, model = item
    image = ImageName.read(uri)
    if image is None:
        yield skipped("image", f"{uri} of {model.owner} is in a registry that is not ECR")
        return
    if image.region != site.region:
        fix = f"copy it to ECR in {site.region}; SageMaker pulls from its own region"
        yield fail("image", f"{uri} of {model.owner} is in {image.region}", fix)
        return
    try:
        _look_at(image, site)
    except Absent:
        fix = f"mend the name, or\ndocker push {uri}"
        yield fail("image", f"{uri} of {model.owner} is not there", fix)
        return
    yield ok("image", f"{uri} of {model.owner} is there{_whose_eyes(site, model)}")


def _look_at(image: ImageName, site: Site) -> None:
    try:
        site.reader.read("ecr", "describe_images", **image.request)
    except NotAllowed:
        if image.account == site.account:
            raise
        # Others let pull, and describe seldom. To ask for the manifest is the first half of a pull.
        answer = site.reader.read("ecr", "batch_get_image", **image.request)
        if not answer["images"]:
            raise Absent("no such image") from None


def _role(model: Model, site: Site) -> Iterator[Finding]:
    role = site.role_of(model)
    if role is None:
        return
    name = role.rpartition("/")[2]
    try:
        trust = site.reader.read("iam", "get_role", RoleName=name)["Role"]
    except Absent:
        fix = "mend the ARN, or make the role first"
        yield fail("role", f"{role} of {model.owner} is not there", fix)
        return
    if not trusts_sagemaker(_document(trust["AssumeRolePolicyDocument"])):
        fix = "add sagemaker.amazonaws.com to the principals of its trust policy (docs/models.md)"
        yield fail("role", f"{role} does not trust sagemaker.amazonaws.com", fix)
    asked = [
        *(("s3:GetObject", _object_arn(uri, site)) for uri in _artifacts(model)),
        *(
            (action, image.repository_arn(site.needs.place.partition))
            for image in map(ImageName.read, _images(model))
            if image is not None
            for action in _PULL
        ),
        *(("s3:GetObject", arn) for arn in _drops(model, site)),
    ]
    answers: list[Mapping[str, Any]] = []
    for resource in dict.fromkeys(resource for _, resource in asked):
        answers += site.reader.each(
            "iam",
            "simulate_principal_policy",
            "EvaluationResults",
            PolicySourceArn=role,
            ActionNames=[action for action, of in asked if of == resource],
            ResourceArns=[resource],
        )
    yield from role_findings(role, answers, model.stack)


def _drops(model: Model, site: Site) -> Iterator[str]:
    """Yield an example of what pipelines that are deployed score with a model.

    Before that, a role of yours may not have yet what `grants.score` gives it.
    """
    for scoring in site.needs.scorings:
        of_model = scoring.model == model.name and model.stack in ("", scoring.stack)
        if not of_model or scoring.stack not in site.deployed:
            continue
        bucket = site.needs.facts[scoring.stack].get(scoring.bucket_fact)
        if isinstance(bucket, dict):
            bucket = site.deployed[scoring.stack].resources.get(bucket.get("Ref", ""))
        if isinstance(bucket, str):
            yield _object_arn(f"s3://{bucket}/{scoring.prefix}any", site)


def _model(name: str, site: Site) -> Iterator[Finding]:
    try:
        found = site.reader.read("sagemaker", "describe_model", ModelName=name)
    except Absent:
        fix = "make it, or mend the name; there are:\naws sagemaker list-models"
        fix += f" --region {site.region}"
        yield fail("model", f"{name} is not there", fix)
        return
    yield ok("model", f"{name} is there")
    primary = found.get("PrimaryContainer")
    model = Model(
        name=name,
        stack="",
        containers=[primary] if primary else found.get("Containers", []),
        role=found["ExecutionRoleArn"],
    )
    for uri in _artifacts(model):
        yield from _artifact((uri, model), site)
    if site.is_local:
        return
    for uri in _images(model):
        yield from _image((uri, model), site)
    yield from _role(model, site)
    network = found.get("VpcConfig")
    if network:
        yield from network_findings(
            Network(
                owner=name,
                of_functions=False,
                subnets=tuple(network["Subnets"]),
                security_groups=tuple(network["SecurityGroupIds"]),
            ),
            site,
        )


def _named_by(parameter: Parameter, site: Site) -> Iterator[Finding]:
    found = site.reader.read("ssm", "get_parameters", Names=[parameter.name])["Parameters"]
    for each in found:
        yield from _model(each["Value"], site)


def _artifacts(model: Model) -> list[str]:
    found = [each.get("ModelDataUrl") for each in model.containers]
    return [*dict.fromkeys(uri for uri in found if isinstance(uri, str) and uri.startswith("s3:"))]


def _images(model: Model) -> list[str]:
    found = [each.get("Image") for each in model.containers]
    return [*dict.fromkeys(uri for uri in found if isinstance(uri, str))]


def _object_arn(uri: str, site: Site) -> str:
    return f"arn:{site.needs.place.partition}:s3:::{uri.removeprefix('s3://')}"


def _whose_eyes(site: Site, model: Model) -> str:
    if site.is_local or site.role_of(model) is not None:
        return ""
    return " for your credentials; its role is not deployed yet"


def _document(policy: Any) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(policy) if isinstance(policy, str) else policy
    return found


def _not_uploaded(site: Site, uris: Mapping[str, Model]) -> dict[str, tuple[str, Model]]:
    """Leave out what a deployment uploads itself."""
    uploaded = site.needs.uploaded
    return {
        uri: (uri, model)
        for uri, model in uris.items()
        if uri not in uploaded and uri.partition("/")[2] not in uploaded
    }


CHECKS = (
    Check(
        topic="artifact",
        items=lambda site: _not_uploaded(
            site, {uri: model for model in site.needs.models for uri in _artifacts(model)}
        ),
        examine=_artifact,
    ),
    Check(
        topic="image",
        items=lambda site: _not_uploaded(
            site, {uri: model for model in site.needs.models for uri in _images(model)}
        ),
        examine=_image,
        not_local="a local cloud runs images by a folder or a container engine",
    ),
    Check(
        topic="role",
        items=lambda site: {
            f"{each.stack} {each.name}": each for each in site.needs.models if site.role_of(each)
        },
        examine=_role,
        not_local="a local cloud does not enforce policies",
    ),
    Check(
        topic="model",
        items=lambda site: {name: name for name in site.needs.model_names},
        examine=_model,
    ),
    Check(
        topic="model",
        items=lambda site: {each.name: each for each in site.needs.parameters if each.names_model},
        examine=_named_by,
    ),
)
