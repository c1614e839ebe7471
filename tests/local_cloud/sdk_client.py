"""What a user of sagemaker 2.x writes. Its own Python runs it, and it tells what it saw as JSON."""

# mypy: disable-error-code="import-not-found"
# The SDK is in an environment of its own: its packages must not meet ours.

import json
import sys

from sagemaker import Session
from sagemaker.exceptions import UnexpectedStatusException
from sagemaker.model import Model
from sagemaker.transformer import Transformer

image, role, bucket, report = sys.argv[1:]
session = Session()
model = Model(image_uri=image, role=role, name="sdk-capitals", sagemaker_session=session)


def transformer(folder: str) -> Transformer:
    """Make a transformer of the model with most of what a user can set."""
    return model.transformer(
        instance_count=1,
        instance_type="ml.m5.large",
        strategy="MultiRecord",
        assemble_with="Line",
        accept="text/csv",
        output_path=f"s3://{bucket}/{folder}",
        max_concurrent_transforms=2,
        max_payload=1,
        env={"COLOUR": "red"},
        tags=[{"Key": "team", "Value": "churn"}],
    )


def start(job: Transformer, name: str, data: str, *, wait: bool) -> None:
    """Score the data, joined with its input."""
    uri = session.upload_string_as_file_body(data, bucket, f"{name}/in/data.csv")
    job.transform(
        uri,
        job_name=name,
        content_type="text/csv",
        split_type="Line",
        input_filter="$[1:]",
        join_source="Input",
        output_filter="$[0,-1]",
        model_client_config={"InvocationsMaxRetries": 1},
        wait=wait,
        logs=wait,
    )


seen: dict[str, object] = {}
completes = transformer("sdk-completes/out")
start(completes, "sdk-completes", "1,a\n2,b\n", wait=True)
seen["output"] = session.read_s3_file(bucket, "sdk-completes/out/data.csv.out")
seen["status"] = session.describe_transform_job("sdk-completes")["TransformJobStatus"]
attached = Transformer.attach("sdk-completes", sagemaker_session=session)
seen["attached"] = [attached.model_name, attached.output_path, attached.max_payload]

fails = transformer("sdk-fails/out")
start(fails, "sdk-fails", "1,FAIL\n", wait=False)
try:
    session.wait_for_transform_job("sdk-fails", poll=0.2)
except UnexpectedStatusException as error:
    seen["failure"] = [error.actual_status, str(error)]

stops = transformer("sdk-stops/out")
start(stops, "sdk-stops", "1,SLOW\n", wait=False)
stops.stop_transform_job(wait=False)
seen["stopped"] = session.wait_for_transform_job("sdk-stops", poll=0.2)["TransformJobStatus"]

stops.delete_model()
with open(report, "w") as file:
    json.dump(seen, file)
