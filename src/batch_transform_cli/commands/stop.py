"""Stop a run in flight."""

import json
import sys
from collections.abc import Iterable
from typing import Annotated

import typer

from batch_transform_cli.commands.options import AsJson, Endpoint, Pipeline
from batch_transform_cli.errors import CommandError, Interrupted, NothingTried


def stop(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="Id of the run, from `runs`.")],
    pipeline: Pipeline = None,
    endpoint: Endpoint = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Stop a run in flight, whose drops then wait for another one.

    Its execution is aborted and its transform job stopped, which leaves no output. Its drops wait
    again, which counts as one of their attempts.
    """
    from batch_transform_cli.cloud import Cloud
    from batch_transform_cli.pipelines import stopping
    from batch_transform_cli.pipelines.client import PipelineClient

    cloud = Cloud(endpoint)
    client = PipelineClient.find(cloud, pipeline, run_id=run_id)
    planned = stopping.plan(cloud, client, run_id)
    if not yes:
        _confirm(planned.lines())
    stopping.stop(cloud, planned)
    if as_json:
        print(json.dumps(planned.to_dict(), indent=1))
    else:
        print(
            f"stopped {run_id}; what becomes of its drops: "
            f"batch-transform show {run_id} --pipeline {client.pipeline_id}"
        )


def _confirm(does: Iterable[str]) -> None:
    from rich.console import Console

    stderr = Console(stderr=True)
    for line in does:
        stderr.print(line, markup=False, highlight=False, soft_wrap=not stderr.is_terminal)
    if not sys.stdin.isatty():
        raise NothingTried(
            "--yes must be given where nobody can be asked, got none; nothing was stopped"
        )
    try:
        agreed = typer.confirm("stop it?", err=True)
    except typer.Abort:
        print(file=sys.stderr)  # the line with ^C has no end
        raise Interrupted("nothing was stopped") from None
    if not agreed:
        raise CommandError("nothing was stopped")
