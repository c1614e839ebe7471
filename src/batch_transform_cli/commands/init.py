"""Write a starter project."""

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from batch_transform_cli.commands.options import AsJson


def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="New, or empty.")],
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of the pipeline. Default: the folder's, in one word."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a project to begin with: an app, its pipeline in YAML, a model, a file, tests.

    It runs on this machine and passes its tests as it is.
    """
    from batch_transform_cli.screen import counted, printable
    from batch_transform_cli.starter_project import write

    written = write(folder, name)
    if as_json:
        print(json.dumps({**dataclasses.asdict(written), "folder": str(folder)}, indent=1))
        return
    print(f"wrote {counted(len(written.files), 'file')} to {printable(str(folder))}")
    print(f"the pipeline {written.pipeline} is in pipelines.yaml; README.md says what is where")
    print()
    print(f"next: cd {shlex.quote(str(folder))}")
    print("      batch-transform up                              # stays; so in another terminal:")
    print("      batch-transform drop data/customers.csv --wait")
    print("      batch-transform lookup C-1002")
