"""Check files of pipelines and of accounts."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from batch_transform_cli.commands.options import AsJson


def validate(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILES",
            help="Files of pipelines, and one of accounts. Default: pipelines.yaml, with "
            "accounts.yaml beside it if it is there.",
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on warnings, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check files of pipelines and of accounts, without an account and without a synthesis."""
    from batch_transform_cli.validation import PIPELINES_FILE, validate_files

    found = validate_files(files or [PIPELINES_FILE])
    if as_json:
        told = [
            *(dataclasses.asdict(problem) for problem in found.problems),
            *(
                {**dataclasses.asdict(problem), "warning": warning}
                for problem, warning in found.warnings.items()
            ),
        ]
        print(json.dumps(told, indent=1))
    else:
        for sentence in found.valid:
            print(sentence)
        for problem in found.problems:
            print(problem, file=sys.stderr)
        for problem, warning in found.warnings.items():
            print(f"{problem} (warning {warning})", file=sys.stderr)
    if found.problems or (strict and found.warnings):
        sys.exit(1)
