"""Show what transform jobs cost."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from batch_transform_cli.commands.options import AsJson, Endpoint
from batch_transform_cli.errors import BadValue
from batch_transform_cli.job.request import completing
from transform_request import INSTANCE_TYPES

if TYPE_CHECKING:
    from batch_transform_cli.cost.prices import Prices

PricesFile = Annotated[
    Path | None,
    typer.Option(
        "--prices",
        metavar="FILE",
        help="What you pay, in YAML or JSON; `cost prices` makes one. Default: hours alone.",
    ),
]

cost = typer.Typer(rich_markup_mode=None)


@cost.callback(invoke_without_command=True)
def used(
    context: typer.Context,
    pipeline: Annotated[
        str | None, typer.Option(help="Id of the pipeline. Default: all, a row each.")
    ] = None,
    endpoint: Endpoint = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN",
            help="Runs that began since: 2026-03-01T14:00Z, or 12h, 7d ago. Default: 30 days "
            "before the end.",
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Runs that began before. Default: now.")
    ] = None,
    month: Annotated[
        str | None, typer.Option(metavar="YYYY-MM", help="Runs that began in this month, in UTC.")
    ] = None,
    prices: PricesFile = None,
    as_json: AsJson = False,
) -> None:
    """Show the instance-hours of runs and, with --prices, what they cost.

    Hours are those of the runs' reports; calls of other services are counted by measured averages.
    `cost estimate` tells before a deployment, `cost prices` asks AWS what instances cost.
    """
    if context.invoked_subcommand is not None:
        given = [pipeline, endpoint, since, until, month, prices, as_json or None]
        if any(value is not None for value in given):
            raise BadValue(
                f"options must stand behind `cost {context.invoked_subcommand}`, got some before "
                "it; move them"
            )
        return
    from rich.console import Console

    from batch_transform_cli.cloud import Cloud
    from batch_transform_cli.cost.sums import period, usage_document, usage_notes, usage_of
    from batch_transform_cli.cost.views import usage_view
    from batch_transform_cli.pipelines.client import PipelineClient

    now = datetime.now(UTC)
    of = period(since, until, month, now=now)
    known = _prices(prices)
    cloud = Cloud(endpoint)
    clients = PipelineClient.find_all(cloud, pipeline)
    usages = {client.pipeline_id: usage_of(client, of, now=now) for client in clients}
    notes = usage_notes(usages, of, known, region=cloud.session.region_name)
    if as_json:
        print(json.dumps(usage_document(usages, of, known, notes), indent=1))
    else:
        Console(highlight=False).print(usage_view(usages, known, notes))


@cost.command()
def estimate(
    instance_type: Annotated[
        str,
        typer.Option(
            metavar="TYPE", help="Such as ml.m5.large.", autocompletion=completing(INSTANCE_TYPES)
        ),
    ],
    size: Annotated[
        str | None, typer.Option("--bytes", metavar="SIZE", help="Of the input, such as 20GB.")
    ] = None,
    input_place: Annotated[
        str | None,
        typer.Option("--input", metavar="PLACE", help="File, folder or s3:// prefix to measure."),
    ] = None,
    objects: Annotated[
        int | None, typer.Option(min=1, help="How many objects --bytes are. Default: unknown.")
    ] = None,
    rate: Annotated[
        str | None, typer.Option(metavar="MB/S", help="What one instance reads in a second.")
    ] = None,
    job: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="What `batch-transform run --json` printed: the rate it had."
        ),
    ] = None,
    instance_count: Annotated[
        int, typer.Option(min=1, max=10_000, help="Instances of each job.")
    ] = 1,
    jobs: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Over how many jobs it is spread.")
    ] = 1,
    speedup: Annotated[
        str,
        typer.Option(metavar="FACTOR", help="How many times as fast as here an instance is there."),
    ] = "1",
    start_s: Annotated[
        str | None,
        typer.Option(
            metavar="SECONDS",
            help="What each job bills before it scores. Default: as measured by --job, else 30.",
        ),
    ] = None,
    prices: PricesFile = None,
    endpoint: Endpoint = None,
    as_json: AsJson = False,
) -> None:
    """Estimate instance-hours before a deployment, from the input's size and a measured rate."""
    from rich.console import Console

    from batch_transform_cli.cost.estimate import (
        DEFAULT_START_S,
        Estimate,
        Input,
        given_rate,
        input_at,
        measured_rate,
        positive,
        size_in_bytes,
    )
    from batch_transform_cli.cost.sums import Bill, estimate_document, estimate_notes
    from batch_transform_cli.cost.views import bill_view

    _one_of({"--bytes": size, "--input": input_place})
    _one_of({"--rate": rate, "--job": job})
    if not instance_type.startswith("ml."):
        raise BadValue(
            f"--instance-type must be of SageMaker, such as ml.m5.large, got {instance_type!r}; "
            "correct it"
        )
    if input_place is not None and objects is not None:
        raise BadValue("--objects must stand with --bytes, got it with --input; leave it out")
    known = _prices(prices)
    found_rate = given_rate(rate) if rate is not None else measured_rate(job or Path())
    start = (
        positive(start_s, option="--start-s", zero=True)
        if start_s is not None
        else found_rate.start_s
    )
    asked = Estimate(
        input=(
            Input(total_bytes=size_in_bytes(size, option="--bytes"), objects=objects)
            if size is not None
            else input_at(input_place or "", s3=lambda: _s3(endpoint))
        ),
        rate=found_rate,
        instance_type=instance_type,
        instance_count=instance_count,
        jobs=jobs,
        speedup=positive(speedup, option="--speedup"),
        start_s=DEFAULT_START_S if start is None else start,
    )
    seconds = {instance_type: asked.instance_seconds}
    bill = Bill(seconds=seconds, calls=asked.calls, prices=known)
    notes = estimate_notes(asked, bill)
    if as_json:
        print(json.dumps(estimate_document(asked, bill, notes), indent=1))
    else:
        Console(highlight=False).print(bill_view(bill, jobs={instance_type: jobs}, notes=notes))


@cost.command(name="prices")
def ask_prices(
    region: Annotated[
        str | None, typer.Option(help="Of the instances. Default: that of your AWS environment.")
    ] = None,
    instance_type: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TYPE",
            help="Repeatable. Default: all that a transform job can have.",
            autocompletion=completing(INSTANCE_TYPES),
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Its prices of instances become these; others stay, comments do not. Default: "
            "print them.",
        ),
    ] = None,
) -> None:
    """Ask AWS's Price List API what transform jobs' instances cost, and write a file of prices."""
    from batch_transform_cli.cost.price_list import instance_prices, price_list
    from batch_transform_cli.cost.prices import fill, written

    pricing, region = price_list(region)
    found = instance_prices(pricing, region=region, instance_types=instance_type or ())
    if output is None:
        print(written(found), end="")
    else:
        print(f"{output}: {fill(output, found)} instance types, {found.currency}, {region}")


def _prices(path: Path | None) -> "Prices | None":
    if path is None:
        return None
    from batch_transform_cli.cost.prices import load_prices

    return load_prices(path)


def _s3(endpoint: str | None) -> Any:
    from batch_transform_cli.cloud import Cloud

    return Cloud(endpoint).client("s3")


def _one_of(options: dict[str, object]) -> None:
    given = [name for name, value in options.items() if value is not None]
    if len(given) != 1:
        raise BadValue(
            f"one of {' and '.join(options)} must be given, got {'both' if given else 'neither'}; "
            f"{'leave one out' if given else 'add one'}"
        )
