"""Deploys a synthesized cloud assembly as it is, as the CDK CLI does, in about a second.

What stands in the assembly is what goes to CloudFormation: this reads `manifest.json` (also those
of nested assemblies, the Stages), publishes the assets, and creates or updates the stacks.
"""

import functools
import io
import json
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from local_cloud import bootstrap
from local_cloud.errors import DeployFailed, ImageRefused
from local_cloud.images import Images

_POLL_S = 0.05
_CAPABILITIES = ["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"]
_UNKNOWN = ("unknown-account", "unknown-region")
_MUST_BE_DELETED_FIRST = ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED")
_GOOD = ("CREATE_COMPLETE", "UPDATE_COMPLETE")
_MESSAGE_LIMIT = 500  # It can hold the whole template; the reason comes last.
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)

ClientFactory = Callable[[str, str, str], Any]
"""Makes a client: (service, account, region)."""


@dataclass(frozen=True, slots=True)
class _Stack:
    """One stack of the assembly, with the folder that its files are relative to."""

    artifact_id: str
    name: str
    folder: Path
    account: str
    region: str
    properties: Mapping[str, Any]
    asset_manifests: tuple[Path, ...]
    depends_on: tuple[str, ...]

    def resolve(self, text: str) -> str:
        """Fill in what the synthesis left open."""
        for token, value in (
            ("${AWS::Partition}", "aws"),
            ("${AWS::AccountId}", self.account),
            ("${AWS::Region}", self.region),
            ("${AWS::URLSuffix}", "amazonaws.com"),
        ):
            text = text.replace(token, value)
        return text


