"""Transform jobs as the service keeps them: statuses, refusals, what Describe and List show."""

import contextlib
import logging
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import transform_request
from local_cloud import emulator, listing
from local_cloud.job_runner import INTERNAL_ERROR, JobRunner, Outcome
from local_cloud.models import Models
from local_cloud.refusals import Refusal, invalid, must_be_in_s3
from local_cloud.tags import Tags

_LOG = logging.getLogger("local_cloud.transform_jobs")

_SUMMARY = (
    "TransformJobName",
    "TransformJobArn",
    "CreationTime",
    "TransformEndTime",
    "LastModifiedTime",
    "TransformJobStatus",
    "FailureReason",
)
_SORT_MEMBERS = {
    "Name": "TransformJobName",
    "CreationTime": "CreationTime",
    "Status": "TransformJobStatus",
}
_NOT_DESCRIBED = ("LastModifiedTime",)
_IN_EVENT = (
    "TransformJobName",
    "TransformJobArn",
    "TransformJobStatus",
    "FailureReason",
    "ModelName",
    "MaxConcurrentTransforms",
    "MaxPayloadInMB",
    "BatchStrategy",
    "Environment",
    "TransformInput",
    "TransformOutput",
    "TransformResources",
)
_TIMES = ("CreationTime", "TransformStartTime", "TransformEndTime")
_OVER = ("Completed", "Failed", "Stopped")
_REASON_LIMIT = 1024
# The service accepts the job, and says so some minutes later.
_NO_CAPACITY = (
    "CapacityError: Unable to provision requested ML compute capacity. Please retry using a "
    "different ML instance type."
)


