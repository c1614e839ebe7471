"""Which model servers a job has, and whether they can be there, before anything starts."""

import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from batch_transform_cli.errors import JobRefused
from batch_transform_cli.job.request import place_uri
from local_cloud.errors import ImageRefused
from local_cloud.images import Image, check_directory
from transform_engine.engines import find_image
from transform_engine.errors import InstanceFailed
from transform_engine.spec import Container


def containers(
    *,
    models: Sequence[str],
    images: Sequence[str],
    url: str | None,
    container_engine: Sequence[str],
    port_limit_s: float,
) -> tuple[Container, ...]:
    """Return a job's containers.

    :param models: a folder, an archive, an `s3://` URI or nothing for each image.
    :param images: a folder with a program `serve`, or an image of the container engine.
    :param container_engine: its command with options; empty is the first that has the image.
    :param url: a server that runs already, instead of images.
    :param port_limit_s: how long that server's port may stay closed.
    :raises JobRefused: there are none, or one cannot be started.
    """
    if url is not None:
        if models or images:
            raise JobRefused(
                "a model must be an --image or a --model-url, got both; a server that runs "
                "already has its model, so leave --model and --image out"
            )
        _wait_for_server(url, port_limit_s)
        return (Container(url=url),)
    if not images:
        raise JobRefused(
            "a model needs a server, got neither --image nor --model-url; name a folder with a "
            "program `serve`, an image, or the URL of a server that runs already"
        )
    if models and len(models) != len(images):
        raise JobRefused(
            f"--model must be given once for each --image, got {len(models)} and {len(images)}; "
            "give --model '' for an image without model files"
        )
    found = []
    for image, model in zip(images, models or [""] * len(images), strict=True):
        data_url = _model_url(model) if model else None
        if _is_folder(image):
            served = Image(image, _folder(image))
            found.append(
                Container(
                    command=tuple(served.command),
                    cwd=str(served.directory),
                    environment=served.environment,
                    model_data_url=data_url,
                )
            )
        else:
            _look_up(image, container_engine)
            found.append(Container(image=image, model_data_url=data_url))
    return tuple(found)


def _is_folder(image: str) -> bool:
    # An image's name starts with a letter or a digit and does not end with a slash.
    return image.startswith((".", "/", "~")) or image.endswith("/") or os.path.isdir(image)


def _folder(image: str) -> Path:
    folder = Path(image).expanduser().absolute()
    try:
        check_directory(folder)
    except ImageRefused as refused:
        raise JobRefused(str(refused)) from refused
    return folder


def _model_url(model: str) -> str:
    if "://" not in model and not Path(model).expanduser().exists():
        raise JobRefused(
            f"--model must be a folder of model files or a tar.gz, got {model!r}, which is not "
            "there; check the path"
        )
    return place_uri(model)


def _look_up(image: str, container_engine: Sequence[str]) -> None:
    try:
        find_image(container_engine, image)
    except InstanceFailed as failure:
        raise JobRefused(
            f"--image must be a folder with a program `serve` or an image, got {image!r}, which is "
            f"no folder; {failure.detail}"
        ) from failure


def _wait_for_server(url: str, limit_s: float) -> None:
    error = wait_for_port(*_address(url), limit_s=limit_s)
    if error is not None:
        raise JobRefused(
            f"a model server must listen at {url}, got {error} for {limit_s:g} s; start it, or "
            "give it --ping-timeout-s to open its port"
        )


def wait_for_port(host: str, port: int, *, limit_s: float) -> OSError | None:
    """Wait until something listens; return what is said if nothing does within its limit."""
    deadline = time.monotonic() + limit_s
    pause_s = 0.05
    while True:
        try:
            socket.create_connection((host, port), timeout=max(limit_s, pause_s)).close()
            return None
        except OSError as error:
            if time.monotonic() + pause_s > deadline:
                return error
        time.sleep(pause_s)
        pause_s = min(1.0, 1.5 * pause_s)


def _address(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        host, port = None, 0
    if not host or parts.scheme != "http" or parts.path.strip("/") or parts.query:
        raise JobRefused(f"--model-url must be http://HOST:PORT, got {url!r}; write it so")
    return host, port
