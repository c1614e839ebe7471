"""A `docker` for the CDK CLI without a container engine: to build is to register the directory.

The CLI calls what `CDK_DOCKER` names: login, inspect, build, tag, push, images. Building puts the
directory into the cloud's images, so that its `serve` can run as a process, and pushing tells ECR.
"""

import argparse
import hashlib
import json
import shlex
import sys
from pathlib import Path

import boto3

from local_cloud.errors import ImageRefused
from local_cloud.images import Images

_NOT_THERE = 1  # What docker itself returns for an unknown image.


def main(arguments: list[str]) -> int:
    """Run one docker command; returns the exit code."""
    images = Images(Path(arguments[0]))
    command = arguments[1:]
    if command[:1] == ["--config"]:
        command = command[2:]  # Credentials of registries, of which there is none here.
    match command:
        case ["login", *_]:
            sys.stdin.read()
            return 0
        case ["inspect", name]:
            return 0 if name in images else _NOT_THERE
        case ["build", *options]:
            return _build(images, options)
        case ["tag", source, target]:
            images.alias(target, of=source)
            return 0
        case ["push", uri]:
            images.find(uri)
            _tell_ecr(uri)
            return 0
        case ["images", *_]:
            return 0  # None that the CLI did not tag under its full name itself.
    print(
        "docker shim: the command must be login, inspect, build, tag, push or images, got "
        f"{shlex.join(command)}; unset CDK_DOCKER to use a container engine",
        file=sys.stderr,
    )
    return 2


def _build(images: Images, options: list[str]) -> int:
    parser = argparse.ArgumentParser("docker build", allow_abbrev=False)
    parser.add_argument("--tag", required=True)
    # The last argument is the context; what tells how to build a container is left out.
    known, _ = parser.parse_known_args(options[:-1])
    images.register(known.tag, Path(options[-1]))
    return 0


def _tell_ecr(uri: str) -> None:
    """Let ECR know the tag, so that the CLI finds it there and the next deployment skips it."""
    registry, _, rest = uri.partition("/")
    repository, _, tag = rest.rpartition(":")
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {"digest": f"sha256:{hashlib.sha256(uri.encode()).hexdigest()}"},
        "layers": [],
    }
    ecr = boto3.client("ecr", region_name=registry.split(".")[3])
    try:
        ecr.put_image(repositoryName=repository, imageTag=tag, imageManifest=json.dumps(manifest))
    except ecr.exceptions.ImageAlreadyExistsException:
        pass  # Pushed before, with the same content: the tag is its hash.


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except ImageRefused as error:
        print(f"docker shim: {error}", file=sys.stderr)
        sys.exit(2)
