"""Try again what has failed."""

import dataclasses
import json
from datetime import UTC, datetime
from typing import Annotated

import typer

from batch_transform_cli.commands.options import AsJson, Endpoint, Pipeline


def redrive(
    pipeline: Pipeline = None,
    endpoint: Endpoint = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN", help="Only what failed since: 2026-03-01T14:00Z, or 30m, 2h, 7d ago."
        ),
    ] = None,
    key: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help="Only drops of this key. Repeatable.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be tried again; change nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Try failed drops again, and move dead letters back to their queues, when that is mended.

    Each failed drop that is the newest version of its key waits again as if it had just come, and
    costs a transform job as it did before. Dead letters move if neither --since nor --key is given.
    Nothing is deleted, and doing it twice or stopping it anywhere does no harm.
    """
    from rich.console import Console

    from batch_transform_cli.cloud import Cloud
    from batch_transform_cli.moments import moment
    from batch_transform_cli.pipelines.client import PipelineClient
    from batch_transform_cli.pipelines.redrive import choose, requests
    from batch_transform_cli.pipelines.views import redrive_view

    after = None if since is None else moment(since, now=datetime.now(UTC))
    client = PipelineClient.find(Cloud(endpoint), pipeline)
    choice = choose(client.status().drops, since=after, keys=key or ())
    letters = {} if since or key else {queue.what: queue for queue in client.dead_letters()}
    counts = {what: queue.count for what, queue in letters.items()}
    if not dry_run:
        for request in requests(choice.drops):
            client.ask_intake(request)
        counts = {what: client.move_back(queue) for what, queue in letters.items()}
    if as_json:
        told = {
            "pipeline": client.pipeline_id,
            "dry_run": dry_run,
            **dataclasses.asdict(choice),
            "dead_letters": counts,
        }
        print(json.dumps(told, indent=1))
    else:
        Console().print(redrive_view(choice, counts, dry_run=dry_run), highlight=False)
