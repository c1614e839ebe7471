"""Writes small cloud assemblies by hand, in the form of aws-cdk-lib's."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

ASSETS_BUCKET = "cdk-hnb659fds-assets-${AWS::AccountId}-${AWS::Region}"
IMAGES_REPOSITORY = "cdk-hnb659fds-container-assets-${AWS::AccountId}-${AWS::Region}"
BOOTSTRAP_PARAMETER = "/cdk-bootstrap/hnb659fds/version"
_HERE = "current_account-current_region"


def write_assembly(
    folder: Path,
    stacks: Mapping[str, Mapping[str, Any]],
    *,
    files: Mapping[str, tuple[Path, str, str]] | None = None,
    images: Mapping[str, Path] | None = None,
    depends_on: Mapping[str, Iterable[str]] | None = None,
    environment: str = "aws://unknown-account/unknown-region",
    nested: Iterable[str] = (),
) -> Path:
    """Write `manifest.json`, templates and asset manifests of those stacks.

    :param files: object key to (path, packaging, hash); published before every stack.
    :param images: tag to directory.
    """
    folder.mkdir(parents=True, exist_ok=True)
    account_region = environment.removeprefix("aws://").replace("/", "-")
    destination = _HERE if "unknown" in environment else account_region
    artifacts: dict[str, Any] = {
        name: {"type": "cdk:cloud-assembly", "properties": {"directoryName": name}}
        for name in nested
    }
    for name, template in stacks.items():
        full = {
            "Parameters": {
                "BootstrapVersion": {
                    "Type": "AWS::SSM::Parameter::Value<String>",
                    "Default": BOOTSTRAP_PARAMETER,
                }
            },
            **template,
        }
        (folder / f"{name}.template.json").write_text(json.dumps(full))
        template_key = f"{name}-{hashlib.sha256(json.dumps(full).encode()).hexdigest()}.json"
        template_asset = (Path(f"{name}.template.json"), "file", f"template-{name}")
        manifest = {
            "version": "48.0.0",
            "files": {
                digest: {
                    "source": {"path": str(path), "packaging": packaging},
                    "destinations": {destination: {"bucketName": ASSETS_BUCKET, "objectKey": key}},
                }
                for key, (path, packaging, digest) in {
                    **(files or {}),
                    template_key: template_asset,
                }.items()
            },
            "dockerImages": {
                tag: {
                    "source": {"directory": str(directory)},
                    "destinations": {
                        destination: {"repositoryName": IMAGES_REPOSITORY, "imageTag": tag}
                    },
                }
                for tag, directory in (images or {}).items()
            },
        }
        (folder / f"{name}.assets.json").write_text(json.dumps(manifest))
        artifacts[f"{name}.assets"] = {
            "type": "cdk:asset-manifest",
            "properties": {
                "file": f"{name}.assets.json",
                "requiresBootstrapStackVersion": 6,
                "bootstrapStackVersionSsmParameter": BOOTSTRAP_PARAMETER,
            },
        }
        artifacts[name] = {
            "type": "aws:cloudformation:stack",
            "environment": environment,
            "properties": {
                "templateFile": f"{name}.template.json",
                "stackTemplateAssetObjectUrl": f"s3://{ASSETS_BUCKET}/{template_key}",
                "requiresBootstrapStackVersion": 6,
                "bootstrapStackVersionSsmParameter": BOOTSTRAP_PARAMETER,
                "tags": {"team": "churn"},
            },
            "dependencies": [f"{name}.assets", *(depends_on or {}).get(name, ())],
        }
    content = {"version": "48.0.0", "artifacts": artifacts}
    (folder / "manifest.json").write_text(json.dumps(content))
    (folder / "cdk.out").write_text('{"version":"48.0.0"}')
    return folder


def image_uri(tag: str) -> dict[str, str]:
    """Refer to an image asset as a template does."""
    registry = "${AWS::AccountId}.dkr.ecr.${AWS::Region}.${AWS::URLSuffix}"
    return {"Fn::Sub": f"{registry}/{IMAGES_REPOSITORY}:{tag}"}


def model(tag: str, role: str) -> dict[str, Any]:
    """A template's model whose image is an asset."""
    return {
        "Type": "AWS::SageMaker::Model",
        "Properties": {
            "ExecutionRoleArn": role,
            "PrimaryContainer": {"Image": image_uri(tag), "Environment": {"A": "1"}},
        },
    }
