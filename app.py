"""The deployable app: every pipeline of pipelines.yaml, in every account that it lists."""

import sys
from pathlib import Path

from aws_cdk import App

from batch_transform.pipelines_file import PipelinesFileError, define_pipelines


def main() -> None:
    """Synthesize into the folder that the CDK CLI names."""
    app = App()
    try:
        define_pipelines(app, Path(__file__).resolve().parent / "pipelines.yaml")
    except PipelinesFileError as refused:
        sys.exit(str(refused))
    app.synth()


if __name__ == "__main__":
    main()
