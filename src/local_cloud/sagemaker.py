"""SageMaker for the emulator: the JSON 1.1 API, as far as Batch Transform needs it."""

import asyncio
import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from local_cloud import api_input, emulator, model_resource, transform_task
from local_cloud.emulator import Response
from local_cloud.images import ImageSources
from local_cloud.job_runner import JobRunner, Order, Run
from local_cloud.models import Models
from local_cloud.refusals import MODELLED, Refusal
from local_cloud.tags import Tags
from local_cloud.transform_jobs import TransformJobs

TARGET_PREFIX = "SageMaker."
_SDK_ERRORS = {
    **{code: f"{code}Exception" for code in MODELLED},
    "ValidationException": "SageMakerException",  # The API does not model it.
}
_CONTENT_TYPE = "application/x-amz-json-1.1"


class SageMaker:
    """The service as the emulator sees it."""

    def __init__(self, models: Models, jobs: TransformJobs, tags: Tags) -> None:
        self._jobs = jobs
        self._stores = {"models": models.stored, "jobs": jobs.stored, "tags": tags.stored}
        self._operations: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
            "CreateModel": models.create,
            "DescribeModel": models.describe,
            "DeleteModel": models.delete,
            "ListModels": models.list,
            "DescribeTransformJob": jobs.describe,
            "ListTransformJobs": jobs.list,
            "StopTransformJob": jobs.stop,
            "AddTags": tags.add,
            "ListTags": tags.list,
            "DeleteTags": tags.delete,
        }

    async def handle_request(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes, query_params: Any
    ) -> Response:
        """Answer one call, named by its `X-Amz-Target`."""
        operation = headers.get("x-amz-target", "").removeprefix(TARGET_PREFIX)
        try:
            answer = await self._answer(operation, body)
        except Refusal as refusal:
            return _respond(400, {"__type": refusal.code, "message": refusal.message})
        return _respond(200, answer)

    def get_state(self) -> dict[str, Any]:
        """Hand out what to keep over a restart."""
        with self._jobs.unchanging():
            return {name: emulator.copy_of(store) for name, store in self._stores.items()}

    def load_persisted_state(self, data: dict[str, Any]) -> None:
        """Take back what was kept; a job in flight has lost its processes, so it has failed."""
        for name, store in self._stores.items():
            store.update(data[name])
        self._jobs.interrupted()

    def reset(self) -> None:
        """Forget everything."""
        for store in self._stores.values():
            store.clear()

    async def _answer(self, operation: str, body: bytes) -> dict[str, Any]:
        if operation == "CreateTransformJob":
            # The only one that waits for another service: S3, for its input.
            return await self._jobs.create(api_input.accept(operation, _decoded(body)))
        if operation == "CreateModel":
            # A container engine may take its time to say that it has the image.
            request = api_input.accept(operation, _decoded(body))
            return await asyncio.to_thread(self._operations[operation], request)
        if operation in self._operations:
            return self._operations[operation](api_input.accept(operation, _decoded(body)))
        raise Refusal(
            "UnknownOperationException",
            f"the local cloud has no SageMaker operation {operation}",
        )


def plug_in(
    *,
    launch: Callable[[Order], Run],
    images: ImageSources,
    state_dir: Path,
    instance_quota: int | None,
    no_capacity: Collection[str],
) -> None:
    """Add SageMaker to the emulator: API, CloudFormation resource, state machine tasks."""
    # Of jobs that a server leaves behind with its end, nothing stays.
    runner = JobRunner(images, launch, work_root=state_dir / emulator.TEMPORARY / "jobs")
    tags = Tags()
    models = Models(images, tags)
    jobs = TransformJobs(
        models, runner, tags, instance_quota=instance_quota, no_capacity=no_capacity
    )
    emulator.add_service("sagemaker", TARGET_PREFIX, SageMaker(models, jobs, tags))
    emulator.add_sdk_integration("sagemaker", TARGET_PREFIX, "SageMaker", _SDK_ERRORS)
    transform_task.plug_in(jobs)
    model_resource.plug_in(models)


def _decoded(body: bytes) -> object:
    try:
        return json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise Refusal("SerializationException", f"The body must be JSON: {error}") from error


def _respond(status: int, answer: Mapping[str, Any]) -> Response:
    headers = {"Content-Type": _CONTENT_TYPE}
    if status != 200:
        headers["x-amzn-ErrorType"] = answer["__type"]
    return status, headers, json.dumps(answer).encode()
