"""Score what lies in the input bucket already."""

import json
from typing import Annotated

import typer

from batch_transform_cli.commands.options import AsJson, Endpoint, Pipeline


def backfill(
    prefix: Annotated[
        str | None, typer.Argument(help="Prefix of keys, or one key. Default: all.")
    ] = None,
    pipeline: Pipeline = None,
    endpoint: Endpoint = None,
    as_json: AsJson = False,
) -> None:
    """Score what lies in the input bucket already, but for what the pipeline knows."""
    from batch_transform_cli.cloud import Cloud
    from batch_transform_cli.pipelines.client import PipelineClient

    client = PipelineClient.find(Cloud(endpoint), pipeline)
    asked = client.backfill(prefix)
    if as_json:
        print(
            json.dumps(
                {"pipeline": client.pipeline_id, "asked": f"s3://{client.input_bucket}/{asked}"}
            )
        )
        return
    print(
        f"asked to score what lies under s3://{client.input_bucket}/{asked}; "
        "see `batch-transform status`"
    )
