"""Compressed JSON Lines: the service unpacks them, the model sees one member, ids are kept.

A line `{"id": "r1", "text": "great room, great view"}` reaches the model as the text alone, and
comes out as `{"SageMakerOutput":2,"id":"r1"}`, of which the index keeps the score under the id.
Outputs are not compressed.
"""

from pathlib import Path

from aws_cdk import App, Duration, Stack

from batch_transform import (
    BatchPolicy,
    BatchTransform,
    PredictionIndex,
    TransformModel,
    TransformSettings,
    Uploads,
)

HERE = Path(__file__).resolve().parent

app = App()
stack = Stack(app, "GzipJsonLines")
BatchTransform(
    stack,
    "Reviews",
    model=TransformModel.from_artifact(HERE / "model", HERE.parent / "image"),
    instance_type="ml.m5.large",
    settings=TransformSettings.json_lines(id_member="id", input_filter="$.text", gzip=True),
    index=PredictionIndex(record_id="id", value="SageMakerOutput"),
    uploads=Uploads(suffix=".jsonl.gz"),
    batch=BatchPolicy(max_wait=Duration.seconds(2)),  # as short for a first look only
)
app.synth()
