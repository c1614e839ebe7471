"""Which commands there are; `entry` runs them."""

import typer

from batch_transform_cli.commands.backfill import backfill
from batch_transform_cli.commands.completion import completion
from batch_transform_cli.commands.cost import cost
from batch_transform_cli.commands.doctor import doctor
from batch_transform_cli.commands.drop import drop
from batch_transform_cli.commands.init import init
from batch_transform_cli.commands.logs import logs
from batch_transform_cli.commands.lookup import lookup
from batch_transform_cli.commands.redrive import redrive
from batch_transform_cli.commands.run import run
from batch_transform_cli.commands.runs import runs
from batch_transform_cli.commands.schema import schema
from batch_transform_cli.commands.show import show
from batch_transform_cli.commands.status import status
from batch_transform_cli.commands.stop import stop
from batch_transform_cli.commands.up import up
from batch_transform_cli.commands.validate import validate

commands = typer.Typer(
    help="Drop files in S3, get their predictions, look one up by id.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (
    init,
    doctor,
    validate,
    schema,
    up,
    drop,
    status,
    runs,
    show,
    lookup,
    logs,
    backfill,
    redrive,
    stop,
    run,
    completion,
):
    commands.command()(command)
commands.add_typer(cost, name="cost")
