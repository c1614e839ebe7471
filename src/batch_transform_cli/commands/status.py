"""Show how far a pipeline is behind."""

import dataclasses
import json
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console

from batch_transform_cli.commands.options import AsJson, Endpoint, Pipeline


def status(
    pipeline: Pipeline = None,
    endpoint: Endpoint = None,
    newest: Annotated[int, typer.Option(min=1, help="How many drops and runs to show.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show how far a pipeline is behind, and its drops and runs."""
    from batch_transform_cli.pipeline_client import Cloud, PipelineClient
    from batch_transform_cli.views import overview

    client = PipelineClient.find(Cloud(endpoint), pipeline)
    found = client.status()
    load = client.load(found, now=datetime.now(UTC))
    if as_json:
        told = {"pipeline": client.pipeline_id, "load": dataclasses.asdict(load)}
        print(json.dumps({**told, **dataclasses.asdict(found)}, indent=1))
        return
    outputs = {run.run_id: client.outputs_of(run) for run in found.runs if run.status == "running"}
    console = Console()
    console.print(f"pipeline {client.pipeline_id}", style="bold", highlight=False)
    console.print(overview(found, outputs, load=load, newest=newest))
