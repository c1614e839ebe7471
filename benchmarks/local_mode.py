"""Runs a transform job in the local mode of sagemaker 2.x, in the environment `sagemaker-sdk`.

    python local_mode.py INPUT OUTPUT_FOLDER PORT BATCH_STRATEGY MAX_PAYLOAD_MB

All of it is theirs, from `create_transform_job` on: reading, splitting, packing, the docker command
line that they call twice for each request, the HTTP client, the output. Only the container is not
started: in its place stands the server that listens on PORT.
"""

import os
import sys
from pathlib import Path

from sagemaker.local import LocalSession, entities, local_session


class RunningServer:
    """Stands for their container: a server that runs already."""

    def __init__(self, *arguments: object) -> None:
        """Take what they tell a container."""

    def serve(self, *arguments: object) -> None:
        """Start nothing; what follows is their ping and the batch."""

    def stop_serving(self) -> None:
        """Say that the work has ended: the outputs are in their place."""
        print('{"event": "ended"}', flush=True)


class TimedJob(entities._LocalTransformJob):  # type: ignore[misc] # it has no types
    """Their job, which says when the server has answered its ping and the work starts."""

    def _perform_batch_inference(self, *arguments: object, **settings: object) -> None:
        print('{"event": "started"}', flush=True)
        super()._perform_batch_inference(*arguments, **settings)


def transform(source: str, target: str, port: int, strategy: str, max_payload_mb: int) -> None:
    """Run one job of lines of CSV."""
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
    entities._SageMakerContainer = RunningServer
    local_session._LocalTransformJob = TimedJob
    session = LocalSession()
    session.config = {"local": {"serving_port": port}}
    client = session.sagemaker_client
    client.create_model("model", {"Image": "none", "ModelDataUrl": "none", "Environment": {}})
    client.create_transform_job(
        TransformJobName="job",
        ModelName="model",
        TransformInput={
            "DataSource": {"S3DataSource": {"S3Uri": Path(source).as_uri()}},
            "ContentType": "text/csv",
            "SplitType": "Line",
        },
        TransformOutput={"S3OutputPath": Path(target).as_uri(), "AssembleWith": "Line"},
        TransformResources={"InstanceType": "local", "InstanceCount": 1},
        BatchStrategy=strategy,
        MaxPayloadInMB=max_payload_mb,
    )


if __name__ == "__main__":
    source, target, port, strategy, max_payload_mb = sys.argv[1:]
    transform(source, target, int(port), strategy, int(max_payload_mb))
