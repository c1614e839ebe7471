"""Images: one file a request, one JSON document for each out.

Only `.png` files are scored, so thumbnails or notes beside them do no harm. Whole files are
limited to 6 MiB unless `max_payload` says more, and the more a request holds the fewer may be
under way: `max_payload` times `max_concurrent_transforms` is at most 100 MiB.
"""

from dataclasses import replace
from pathlib import Path

from aws_cdk import App, Duration, Size, Stack

from batch_transform import (
    BatchPolicy,
    BatchTransform,
    TransformModel,
    TransformSettings,
    Uploads,
)

HERE = Path(__file__).resolve().parent

app = App()
stack = Stack(app, "ImagesWholeFiles")
BatchTransform(
    stack,
    "Images",
    model=TransformModel.from_artifact(HERE / "model", HERE.parent / "image"),
    instance_type="ml.g4dn.xlarge",
    settings=replace(
        TransformSettings.whole_files("image/png", accept="application/json"),
        max_payload=Size.mebibytes(20),
        max_concurrent_transforms=4,
    ),
    uploads=Uploads(suffix=".png"),
    batch=BatchPolicy(max_wait=Duration.seconds(2)),  # as short for a first look only
)
app.synth()
