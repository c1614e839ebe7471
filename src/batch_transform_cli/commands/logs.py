"""Print what was logged in a run."""

import dataclasses
import json
from typing import Annotated

import typer

from batch_transform_cli.commands.options import AsJson, Endpoint, Pipeline
from batch_transform_cli.errors import CommandError


def logs(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="Id of the run, from `runs`.")],
    pipeline: Pipeline = None,
    endpoint: Endpoint = None,
    newest: Annotated[int, typer.Option(min=1, help="How many lines to show.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Print what the model server and the agent said in a run's transform jobs."""
    from batch_transform_cli.cloud import Cloud
    from batch_transform_cli.pipelines.client import PipelineClient
    from batch_transform_cli.screen import printable

    client = PipelineClient.find(Cloud(endpoint), pipeline, run_id=run_id)
    lines = client.log_lines(run_id, newest=newest)
    if not lines:
        raise CommandError(
            f"the run must have a transform job that logged something, got none for {run_id!r}; "
            "see `batch-transform runs`"
        )
    if as_json:
        told = [dataclasses.asdict(line) for line in lines]
        print(
            json.dumps({"pipeline": client.pipeline_id, "run_id": run_id, "lines": told}, indent=1)
        )
        return
    for line in lines:
        print(printable(line.message.expandtabs()))
