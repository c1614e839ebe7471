"""`python -m batch_transform_cli` is `batch-transform`."""

from batch_transform_cli.entry import app

if __name__ == "__main__":
    app()
