"""CSV with an id: predictions that carry the id, and an HTTP API that finds them by it.

The model does not see the id in the first column; an output row is the id and the score. When the
predictions of `drops/` are there,

    batch-transform lookup C-1002

asks the API for one, signed with the caller's AWS credentials. `pipeline.grants.lookup(role)` lets
an application do the same.
"""

from pathlib import Path

from aws_cdk import App, Duration, Stack

from batch_transform import (
    BatchPolicy,
    BatchTransform,
    PredictionIndex,
    TransformModel,
    TransformSettings,
)

EXAMPLES = Path(__file__).resolve().parents[1]

app = App()
stack = Stack(app, "CsvJoinLookup")
BatchTransform(
    stack,
    "Churn",
    model=TransformModel.from_artifact(EXAMPLES / "quick_start" / "model", EXAMPLES / "image"),
    instance_type="ml.m5.large",
    settings=TransformSettings.csv(id_column=0),
    index=PredictionIndex(record_id=0, value=-1, retention=Duration.days(90)),
    batch=BatchPolicy(max_wait=Duration.seconds(2)),  # as short for a first look only
)
app.synth()
