"""A model of two containers: each request passes both on one machine, with no job in between.

The first takes markup out of a text, the second scores what is left. One record a request, since
two containers that take several at a time have to agree on how their answers are cut.
"""

from dataclasses import replace
from pathlib import Path

from aws_cdk import App, Duration, Stack

from batch_transform import (
    BatchPolicy,
    BatchStrategy,
    BatchTransform,
    ModelContainer,
    TransformModel,
    TransformSettings,
)

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parent

app = App()
stack = Stack(app, "TwoContainerModel")
clean = ModelContainer(image=EXAMPLES / "image", artifact=HERE / "clean", hostname="clean")
score = ModelContainer(
    image=EXAMPLES / "image", artifact=EXAMPLES / "gzip_json_lines" / "model", hostname="score"
)
BatchTransform(
    stack,
    "Reviews",
    model=TransformModel.pipeline([clean, score]),
    instance_type="ml.m5.large",
    settings=replace(
        TransformSettings.json_lines(id_member="id", input_filter="$.text"),
        batch_strategy=BatchStrategy.SINGLE_RECORD,
        max_concurrent_transforms=4,
    ),
    batch=BatchPolicy(max_wait=Duration.seconds(2)),  # as short for a first look only
)
app.synth()
