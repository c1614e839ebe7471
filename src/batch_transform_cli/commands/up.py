"""Run the app in a cloud on this machine."""

from pathlib import Path
from typing import Annotated

import typer

from batch_transform_cli.commands.installed import not_installed
from batch_transform_cli.commands.options import AsJson
from batch_transform_cli.errors import BadValue


def up(
    assembly: Annotated[
        Path | None,
        typer.Option(help="Cloud assembly to deploy. Default: synthesize the app of ./cdk.json."),
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of the cloud. Default: a free one.")
    ] = None,
    state_dir: Annotated[
        Path | None, typer.Option(help="Folder that keeps the cloud's data. Default: none does.")
    ] = None,
    ping_timeout_s: Annotated[
        float,
        typer.Option(min=1, help="How long a model server may take to be ready; 1800 on AWS."),
    ] = 120,
    image: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URI=FOLDER",
            help="Run this folder's `serve` for a model whose image is that URI. Repeatable.",
        ),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch/--no-watch", help="Deploy the app anew when it changes.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Run the app in a cloud on this machine, and stay until Ctrl-C.

    Commands in this folder then ask this cloud. A change of the app is deployed to it; the data
    stays. --json prints a document on a line for each thing that happens.
    """
    images = dict(image_folder(text) for text in image or ())
    try:
        from batch_transform_cli.local import session as local_session
        from batch_transform_cli.local import views as local_views
    except ImportError as error:
        raise not_installed("the local cloud", error) from None
    order = local_session.Order(
        project=Path.cwd(),
        assembly=assembly,
        port=port,
        state_dir=state_dir,
        ping_timeout_s=ping_timeout_s,
        images=images,
        watch=watch,
    )
    screen = local_views.Documents() if as_json else local_views.Lines()
    local_session.run(order, screen.say, screen.begin)


def image_folder(text: str) -> tuple[str, Path]:
    """Read an image's URI and the folder that stands for it here.

    :raises BadValue: it is not both.
    """
    uri, equals, folder = text.partition("=")
    if not (uri and equals and folder):
        raise BadValue(
            f"--image must be URI=FOLDER, got {text!r}; name the model's image and the folder "
            "with its `serve`"
        )
    return uri, Path(folder)
