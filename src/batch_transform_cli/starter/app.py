"""The deployable app: the pipelines of pipelines.yaml, in the accounts of accounts.yaml."""

import sys
from pathlib import Path

from aws_cdk import App

from batch_transform import YamlError, define_pipelines


def main() -> None:
    """Synthesize into the folder that the CDK CLI names."""
    app = App()
    try:
        define_pipelines(app, Path(__file__).resolve().parent / "pipelines.yaml")
    except YamlError as refused:
        sys.exit(str(refused))
    app.synth()


if __name__ == "__main__":
    main()
