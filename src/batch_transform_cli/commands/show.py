"""Show one run or one key."""

import json
from datetime import UTC, datetime
from typing import Annotated

import typer

from batch_transform_cli.commands.options import AsJson, Endpoint, Pipeline


def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="RUN|KEY", help="Id of a run, or key of a drop in the input bucket."
        ),
    ],
    pipeline: Pipeline = None,
    endpoint: Endpoint = None,
    is_key: Annotated[
        bool, typer.Option("--key", help="It is a key, even if a run is called so.")
    ] = False,
    newest: Annotated[int, typer.Option(min=1, help="How many drops to show.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show all there is to know of a run, or of a key and what to do about it."""
    from batch_transform_cli.cloud import Cloud
    from batch_transform_cli.pipelines.client import PipelineClient
    from batch_transform_cli.pipelines.detail_views import key_view, run_view
    from batch_transform_cli.pipelines.details import RunDetails, find
    from batch_transform_cli.screen import console

    cloud = Cloud(endpoint)
    client = PipelineClient.find(cloud, pipeline, run_id=name)
    found = find(cloud, client, name, is_key=is_key)
    if as_json:
        print(json.dumps(found.to_dict(), indent=1))
    elif isinstance(found, RunDetails):
        console().print(run_view(found, newest, now=datetime.now(UTC)), highlight=False)
    else:
        console().print(key_view(found, newest), highlight=False)