class Deployer:
    """Deploys assemblies to one local cloud.

    :param check: raises when the cloud is no longer there.
    """

    def __init__(
        self,
        *,
        client: ClientFactory,
        images: Images,
        default_account: str,
        default_region: str,
        check: Callable[[], None],
    ) -> None:
        self._client = functools.cache(client)
        self._images = images
        self._default_account = default_account
        self._default_region = default_region
        self._check = check

    def deploy(
        self,
        assembly_dir: Path,
        *,
        parameters: Mapping[str, Mapping[str, str]],
        limit_s: float,
    ) -> dict[str, dict[str, str]]:
        """Deploy all stacks, each after those it depends on; returns outputs by stack name."""
        try:
            stacks = list(self._stacks(assembly_dir))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DeployFailed(
                f"{assembly_dir} must be a cloud assembly, got a manifest in which {error!r} shows "
                "that it is none; run: cdk synth"
            ) from error
        unknown = sorted(set(parameters) - {stack.name for stack in stacks})
        if unknown:
            raise DeployFailed(
                f"parameters must be for stacks of {assembly_dir}, got {', '.join(unknown)}; "
                f"it has {', '.join(stack.name for stack in stacks)}"
            )
        outputs = {}
        for stack in _in_order(stacks):
            self._ensure_bootstrapped(stack, limit_s=limit_s)
            self._publish_assets(stack)
            outputs[stack.name] = self._deploy_stack(
                stack, parameters.get(stack.name, {}), limit_s=limit_s
            )
        return outputs

    def _stacks(self, folder: Path) -> Iterator[_Stack]:
        manifest = _read(folder / "manifest.json")
        artifacts = manifest.get("artifacts", {})
        for artifact_id, artifact in artifacts.items():
            properties = artifact.get("properties", {})
            if artifact["type"] == "cdk:cloud-assembly":
                yield from self._stacks(folder / properties["directoryName"])
            elif artifact["type"] == "aws:cloudformation:stack":
                account, region = artifact["environment"].removeprefix("aws://").split("/")
                depends_on = artifact.get("dependencies", [])
                yield _Stack(
                    artifact_id=artifact_id,
                    name=properties.get("stackName", artifact_id),
                    folder=folder,
                    account=self._default_account if account in _UNKNOWN else account,
                    region=self._default_region if region in _UNKNOWN else region,
                    properties=properties,
                    asset_manifests=tuple(
                        folder / artifacts[other]["properties"]["file"]
                        for other in depends_on
                        if artifacts[other]["type"] == "cdk:asset-manifest"
                    ),
                    depends_on=tuple(depends_on),
                )

    def _ensure_bootstrapped(self, stack: _Stack, *, limit_s: float) -> None:
        parameter = stack.properties.get("bootstrapStackVersionSsmParameter")
        if parameter is None:
            return  # A synthesizer that does without.
        ssm = self._client("ssm", stack.account, stack.region)
        try:
            ssm.get_parameter(Name=parameter)
        except ssm.exceptions.ParameterNotFound:
            cloudformation = self._client("cloudformation", stack.account, stack.region)
            qualifier = bootstrap.qualifier_of(parameter)
            name = bootstrap.stack_name(qualifier)
            template = json.dumps(bootstrap.template(qualifier, parameter))
            self._apply(cloudformation, {"StackName": name, "TemplateBody": template}, limit_s)

    def _publish_assets(self, stack: _Stack) -> None:
        for path in stack.asset_manifests:
            manifest = _read(path)
            for asset in manifest.get("files", {}).values():
                for destination in asset["destinations"].values():
                    self._publish_file(stack, asset["source"], destination)
            for asset in manifest.get("dockerImages", {}).values():
                for destination in asset["destinations"].values():
                    self._publish_image(stack, asset["source"], destination)

    def _publish_file(
        self, stack: _Stack, source: Mapping[str, Any], destination: Mapping[str, str]
    ) -> None:
        region = destination.get("region", stack.region)
        bucket = stack.resolve(destination["bucketName"])
        key = stack.resolve(destination["objectKey"])
        s3 = self._client("s3", stack.account, region)
        if _exists(s3, bucket, key):
            return  # The key is the content's hash.
        if "executable" in source:
            raise DeployFailed(
                "a file asset must be a file or a directory, got one that the command "
                f"{source['executable']} makes; synthesize it to a path"
            )
        path = stack.folder / source["path"]
        if not path.exists():
            raise DeployFailed(
                f"stack {stack.name} must have its assets in the assembly, got none at {path}; "
                "run: cdk synth"
            )
        _ensure_bucket(s3, bucket, region)
        if source.get("packaging") == "zip":
            s3.put_object(Bucket=bucket, Key=key, Body=_zipped(path))
        else:
            s3.upload_file(str(path), bucket, key)

    def _publish_image(
        self, stack: _Stack, source: Mapping[str, Any], destination: Mapping[str, str]
    ) -> None:
        region = destination.get("region", stack.region)
        repository = stack.resolve(destination["repositoryName"])
        tag = stack.resolve(destination["imageTag"])
        uri = image_uri(stack.account, region, repository, tag)
        if uri in self._images:
            return  # The tag is the content's hash.
        if "directory" not in source:
            raise DeployFailed(
                f"an image asset must be a directory, got one that {source.get('executable')} "
                "makes; give the model image as a directory with a Dockerfile and a `serve`"
            )
        try:
            self._images.register(uri, stack.folder / source["directory"])
        except ImageRefused as error:
            raise DeployFailed(f"{stack.name}: {error}") from error

    def _deploy_stack(
        self, stack: _Stack, parameters: Mapping[str, str], *, limit_s: float
    ) -> dict[str, str]:
        cloudformation = self._client("cloudformation", stack.account, stack.region)
        request = {
            "StackName": stack.name,
            **_template(stack),
            "Capabilities": _CAPABILITIES,
            "Parameters": [
                {"ParameterKey": key, "ParameterValue": value}
                for key, value in {**stack.properties.get("parameters", {}), **parameters}.items()
            ],
            "Tags": [
                {"Key": key, "Value": value}
                for key, value in stack.properties.get("tags", {}).items()
            ],
        }
        self._apply(cloudformation, request, limit_s)
        described = cloudformation.describe_stacks(StackName=stack.name)["Stacks"][0]
        return {o["OutputKey"]: o["OutputValue"] for o in described.get("Outputs", [])}

    def _apply(self, cloudformation: Any, request: Mapping[str, Any], limit_s: float) -> None:
        """Create the stack or update it, and wait for its end."""
        name, started = request["StackName"], time.time()
        status = _status(cloudformation, name)
        if status in _MUST_BE_DELETED_FIRST:
            cloudformation.delete_stack(StackName=name)
            self._wait(cloudformation, name, limit_s)
            status = None
        try:
            if status is None:
                cloudformation.create_stack(**request)
            else:
                cloudformation.update_stack(**request)
        except ClientError as error:
            message = error.response["Error"]["Message"]
            if "No updates are to be performed" in message:
                return  # Also when a refused update went back to what is wanted again.
            raise DeployFailed(
                f"stack {name} must be accepted by CloudFormation, got: "
                f"{message if len(message) <= _MESSAGE_LIMIT else message[-_MESSAGE_LIMIT:]}"
            ) from error
        status = self._wait(cloudformation, name, limit_s)
        if status not in _GOOD:
            raise DeployFailed(
                f"stack {name} must deploy, got {status}: "
                f"{_first_failure(cloudformation, name, since=started)}"
            )

    def _wait(self, cloudformation: Any, name: str, limit_s: float) -> str | None:
        deadline = time.monotonic() + limit_s
        while (status := _status(cloudformation, name)) is not None:
            if not status.endswith("_IN_PROGRESS"):
                return status
            self._check()
            if time.monotonic() > deadline:
                raise DeployFailed(
                    f"stack {name} must deploy within {limit_s:g} s, got {status} still at "
                    f"{_unfinished(cloudformation, name)}; look there, or raise limit_s"
                )
            time.sleep(_POLL_S)
        return None