class TransformJobs:
    """The jobs of every account and region, and the only writer of their statuses.

    :param instance_quota: how many instances of a type an account may use at once.
    :param no_capacity: the types that are not to be had.
    """

    def __init__(
        self,
        models: Models,
        runner: JobRunner,
        tags: Tags,
        *,
        instance_quota: int | None,
        no_capacity: Collection[str],
    ) -> None:
        self.stored = emulator.scoped_dict()
        self._tags = tags
        tags.cover(
            lambda resource: any(j["TransformJobArn"] == resource for j in self.stored.values())
        )
        self._models = models
        self._runner = runner
        self._instance_quota = instance_quota
        self._no_capacity = no_capacity
        self._changed = threading.Condition()

    async def create(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Check the request as the service does, and start the job."""
        try:
            transform_request.validate(request, foresee=False)
        except transform_request.InvalidRequest as error:
            raise invalid("; ".join(error.problems)) from error
        for uri in _places(request):
            must_be_in_s3(uri)
        name = request["TransformJobName"]
        self._must_be_new(name)
        model = self._models.for_transform(request["ModelName"])
        await _input_must_exist(request, model)
        with self._changed:
            self._must_be_new(name)  # Looking at the input took a while.
            self._must_be_within_quota(request["TransformResources"])
            job = _described(request)
            self._tags.put(job["TransformJobArn"], request.get("Tags", []))
            self.stored[name] = job
            self._announce(job)
        if request["TransformResources"]["InstanceType"] in self._no_capacity:
            self._ended(job, Outcome("Failed", _NO_CAPACITY))
            return {"TransformJobArn": job["TransformJobArn"]}
        self._runner.start(
            job["TransformJobArn"],
            request,
            model,
            on_start=lambda: self._started(job),
            on_end=lambda outcome: self._ended(job, outcome),
        )
        return {"TransformJobArn": job["TransformJobArn"]}

    def describe(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return all about one job."""
        job = self._find(request["TransformJobName"])
        with self._changed:
            return {member: value for member, value in job.items() if member not in _NOT_DESCRIBED}

    def list(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return one page of the summaries that the filters leave."""
        with self._changed:
            summaries = [
                {member: job[member] for member in _SUMMARY if member in job}
                for job in self.stored.values()
                if listing.passes(job, request, name="TransformJobName")
            ]
        page, more = listing.page(
            request, summaries, name="TransformJobName", sort_members=_SORT_MEMBERS
        )
        return {"TransformJobSummaries": page} | more

    def stop(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Ask the job to end; it is Stopping until its processes are gone."""
        job = self._find(request["TransformJobName"])
        with self._changed:
            status = job["TransformJobStatus"]
            if status in _OVER:
                raise invalid(
                    f"The request was rejected because the transform job is in status {status}."
                )
            if status == "InProgress":
                self._set(job, "Stopping")
        if status == "InProgress":
            self._runner.stop(job["TransformJobArn"])
        return {}

    def wait(self, name: str, *, limit_s: float) -> str:
        """Wait for the job's end, at most that long; returns its status then."""
        job = self._find(name)
        with self._changed:
            self._changed.wait_for(lambda: job["TransformJobStatus"] in _OVER, timeout=limit_s)
        return str(job["TransformJobStatus"])

    @contextlib.contextmanager
    def unchanging(self) -> Iterator[None]:
        """Keep every job as it is in the meantime."""
        with self._changed:
            yield

    def interrupted(self) -> None:
        """Fail the jobs that a former process of this cloud left in flight, and send the events."""
        for (account, region, _), job in self.stored.all_items():
            if job["TransformJobStatus"] not in _OVER:
                with emulator.scope(account, region):
                    # What a lost instance gives on AWS.
                    self._ended(job, Outcome("Failed", INTERNAL_ERROR))

    def _must_be_new(self, name: str) -> None:
        if name in self.stored:
            raise Refusal(
                "ResourceInUse",
                "Job name must be unique within an AWS account and region, and a job with this "
                f"name already exists ({arn(name)})",
            )

    def _must_be_within_quota(self, resources: Mapping[str, Any]) -> None:
        if self._instance_quota is None:
            return
        instance_type, delta = resources["InstanceType"], resources["InstanceCount"]
        used = sum(
            job["TransformResources"]["InstanceCount"]
            for job in self.stored.values()
            if job["TransformJobStatus"] not in _OVER
            and job["TransformResources"]["InstanceType"] == instance_type
        )
        if used + delta > self._instance_quota:
            raise Refusal(
                "ResourceLimitExceeded",
                f"The account-level service limit '{instance_type} for transform job usage' is "
                f"{self._instance_quota} Instances, with current utilization of {used} Instances "
                f"and a request delta of {delta} Instances. Please use AWS Service Quotas to "
                "request an increase for this quota.",
            )

    def _find(self, name: str) -> dict[str, Any]:
        job: dict[str, Any] | None = self.stored.get(name)
        if job is None:
            raise Refusal("ResourceNotFound", f"Requested resource not found: {arn(name)}")
        return job

    def _started(self, job: dict[str, Any]) -> None:
        with self._changed:
            job["TransformStartTime"] = job["LastModifiedTime"] = _now()

    def _ended(self, job: dict[str, Any], outcome: Outcome) -> None:
        with self._changed:
            job["TransformEndTime"] = _now()
            job.setdefault("TransformStartTime", job["TransformEndTime"])
            if outcome.failure_reason is not None:
                job["FailureReason"] = outcome.failure_reason[:_REASON_LIMIT]
            self._set(job, outcome.status)
        _LOG.info("job %s: %s", job["TransformJobName"], outcome.status)

    def _set(self, job: dict[str, Any], status: str) -> None:
        # The events leave in the order of the changes, so both happen under one lock.
        with self._changed:
            job["TransformJobStatus"] = status
            job["LastModifiedTime"] = _now()
            self._changed.notify_all()
            self._announce(job)

    def _announce(self, job: Mapping[str, Any]) -> None:
        detail = {member: job[member] for member in _IN_EVENT if member in job}
        detail |= {member: _iso(job[member]) for member in _TIMES if member in job}
        detail["Tags"] = self._tags.of(job["TransformJobArn"])
        try:
            emulator.put_event(
                "aws.sagemaker",
                "SageMaker Transform Job State Change",
                job["TransformJobArn"],
                detail,
            )
        except Exception:
            # An event is best effort, here as on AWS: a broken rule must not lose the job.
            _LOG.exception("job %s: event", job["TransformJobName"])


def arn(name: str) -> str:
    """Return the ARN of the job of that name, in the caller's account and region."""
    return f"arn:aws:sagemaker:{emulator.region()}:{emulator.account()}:transform-job/{name}"


def _now() -> float:
    return round(time.time(), 3)


def _iso(moment: float) -> str:
    written = datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
    return written.replace("+00:00", "Z")


def _described(request: Mapping[str, Any]) -> dict[str, Any]:
    """Build the Describe shape of a new job; only these defaults are written back (§2)."""
    now = _now()
    return {
        **{member: value for member, value in request.items() if member != "Tags"},
        "TransformJobArn": arn(request["TransformJobName"]),
        "TransformJobStatus": "InProgress",
        "TransformInput": {"CompressionType": "None", **request["TransformInput"]},
        "TransformOutput": {"KmsKeyId": "", **request["TransformOutput"]},
        "DataProcessing": {
            "InputFilter": "$",
            "OutputFilter": "$",
            "JoinSource": "None",
            **request.get("DataProcessing", {}),
        },
        "CreationTime": now,
        "LastModifiedTime": now,
    }


async def _input_must_exist(request: Mapping[str, Any], model: Mapping[str, Any]) -> None:
    """Refuse a job without input: the service lists it before it accepts the job (§1.9)."""
    uri = request["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"]
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    if await emulator.has_objects(bucket, prefix):
        return
    raise invalid(
        f'No S3 objects found under S3 URL "{uri}" given in input data source. Please ensure that '
        f"the bucket exists in the selected region ({emulator.region()}), that objects exist under "
        f'that S3 prefix, and that the role "{model.get("ExecutionRoleArn", "")}" has '
        f'"s3:ListBucket" permissions on bucket "{bucket}".'
    )


def _places(request: Mapping[str, Any]) -> Iterator[str]:
    """Name every place in S3 that the job reads or writes."""
    yield request["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"]
    yield request["TransformOutput"]["S3OutputPath"]
    if "DataCaptureConfig" in request:
        yield request["DataCaptureConfig"]["DestinationS3Uri"]
