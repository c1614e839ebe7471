"""Run one transform job on this machine."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from batch_transform_cli.commands.installed import not_installed
from batch_transform_cli.commands.options import AsJson
from batch_transform_cli.errors import Interrupted, JobRefused
from batch_transform_cli.job.request import (
    readings_from,
    readings_help,
    request_from,
    with_member_flags,
)


@with_member_flags
def run(
    *,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WHERE", help="Folder of model files, tar.gz, or s3:// URI of one. Repeatable."
        ),
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FOLDER|IMAGE",
            help="Folder with a program `serve`, or an image of docker or podman. Repeat it, with "
            "--model, for a pipeline of containers.",
        ),
    ] = None,
    model_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Of a model server that runs already."),
    ] = None,
    request: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A CreateTransformJob request in JSON; flags win over it."
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Show what would be read and sent, and what to mend; start nothing."
        ),
    ] = False,
    as_json: AsJson = False,
    log_dir: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Keep the logs of the servers and the agent there."),
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(
            metavar="URL|aws",
            help="Of S3. Default: AWS_ENDPOINT_URL, else the cloud that `up` runs for this "
            "project, else AWS.",
        ),
    ] = None,
    container_engine: Annotated[
        str,
        typer.Option(
            metavar="COMMAND",
            help="docker or podman with its options, and after the word `run` those of each run. "
            "Default: the first that has the image.",
        ),
    ] = "",
    ping_timeout_s: Annotated[
        float | None,
        typer.Option(
            min=1,
            metavar="SECONDS",
            help="How long a model server may take to be ready. Default: 120, and 3 until "
            "--model-url has its port open; 1800 on AWS.",
        ),
    ] = None,
    reading: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help=f"What no source tells about the service. Repeatable. Default: {readings_help()}.",
        ),
    ] = None,
    **members: Any,
) -> None:
    """Run one transform job on this machine; the other flags are CreateTransformJob's members."""
    try:
        from batch_transform_cli.job import run as run_job
    except ImportError as error:
        raise not_installed("the engine", error) from None
    order = run_job.Order(
        request=request_from(request, members),
        models=model or (),
        images=image or (),
        model_url=model_url,
        container_engine=_words("--container-engine", container_engine),
        endpoint=endpoint,
        log_dir=log_dir,
        ping_timeout_s=ping_timeout_s,
        readings=readings_from(reading or ()),
        as_json=as_json,
    )
    try:
        code = run_job.dry_run(order) if dry_run else run_job.run_job(order)
    except KeyboardInterrupt:
        # Before the job has started; then it knows how to stop.
        raise Interrupted("stopped; nothing had started") from None
    raise typer.Exit(code)


def _words(flag: str, text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise JobRefused(
            f"{flag} must be a command as in a shell, got {text!r} ({error}); mend it"
        ) from error
