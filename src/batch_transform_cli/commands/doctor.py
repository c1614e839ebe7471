"""Look whether an app can be deployed, and run."""

import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from batch_transform_cli.commands.options import AsJson, Endpoint
from batch_transform_cli.errors import Interrupted, SynthesisFailed

if TYPE_CHECKING:
    from batch_transform_cli.doctor.assembly import AppStack
    from batch_transform_cli.doctor.findings import Finding


def doctor(
    assembly: Annotated[
        Path | None,
        typer.Option(help="Cloud assembly to look at. Default: synthesize the app of ./cdk.json."),
    ] = None,
    endpoint: Endpoint = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on warnings, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Look whether all is there that the app needs, in AWS or a local cloud; change nothing."""
    from rich.console import Console

    from batch_transform_cli.doctor.examination import examine
    from batch_transform_cli.doctor.view import document, show

    try:
        with Console(stderr=True).status("reading the app") as status:
            stacks, before = _app(assembly)
            status.update("looking at accounts and regions")
            report = examine(stacks, endpoint, before)
    except KeyboardInterrupt:
        raise Interrupted("stopped; nothing was changed") from None
    if as_json:
        print(json.dumps(document(report), indent=1))
    else:
        show(report, Console())
    if report.count("fail") or (strict and report.count("warn")):
        sys.exit(1)


def _app(assembly: Path | None) -> "tuple[list[AppStack], list[Finding]]":
    """Return the stacks of the app, and what is to be said of it."""
    from batch_transform_cli.doctor.assembly import read_assembly
    from batch_transform_cli.doctor.findings import fail, ok, skipped
    from batch_transform_cli.screen import counted
    from batch_transform_cli.synthesis import synthesize

    if assembly is not None:
        stacks = read_assembly(assembly)
    elif not Path("cdk.json").is_file():
        fix = "go to the app's folder, or pass --assembly, to have what it needs looked at"
        return [], [skipped("app", "no cdk.json is in this folder", fix)]
    else:
        with tempfile.TemporaryDirectory() as folder:
            try:
                synthesize(Path.cwd(), Path(folder))
            except SynthesisFailed as refused:
                what, _, fix = str(refused).rpartition("; ")
                return [], [fail("app", what, fix)]
            stacks = read_assembly(Path(folder))
    return stacks, [ok("app", counted(len(stacks), "stack"))]
