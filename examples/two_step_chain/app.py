"""Two steps: rows become features in one transform job, features become scores in the next.

Each step has a model, machines and settings of its own. What the first writes lies under the run's
own prefix, where it expires; the second reads exactly that. A file that the first step loses is
reported with the step's name, and does not hold up the others.
"""

from pathlib import Path

from aws_cdk import App, Duration, Stack

from batch_transform import (
    BatchPolicy,
    BatchTransform,
    TransformModel,
    TransformSettings,
    TransformStep,
)

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parent

app = App()
stack = Stack(app, "TwoStepChain")
prepare = TransformStep(
    name="prepare",
    model=TransformModel.from_artifact(HERE / "prepare", EXAMPLES / "image"),
    instance_type="ml.c5.xlarge",
    settings=TransformSettings.csv(),
)
score = TransformStep(
    name="score",
    model=TransformModel.from_artifact(EXAMPLES / "quick_start" / "model", EXAMPLES / "image"),
    # The second is taken when there is no capacity for the first.
    instance_type=["ml.m5.large", "ml.m5.xlarge"],
    settings=TransformSettings.csv(id_column=0),
)
BatchTransform(
    stack,
    "Churn",
    steps=[prepare, score],
    batch=BatchPolicy(max_wait=Duration.seconds(2)),  # as short for a first look only
)
app.synth()
