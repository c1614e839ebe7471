"""What a command says that needs a part which is not installed."""

from batch_transform_cli.errors import CommandError


def not_installed(what: str, error: ImportError) -> CommandError:
    """Say what to install."""
    return CommandError(
        f"{what} must be installed, got no module {error.name}; "
        "pip install 'batch-transform[local]'"
    )
