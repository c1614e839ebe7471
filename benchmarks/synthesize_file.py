"""A CDK app of a file of pipelines: `synthesize_file.py OUTPUT [FILE]`; without one it is empty."""

import json
import sys
from pathlib import Path


def main(output: str, file: str | None) -> None:
    """Synthesize the app; without a file it is a stack without resources."""
    # The imports are part of what is measured, and an empty app has no use for the library.
    from aws_cdk import App, Stack

    app = App(outdir=output)
    if file is None:
        Stack(app, "Stack")
    else:
        from batch_transform import define_pipelines

        define_pipelines(app, Path(file))
    app.synth()


if __name__ == "__main__":
    print(json.dumps({"event": "started"}), flush=True)
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
    print(json.dumps({"event": "ended"}), flush=True)
