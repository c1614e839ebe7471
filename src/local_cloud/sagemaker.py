"""SageMaker for the emulator: the JSON 1.1 API, as far as Batch Transform needs it."""

import base64
import binascii
import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from local_cloud import emulator, model_resource, transform_task
from local_cloud.emulator import Response
from local_cloud.images import Images
from local_cloud.job_runner import JobRunner, Order, Run
from local_cloud.models import Models, required
from local_cloud.refusals import MODELLED, Refusal, invalid
from local_cloud.transform_jobs import TransformJobs

TARGET_PREFIX = "SageMaker."
_MAX_TAGS = 50
_SDK_ERRORS = {
    **{code: f"{code}Exception" for code in MODELLED},
    "ValidationException": "SageMakerException",  # The API does not model it.
}
_CONTENT_TYPE = "application/x-amz-json-1.1"


class SageMaker:
    """The service as the emulator sees it."""

    def __init__(self, models: Models, jobs: TransformJobs) -> None:
        self.models = models
        self.jobs = jobs
        self.tags = emulator.scoped_dict()
        self._operations: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "CreateModel": self.create_model,
            "DescribeModel": models.describe,
            "DeleteModel": models.delete,
            "ListModels": lambda request: _page(
                request, models.list(request), "Models", {"Name": "ModelName"}
            ),
            "DescribeTransformJob": jobs.describe,
            "ListTransformJobs": lambda request: _page(
                request,
                jobs.list(request),
                "TransformJobSummaries",
                {"Name": "TransformJobName", "Status": "TransformJobStatus"},
            ),
            "StopTransformJob": jobs.stop,
            "AddTags": self.add_tags,
            "ListTags": self.list_tags,
            "DeleteTags": self.delete_tags,
        }

    async def handle_request(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes, query_params: Any
    ) -> Response:
        """Answer one call, named by its `X-Amz-Target`."""
        operation = headers.get("x-amz-target", "").removeprefix(TARGET_PREFIX)
        try:
            request = json.loads(body or b"{}")
            if operation == "CreateTransformJob":
                answer = await self.create_transform_job(request)
            elif operation in self._operations:
                answer = self._operations[operation](request)
            else:
                raise Refusal(
                    "UnknownOperationException",
                    f"the local cloud has no SageMaker operation {operation}",
                )
        except Refusal as refusal:
            return _respond(400, {"__type": refusal.code, "message": refusal.message})
        return _respond(200, answer)

    def create_model(self, request: dict[str, Any]) -> dict[str, Any]:
        """Create a model with its tags."""
        answer = self.models.create(request)
        self._tag(answer["ModelArn"], request.get("Tags", []))
        return answer

    async def create_transform_job(self, request: dict[str, Any]) -> dict[str, Any]:
        """Create a job with its tags."""
        answer = await self.jobs.create(request)
        self._tag(answer["TransformJobArn"], request.get("Tags", []))
        return answer

    def add_tags(self, request: dict[str, Any]) -> dict[str, Any]:
        """Add or overwrite tags of a resource."""
        return {"Tags": self._tag(required(request, "ResourceArn"), request.get("Tags", []))}

    def list_tags(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the tags of a resource."""
        return {"Tags": self._tag(required(request, "ResourceArn"), [])}

    def delete_tags(self, request: dict[str, Any]) -> dict[str, Any]:
        """Remove the tags of those keys."""
        kept = self.tags.get(required(request, "ResourceArn"), {})
        for key in request.get("TagKeys", []):
            kept.pop(key, None)
        return {}

    def get_state(self) -> dict[str, Any]:
        """Hand out what to keep over a restart."""
        return copy.deepcopy(
            {"models": self.models.stored, "jobs": self.jobs.stored, "tags": self.tags}
        )

    def load_persisted_state(self, data: dict[str, Any]) -> None:
        """Take back what was kept; a job in flight has lost its processes, so it has failed."""
        self.models.stored.update(data["models"])
        self.jobs.stored.update(data["jobs"])
        self.tags.update(data["tags"])
        self.jobs.interrupted()

    def reset(self) -> None:
        """Forget everything."""
        for store in (self.models.stored, self.jobs.stored, self.tags):
            store.clear()

    def _tag(self, resource: str, tags: list[dict[str, str]]) -> list[dict[str, str]]:
        merged = {**self.tags.get(resource, {}), **{tag["Key"]: tag["Value"] for tag in tags}}
        if len(merged) > _MAX_TAGS:
            raise invalid(f"A resource must have at most {_MAX_TAGS} tags, got {len(merged)}.")
        if tags:
            self.tags[resource] = merged
        return [{"Key": key, "Value": value} for key, value in merged.items()]


def plug_in(*, launch: Callable[[Order], Run], state_dir: Path, instance_quota: int | None) -> None:
    """Add SageMaker to the emulator: API, CloudFormation resource, state machine tasks."""
    images = Images(state_dir / "images")
    runner = JobRunner(images, launch, work_root=state_dir / "jobs")
    models = Models(images)
    jobs = TransformJobs(models, runner, instance_quota=instance_quota)
    service = SageMaker(models, jobs)
    emulator.add_service("sagemaker", TARGET_PREFIX, service)
    emulator.add_sdk_integration("sagemaker", TARGET_PREFIX, "SageMaker", _SDK_ERRORS)
    transform_task.plug_in(jobs)
    model_resource.plug_in(service)


def _respond(status: int, answer: Mapping[str, Any]) -> Response:
    headers = {"Content-Type": _CONTENT_TYPE}
    if status != 200:
        headers["x-amzn-ErrorType"] = answer["__type"]
    return status, headers, json.dumps(answer).encode()


def _page(
    request: Mapping[str, Any],
    summaries: list[dict[str, Any]],
    member: str,
    sort_members: Mapping[str, str],
) -> dict[str, Any]:
    """Sort and cut a listing as every List operation of SageMaker does."""
    sort_by = sort_members.get(request.get("SortBy", ""), "CreationTime")
    ordered = sorted(
        summaries,
        key=lambda summary: summary[sort_by],
        reverse=request.get("SortOrder", "Descending") == "Descending",
    )
    size = request.get("MaxResults", 10)
    if not 1 <= size <= 100:
        raise invalid(f"MaxResults must be 1 to 100, got {size}.")
    start = _position(request.get("NextToken"))
    answer: dict[str, Any] = {member: ordered[start : start + size]}
    if start + size < len(ordered):
        answer["NextToken"] = base64.b64encode(str(start + size).encode()).decode()
    return answer


def _position(token: str | None) -> int:
    if token is None:
        return 0
    try:
        return int(base64.b64decode(token, validate=True))
    except (binascii.Error, ValueError) as error:
        raise invalid("Invalid pagination token.") from error
