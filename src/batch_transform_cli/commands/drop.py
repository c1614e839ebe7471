"""Send files to a pipeline."""

import json
import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from batch_transform_cli.commands.options import AsJson, Endpoint, Pipeline

if TYPE_CHECKING:
    from batch_transform_cli.pipelines.records import Drop


def drop(
    files: Annotated[list[Path], typer.Argument(metavar="FILE|FOLDER", help="What to score.")],
    pipeline: Pipeline = None,
    endpoint: Endpoint = None,
    prefix: Annotated[
        str | None,
        typer.Option(
            metavar="PREFIX", help="Folder of the keys. Default: the one that is watched."
        ),
    ] = None,
    key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Key of the one file. Default: by its name.")
    ] = None,
    marker: Annotated[
        bool,
        typer.Option("--marker", help="Send the batch's marker after them: what waits is due."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show keys and what they replace; send nothing.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Stay until each has ended; exit 1 if one has failed.")
    ] = False,
    wait_s: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="How long --wait stays.")
    ] = 3600,
    as_json: AsJson = False,
) -> None:
    """Send files to a pipeline, after a check of all of them that it will score them.

    A file's key is the watched prefix and its name; a folder's files keep their paths below it.
    Hidden and empty files of a folder, and those whose names the pipeline does not take, are left
    out. A key that is there is replaced: its new version is scored, the old one no more.
    """
    from rich.console import Console

    from batch_transform_cli.cloud import Cloud
    from batch_transform_cli.drop import steps
    from batch_transform_cli.drop.files import plan
    from batch_transform_cli.drop.views import document, outcome_view, plan_view
    from batch_transform_cli.pipelines.client import PipelineClient

    cloud = Cloud(endpoint)
    client = PipelineClient.find(cloud, pipeline)
    chosen = plan(files, client.watched, prefix=prefix, key=key, marker=marker)
    # A line that is longer than the screen is not broken: what it names is there to be copied.
    show = partial(Console(highlight=False).print, soft_wrap=True)
    there = steps.look(cloud, client, chosen)
    sent = None if dry_run else steps.send(cloud, client, chosen)
    if not as_json and (sent is None or sent.versions):
        show(plan_view(chosen, there, bucket=client.input_bucket, sent=sent))
    problem = None if sent is None else steps.problem(chosen, sent)
    ended: dict[str, Drop | None] = {}
    if wait and sent is not None and problem is None:
        ended, problem = steps.follow(client, chosen, sent, limit_s=wait_s)
        if not as_json:
            show(outcome_view(ended, bucket=client.output_bucket))
    if as_json:
        told = {"pipeline": client.pipeline_id, "bucket": client.input_bucket, "dry_run": dry_run}
        drops = document(chosen, there, sent, ended, output_bucket=client.output_bucket)
        print(json.dumps({**told, **drops}, indent=1))
    if problem is not None:
        raise problem
    if sent is not None and not as_json:
        for line in steps.next_commands(client, chosen, options=_again(pipeline, endpoint)):
            show(line)


def _again(pipeline: str | None, endpoint: str | None) -> str:
    """Return the options that another command needs to find the same pipeline."""
    options = {"--pipeline": pipeline, "--endpoint": endpoint}
    return "".join(f" {flag} {shlex.quote(text)}" for flag, text in options.items() if text)
