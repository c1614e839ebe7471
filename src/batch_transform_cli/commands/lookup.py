"""Print the newest predictions of records."""

import dataclasses
import json
from typing import Annotated

import typer

from batch_transform_cli.commands.options import AsJson, Endpoint, Pipeline
from batch_transform_cli.errors import CommandError


def lookup(
    record_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of the records.")],
    pipeline: Pipeline = None,
    endpoint: Endpoint = None,
    as_json: AsJson = False,
) -> None:
    """Print the newest predictions of records: of one as it is, of several after their ids."""
    from batch_transform_cli.cloud import Cloud
    from batch_transform_cli.pipelines.client import PipelineClient

    client = PipelineClient.find(Cloud(endpoint), pipeline)
    if len(record_ids) == 1:
        looked_up = {record_ids[0]: client.lookup(record_ids[0])}
    else:
        looked_up = client.lookup_many(record_ids)
    found = [prediction for prediction in looked_up.values() if prediction is not None]
    if as_json and found:
        told = [dataclasses.asdict(prediction) for prediction in found]
        print(json.dumps(told[0] if len(record_ids) == 1 else told, indent=1))
    elif not as_json:
        for prediction in found:
            before = "" if len(record_ids) == 1 else f"{prediction.record_id}\t"
            print(f"{before}{_plain(prediction.prediction)}")
    missing = [record_id for record_id, prediction in looked_up.items() if prediction is None]
    if missing:
        raise CommandError(
            f"the id must be that of a scored record, got {', '.join(map(repr, missing))}; "
            "see `batch-transform status` for which files are done"
        )


def _plain(prediction: object) -> str:
    """Return a row as a row, text as text, and all else as JSON."""
    if isinstance(prediction, list) and not any(isinstance(v, list | dict) for v in prediction):
        return ",".join(_plain(value) for value in prediction)
    return prediction if isinstance(prediction, str) else json.dumps(prediction)
