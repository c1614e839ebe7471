"""Options that several commands have."""

from typing import Annotated

import typer

Endpoint = Annotated[
    str | None,
    typer.Option(
        metavar="URL|aws",
        help="Local cloud, or aws. Default: AWS_ENDPOINT_URL, else the cloud that `up` runs for "
        "this project, else AWS.",
    ),
]
Pipeline = Annotated[
    str | None,
    typer.Option(help="Id of the pipeline. Default: the only one that is deployed."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
