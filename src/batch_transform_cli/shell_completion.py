"""Completion in shells, by typer's own means, without its options that change a user's files."""

import os

PROGRAM = "batch-transform"
ASKED = "_BATCH_TRANSFORM_COMPLETE"
"""A shell that completes sets this; typer looks for it under this name."""


def is_asked() -> bool:
    """Whether a shell has started this program to know what could follow."""
    return ASKED in os.environ


def script(shell: str) -> str:
    """Return what a shell is to run once, so that it asks."""
    # Typer gives it out by an option alone, which looks for the shell among the processes.
    from typer._completion_shared import get_completion_script

    return get_completion_script(prog_name=PROGRAM, complete_var=ASKED, shell=shell)


def prepare() -> None:
    """Let typer answer a shell."""
    # Typer does it by itself for programs that have its options.
    from typer._completion_classes import completion_init

    completion_init()
