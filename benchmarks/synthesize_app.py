"""A CDK app with so many pipelines: `synthesize_app.py OUTPUT MODEL IMAGE PIPELINES`."""

import json
import sys

_IN_A_STACK = 6  # of 80 resources at most, where a stack may have 500


def main(output: str, model: str, image: str, pipelines: int) -> None:
    """Synthesize the app; with no pipelines it is a stack without resources."""
    # The imports are part of what is measured, and an empty app has no use for the library.
    from aws_cdk import App, Stack

    app = App(outdir=output)
    stack = Stack(app, "Stack0")
    if pipelines:
        from batch_transform import (
            BatchTransform,
            PredictionIndex,
            TransformModel,
            TransformSettings,
        )
    for number in range(pipelines):
        if number and number % _IN_A_STACK == 0:
            stack = Stack(app, f"Stack{number // _IN_A_STACK}")
        BatchTransform(
            stack,
            f"Pipeline{number}",
            model=TransformModel.from_artifact(model, image),
            instance_type="ml.m5.large",
            settings=TransformSettings.csv(),
            index=PredictionIndex(record_id=0),
        )
    app.synth()


if __name__ == "__main__":
    print(json.dumps({"event": "started"}), flush=True)
    output, model, image, pipelines = sys.argv[1:]
    main(output, model, image, int(pipelines))
    print(json.dumps({"event": "ended"}), flush=True)
