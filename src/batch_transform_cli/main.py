"""The entry point: which commands there are, and how an error ends one."""

import sys
from typing import NoReturn

import typer

from batch_transform_cli.commands.backfill import backfill
from batch_transform_cli.commands.cost import cost
from batch_transform_cli.commands.doctor import doctor
from batch_transform_cli.commands.drop import drop
from batch_transform_cli.commands.init import init
from batch_transform_cli.commands.logs import logs
from batch_transform_cli.commands.lookup import lookup
from batch_transform_cli.commands.redrive import redrive
from batch_transform_cli.commands.run import run
from batch_transform_cli.commands.schema import schema
from batch_transform_cli.commands.status import status
from batch_transform_cli.commands.up import up
from batch_transform_cli.commands.validate import validate
from batch_transform_cli.errors import CommandError

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
    lookup,
    logs,
    backfill,
    redrive,
    run,
):
    commands.command()(command)
commands.add_typer(cost, name="cost")


def app() -> None:
    """Run the command; whatever it cannot do is one line on stderr."""
    try:
        commands()
    except CommandError as error:
        _end(str(error), error.exit_code)
    except Exception as error:
        from batch_transform_cli.pipeline_client import AWS_ERRORS, one_line

        if not isinstance(error, AWS_ERRORS):
            raise
        _end(one_line(error), 1)


def _end(message: str, exit_code: int) -> NoReturn:
    print(f"batch-transform: {message}", file=sys.stderr)
    sys.exit(exit_code)


if __name__ == "__main__":
    app()
