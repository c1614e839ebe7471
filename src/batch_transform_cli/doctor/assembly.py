"""The stacks of a cloud assembly, with those of its stages."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batch_transform_cli.errors import CommandError

_UNKNOWN = ("unknown-account", "unknown-region")


@dataclass(frozen=True, kw_only=True, slots=True)
class AppStack:
    """One stack as it was synthesized.

    :ivar account: `None` for whoever deploys it, as with `region`.
    :ivar bootstrap_parameter: where the bootstrap's version is; `None` if none is needed.
    :ivar bootstrap_version: the oldest that will do.
    :ivar files: bucket and key of what a deployment uploads first, with CloudFormation's variables.
    :ivar images: repository and tag of what it builds and pushes, and whether its folder has a
        program `serve`, which a local cloud runs without a container engine.
    """

    name: str
    display_name: str
    account: str | None
    region: str | None
    template: Mapping[str, Any]
    bootstrap_parameter: str | None = None
    bootstrap_version: int = 0
    files: tuple[tuple[str, str], ...] = ()
    images: tuple[tuple[str, str, bool], ...] = ()


def read_assembly(folder: Path) -> list[AppStack]:
    """Return the stacks of a cloud assembly.

    :raises CommandError: there is none.
    """
    try:
        return list(_stacks(folder))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CommandError(
            f"the assembly must be what `cdk synth` writes, got {folder} "
            f"({type(error).__name__}: {error}); name the folder that has manifest.json"
        ) from error


def _stacks(folder: Path) -> Iterator[AppStack]:
    artifacts = _read(folder / "manifest.json").get("artifacts", {})
    for artifact_id, artifact in artifacts.items():
        properties = artifact.get("properties", {})
        if artifact["type"] == "cdk:cloud-assembly":
            yield from _stacks(folder / properties["directoryName"])
        elif artifact["type"] == "aws:cloudformation:stack":
            account, region = artifact["environment"].removeprefix("aws://").split("/")
            assets = [
                _read(folder / artifacts[other]["properties"]["file"])
                for other in artifact.get("dependencies", [])
                if artifacts[other]["type"] == "cdk:asset-manifest"
            ]
            yield AppStack(
                name=properties.get("stackName", artifact_id),
                display_name=artifact.get("displayName", artifact_id),
                account=None if account in _UNKNOWN else account,
                region=None if region in _UNKNOWN else region,
                template=_read(folder / properties["templateFile"]),
                bootstrap_parameter=properties.get("bootstrapStackVersionSsmParameter"),
                bootstrap_version=properties.get("requiresBootstrapStackVersion", 0),
                files=tuple(
                    (destination["bucketName"], destination["objectKey"])
                    for manifest in assets
                    for asset in manifest.get("files", {}).values()
                    for destination in asset["destinations"].values()
                ),
                images=tuple(
                    (
                        destination["repositoryName"],
                        destination["imageTag"],
                        _serves(folder, asset["source"]),
                    )
                    for manifest in assets
                    for asset in manifest.get("dockerImages", {}).values()
                    for destination in asset["destinations"].values()
                ),
            )


def _serves(assembly: Path, source: Mapping[str, Any]) -> bool:
    return os.access(assembly / source.get("directory", "") / "serve", os.X_OK)


def _read(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))
