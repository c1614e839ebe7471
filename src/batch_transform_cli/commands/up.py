"""Run the app in a cloud on this machine."""

import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from batch_transform_cli.commands.installed import not_installed
from batch_transform_cli.errors import BadValue, CommandError
from batch_transform_cli.synthesis import synthesize

if TYPE_CHECKING:
    from batch_transform_cli.project_cloud import Place


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
) -> None:
    """Start a cloud on this machine, deploy the app to it, and stay until Ctrl-C."""
    images = [image_folder(text) for text in image or ()]
    try:
        from local_cloud import LocalCloud, LocalCloudError
    except ImportError as error:
        raise not_installed("the local cloud", error) from None
    from batch_transform_cli.project_cloud import claimed

    try:
        with claimed(Path.cwd()) as claim, tempfile.TemporaryDirectory() as folder:
            if assembly is None:
                assembly = Path(folder)
                synthesize(Path.cwd(), assembly)
            with LocalCloud(port=port, state_dir=state_dir, ping_timeout_s=ping_timeout_s) as cloud:
                claim.announce(cloud.endpoint)
                for uri, directory in images:
                    cloud.images.register(uri, directory)
                outputs = cloud.deploy(assembly)
                print(f"local cloud at {cloud.endpoint} (Ctrl-C ends it)")
                for stack, values in outputs.items():
                    for name, value in values.items():
                        print(f"{stack}.{name} = {value}")
                places = places_of(outputs)
                claim.announce(cloud.endpoint, places)
                for line in hints(places):
                    print(line, flush=True)
                while True:
                    time.sleep(1)
                    cloud.check()
    except LocalCloudError as error:
        raise CommandError(str(error)) from error
    except KeyboardInterrupt:
        print("stopped; nothing is left running", file=sys.stderr)


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


def places_of(outputs: Mapping[str, Mapping[str, str]]) -> "list[Place]":
    """Return each account and region that has a pipeline."""
    from batch_transform_cli.project_cloud import Place

    arns = [value for values in outputs.values() for value in values.values()]
    return [
        *dict.fromkeys(
            Place(account=arn.split(":")[4], region=arn.split(":")[3])
            for arn in arns
            if ":stateMachine:" in arn
        )
    ]


def hints(places: "Sequence[Place]") -> list[str]:
    """Return the command to try in each account and region that has a pipeline."""
    if len(places) == 1:
        return ["try: batch-transform status"]
    return [
        f"try: AWS_ACCESS_KEY_ID={account} AWS_REGION={region} batch-transform status"
        for account, region in places
    ]
