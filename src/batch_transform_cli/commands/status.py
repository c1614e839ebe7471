"""Show how far pipelines are behind."""

import json
from datetime import UTC, datetime
from typing import Annotated

import typer

from batch_transform_cli.commands.options import AsJson, Endpoint, Pipeline
from batch_transform_cli.errors import CommandError, Interrupted, NothingTried

_INTERVAL_S = 5.0


def status(
    pipeline: Pipeline = None,
    endpoint: Endpoint = None,
    newest: Annotated[int, typer.Option(min=1, help="How many drops and runs to show.")] = 20,
    every: Annotated[
        bool, typer.Option("--all", help="A row for each pipeline, also if there is only one.")
    ] = False,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Stay and show what changes, until Ctrl-C. Reads on and on."),
    ] = False,
    interval: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="Between two looks, with --watch.")
    ] = _INTERVAL_S,
    as_json: AsJson = False,
) -> None:
    """Show how far a pipeline is behind, and its drops and runs; of several, a row for each.

    Each look reads the whole ledger of each pipeline.
    """
    if every and pipeline is not None:
        raise NothingTried(
            f"--all must stand without --pipeline, got {pipeline}; leave one of them out"
        )
    if watch and as_json:
        raise NothingTried(
            "--json must stand without --watch, got both; call `batch-transform status --json` "
            "as often as you need it"
        )
    from batch_transform_cli.cloud import Cloud
    from batch_transform_cli.pipelines.client import PipelineClient
    from batch_transform_cli.pipelines.snapshots import (
        Seen,
        Snapshot,
        Unreadable,
        document,
        look_at_all,
    )
    from batch_transform_cli.pipelines.status_views import follow, picture
    from batch_transform_cli.screen import console

    cloud = Cloud(endpoint)
    clients = PipelineClient.find_all(cloud, pipeline)
    rows = every or len(clients) > 1

    def look() -> Seen:
        return look_at_all(cloud, clients) if rows else [Snapshot.of(clients[0])]

    if watch:
        try:
            follow(look, console(), rows=rows, newest=newest, interval_s=interval, say=_say)
        except KeyboardInterrupt:
            raise Interrupted("no longer watching; the pipelines go on") from None
    seen = look()
    if as_json:
        print(json.dumps(document(seen, rows=rows), indent=1))
    else:
        console().print(picture(seen, newest, rows=rows), highlight=False)
    unreadable = [each.pipeline_id for each in seen if isinstance(each, Unreadable)]
    if unreadable:
        raise CommandError(
            f"every pipeline must be readable, got {', '.join(unreadable)}, which cannot be read; "
            "name one of the others with --pipeline"
        )


def _say(line: str) -> None:
    print(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {line}", flush=True)
