"""Quick start: CSV files of numbers in, one score for each row out.

In this folder, `batch-transform up` deploys it to a cloud on this machine, and `cdk deploy`
to AWS. Then `batch-transform drop drops --wait` sends what is in `drops/`, which comes out as in
`predictions/`.
"""

from pathlib import Path

from aws_cdk import App, Duration, Stack

from batch_transform import BatchPolicy, BatchTransform, TransformModel, TransformSettings

HERE = Path(__file__).resolve().parent

app = App()
stack = Stack(app, "QuickStart")
BatchTransform(
    stack,
    "Scores",
    model=TransformModel.from_artifact(HERE / "model", HERE.parent / "image"),
    instance_type="ml.m5.large",
    settings=TransformSettings.csv(),
    # So short for a first look only: on AWS every batch waits for minutes until its job starts.
    batch=BatchPolicy(max_wait=Duration.seconds(2)),
)
app.synth()
