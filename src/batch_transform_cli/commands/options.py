"""Options that several commands have."""

from typing import Annotated

import typer

Endpoint = Annotated[
    str | None,
    typer.Option(help="URL of a local cloud. Default: AWS_ENDPOINT_URL, else AWS."),
]
Pipeline = Annotated[
    str | None,
    typer.Option(help="Id of the pipeline. Default: the only one that is deployed."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
