"""SageMaker models: what CreateModel keeps, and which of them Batch Transform can run."""

import threading
import time
from collections.abc import Mapping
from typing import Any

import transform_request
from local_cloud import emulator, listing
from local_cloud.errors import ImageRefused
from local_cloud.images import ImageSources
from local_cloud.refusals import invalid, must_be_in_s3
from local_cloud.tags import Tags

_SUMMARY = ("ModelName", "ModelArn", "CreationTime")
_KEPT = (
    "PrimaryContainer",
    "Containers",
    "InferenceExecutionConfig",
    "ExecutionRoleArn",
    "VpcConfig",
    "EnableNetworkIsolation",
)


class Models:
    """The models of every account and region."""

    def __init__(self, images: ImageSources, tags: Tags) -> None:
        self.stored = emulator.scoped_dict()
        self._images = images
        self._tags = tags
        self._creating = threading.Lock()
        tags.cover(lambda resource: any(m["ModelArn"] == resource for m in self.stored.values()))

    def create(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Store a model; its images must be known here, as they must be in ECR on AWS."""
        name = request["ModelName"]
        if ("PrimaryContainer" in request) == ("Containers" in request):
            raise invalid("Provide exactly one of PrimaryContainer and Containers.")
        for container in containers(request):
            if "Image" not in container:
                raise invalid(
                    "A container must have an Image: the local cloud has no model packages."
                )
            if "ModelDataUrl" in container:
                must_be_in_s3(container["ModelDataUrl"])
            self._must_know(container["Image"])
        with self._creating:
            if name in self.stored:
                raise invalid(f'Cannot create already existing model "{arn(name)}".')
            self._tags.put(arn(name), request.get("Tags", []))
            self.stored[name] = {
                "ModelName": name,
                "ModelArn": arn(name),
                "CreationTime": round(time.time(), 3),
                "EnableNetworkIsolation": False,
                **{member: request[member] for member in _KEPT if member in request},
            }
        return {"ModelArn": arn(name)}

    def describe(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the model as it was created."""
        return self.find(request["ModelName"])

    def delete(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Forget the model; jobs that run keep what they have."""
        name = self.find(request["ModelName"])["ModelName"]
        del self.stored[name]
        self._tags.forget(arn(name))
        return {}

    def list(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return one page of the summaries that the filters leave."""
        found = [m for m in self.stored.values() if listing.passes(m, request, name="ModelName")]
        page, more = listing.page(
            request,
            found,
            name="ModelName",
            sort_members={"Name": "ModelName", "CreationTime": "CreationTime"},
        )
        return {"Models": [{member: model[member] for member in _SUMMARY} for model in page]} | more

    def find(self, name: str) -> dict[str, Any]:
        """Look a model up, in the words of the service when there is none."""
        model: dict[str, Any] | None = self.stored.get(name)
        if model is None:
            raise invalid(f'Could not find model "{arn(name)}".')
        return model

    def for_transform(self, name: str) -> dict[str, Any]:
        """Look up a model that a transform job can run (reference §3)."""
        model = self.find(name)
        try:
            transform_request.validate_model(model)
        except transform_request.InvalidRequest as error:
            raise invalid("; ".join(error.problems)) from error
        return model

    def _must_know(self, uri: str) -> None:
        try:
            self._images.find(uri)
        except ImageRefused as error:
            raise invalid(f"Requested image {uri} not found: {error}") from error


def arn(name: str) -> str:
    """Return the ARN of the model of that name, in the caller's account and region."""
    return f"arn:aws:sagemaker:{emulator.region()}:{emulator.account()}:model/{name}"


def containers(model: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a model's containers, in the order in which a record passes them."""
    if "Containers" in model:
        return list(model["Containers"])
    return [model["PrimaryContainer"]]
