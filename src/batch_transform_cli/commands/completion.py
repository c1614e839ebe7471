"""Print what completes commands in a shell."""

from enum import StrEnum
from typing import Annotated

import typer


class Shell(StrEnum):
    """A shell that can complete."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(
    shell: Annotated[Shell, typer.Argument(help="The shell that is to complete.")],
) -> None:
    """Print what lets a shell complete commands, options and values: source <(batch-transform ...).

    In bash: `source <(batch-transform completion bash)`, in ~/.bashrc to have it always.
    """
    from batch_transform_cli.shell_completion import script

    print(script(shell))