def _template(stack: _Stack) -> dict[str, str]:
    """Refer to the template where its asset was published; only a small one may be sent along."""
    published = stack.properties.get("stackTemplateAssetObjectUrl")
    if published is None:
        return {
            "TemplateBody": (stack.folder / stack.properties["templateFile"]).read_text("utf-8")
        }
    location = stack.resolve(published).removeprefix("s3://")
    return {"TemplateURL": f"https://s3.{stack.region}.amazonaws.com/{location}"}


def image_uri(account: str, region: str, repository: str, tag: str) -> str:
    """Return the URI by which a template refers to an image asset."""
    return f"{account}.dkr.ecr.{region}.amazonaws.com/{repository}:{tag}"


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise DeployFailed(
            f"a cloud assembly must have the file {path}, got none; run: cdk synth"
        ) from error
    except (OSError, ValueError) as error:
        raise DeployFailed(
            f"the file {path} of a cloud assembly must be JSON, got: {error}; run: cdk synth"
        ) from error
    return content


def _in_order(stacks: list[_Stack]) -> Iterator[_Stack]:
    """Sort by dependency within each assembly, else in the order of the manifests."""
    ids = {(stack.folder, stack.artifact_id) for stack in stacks}
    done: set[tuple[Path, str]] = set()
    waiting = list(stacks)
    while waiting:
        ready = [
            stack
            for stack in waiting
            if all(
                (stack.folder, other) in done | _absent(ids, stack) for other in stack.depends_on
            )
        ]
        if not ready:
            names = ", ".join(stack.name for stack in waiting)
            raise DeployFailed(f"stacks must not depend on each other in a circle, got {names}")
        for stack in ready:
            yield stack
            done.add((stack.folder, stack.artifact_id))
            waiting.remove(stack)


def _absent(ids: set[tuple[Path, str]], stack: _Stack) -> set[tuple[Path, str]]:
    """Dependencies that are no stacks: assets, or nested assemblies, which come first anyway."""
    return {(stack.folder, other) for other in stack.depends_on} - ids


def _exists(s3: Any, bucket: str, key: str) -> bool:
    try:
        s3.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
            return False
        raise
    return True


def _ensure_bucket(s3: Any, bucket: str, region: str) -> None:
    """Make a bucket of the assembly's own choice; that of the bootstrap stack is there."""
    try:
        s3.head_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise
        place = {"LocationConstraint": region}
        s3.create_bucket(
            Bucket=bucket,
            **({"CreateBucketConfiguration": place} if region != "us-east-1" else {}),
        )


def _zipped(directory: Path) -> bytes:
    """Zip a directory, byte for byte the same for the same content; modes are kept."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path in sorted(directory.rglob("*")):
            if path.is_file():
                entry = zipfile.ZipInfo(path.relative_to(directory).as_posix(), _ZIP_EPOCH)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = (path.stat().st_mode & 0xFFFF) << 16
                archive.writestr(entry, path.read_bytes())
    return buffer.getvalue()


def _status(cloudformation: Any, name: str) -> str | None:
    """Return the stack's status, None when there is no such stack."""
    try:
        stacks = cloudformation.describe_stacks(StackName=name)["Stacks"]
    except ClientError as error:
        if "does not exist" in error.response["Error"]["Message"]:
            return None
        raise
    status = str(stacks[0]["StackStatus"])
    return None if status in ("DELETE_COMPLETE", "REVIEW_IN_PROGRESS") else status


def _events(cloudformation: Any, name: str) -> Iterator[dict[str, Any]]:
    for page in cloudformation.get_paginator("describe_stack_events").paginate(StackName=name):
        yield from page["StackEvents"]


def _first_failure(cloudformation: Any, name: str, *, since: float) -> str:
    """Tell the first resource that failed: what failed after it did so for its sake."""
    failures = [
        event
        for event in _events(cloudformation, name)
        if event["ResourceStatus"].endswith("_FAILED")
        and event["Timestamp"].timestamp() >= since - 1
        and "cancelled" not in event.get("ResourceStatusReason", "")
    ]
    if not failures:
        stack = cloudformation.describe_stacks(StackName=name)["Stacks"][0]
        return str(stack.get("StackStatusReason", "no reason given"))
    # The list is newest first; a stack's own event tells less than its resource's.
    first = min(
        reversed(failures),
        key=lambda event: event["ResourceType"] == "AWS::CloudFormation::Stack",
    )
    reason = first.get("ResourceStatusReason", "no reason given")
    return f"{first['LogicalResourceId']} ({first['ResourceType']}): {reason}"


def _unfinished(cloudformation: Any, name: str) -> str:
    """Name the resources that are still being worked on."""
    latest: dict[str, str] = {}
    for event in _events(cloudformation, name):
        if event["ResourceType"] != "AWS::CloudFormation::Stack":
            latest.setdefault(event["LogicalResourceId"], event["ResourceStatus"])
    working = [name for name, status in latest.items() if status.endswith("_IN_PROGRESS")]
    return ", ".join(working) or "no resource"
