"""Show the runs of a pipeline."""

import dataclasses
import json
from datetime import UTC, datetime
from typing import Annotated

import typer

from batch_transform_cli.commands.options import AsJson, Endpoint, Pipeline
from batch_transform_cli.pipelines.runs import Outcome, narrowed


def runs(
    pipeline: Pipeline = None,
    endpoint: Endpoint = None,
    newest: Annotated[int, typer.Option(min=1, help="How many runs to show.")] = 20,
    outcome: Annotated[
        list[Outcome] | None,
        typer.Option(
            case_sensitive=False, help="Only runs that ended so; none: not settled. Repeatable."
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN", help="Only what began since: 2026-03-01T14:00Z, or 30m, 2h, 7d ago."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show a pipeline's runs: what became of their drops, when, and how long it took.

    It reads the whole ledger once.
    """
    from batch_transform_cli.cloud import Cloud
    from batch_transform_cli.moments import moment
    from batch_transform_cli.pipelines.client import PipelineClient
    from batch_transform_cli.pipelines.views import runs_view
    from batch_transform_cli.screen import console

    now = datetime.now(UTC)
    after = None if since is None else moment(since, now=now)
    client = PipelineClient.find(Cloud(endpoint), pipeline)
    found = narrowed(client.runs(), outcomes=outcome or (), since=after)
    if as_json:
        told = [
            {**dataclasses.asdict(run), "took_s": run.took_s(now) if run.ended_at else None}
            for run in found[-newest:]
        ]
        print(json.dumps({"pipeline": client.pipeline_id, "runs": told}, indent=1))
    else:
        console().print(runs_view(found, newest, now=now), highlight=False)
