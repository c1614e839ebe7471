"""The transform jobs of a run, and what their data-log says of each object."""

import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

_LINE = re.compile(r"^\S+:\[sagemaker logs\]: ?")
# CloudWatch shows a line some seconds after it was written.
_LOG_TRIES = 4
_LOG_PAUSE_S = 4.0

_DESCRIBED_JOBS = 50  # more are attempts that found no instance for hours
_THROTTLED = frozenset({"ThrottlingException", "Throttling", "RequestLimitExceeded"})

UNFINISHED = frozenset({"InProgress", "Stopping"})


@dataclass(frozen=True, slots=True)
class Job:
    """One attempt at a step of a run, called `<run>-s<step>-<attempt>`."""

    name: str
    status: str
    failure_reason: str

    @property
    def step(self) -> int:
        """The number of the step."""
        return int(self.name.rpartition("-")[0].rpartition("-s")[2])


class TransformJobs:
    """Finds, stops and explains a run's jobs."""

    def __init__(self, sagemaker: Any, logs: Any, *, log_group: str) -> None:
        self._sagemaker = sagemaker
        self._logs = logs
        self._log_group = log_group

    def of_run(self, run_id: str) -> list[Job]:
        """Return every attempt at every step, the newest first."""
        prefix = f"{run_id}-s"
        pages = self._sagemaker.get_paginator("list_transform_jobs").paginate(
            NameContains=prefix, SortBy="CreationTime", SortOrder="Descending"
        )
        return [
            Job(
                name=summary["TransformJobName"],
                status=summary["TransformJobStatus"],
                failure_reason=summary.get("FailureReason", ""),
            )
            for page in pages
            for summary in page["TransformJobSummaries"]
            if summary["TransformJobName"].startswith(prefix)
        ]

    def stop(self, job: Job) -> None:
        """Ask for the job's end; it is `Stopping` for a while."""
        if job.status == "InProgress":
            self._sagemaker.stop_transform_job(TransformJobName=job.name)

    def describe(self, jobs: Sequence[Job]) -> list[dict[str, Any]]:
        """Return what the service tells of each of these jobs; of old ones of many, nothing."""
        return [
            self._sagemaker.describe_transform_job(TransformJobName=job.name)
            if number < _DESCRIBED_JOBS
            else {}
            for number, job in enumerate(jobs)
        ]

    def model(self, name: str) -> dict[str, Any] | str:
        """Return what the service tells of a model, or why it does not."""
        try:
            described: dict[str, Any] = self._sagemaker.describe_model(ModelName=name)
        except ClientError as error:
            told = error.response["Error"]
            if told["Code"] in _THROTTLED:
                raise
            return f"{told['Code']}: {told['Message']}"
        return described

    def complaints(
        self, jobs: Iterable[Job], *, bucket: str, keys: Collection[str]
    ) -> dict[str, str]:
        """Return what the failed jobs' data-logs say of these objects, as one line a key."""
        failed = [job for job in jobs if job.status == "Failed"]
        found: dict[str, str] = {}
        if not failed or not keys:
            return found
        for attempt in range(_LOG_TRIES):
            for job in failed:
                for lines in self._data_logs(job):
                    for key, text in read_complaints(lines, bucket=bucket, keys=keys):
                        found.setdefault(key, text)
            if found or not any("job logs" in job.failure_reason for job in failed):
                break
            if attempt < _LOG_TRIES - 1:
                time.sleep(_LOG_PAUSE_S)
        return found

    def _data_logs(self, job: Job) -> Iterator[Iterator[str]]:
        """Yield the lines of each instance by itself: read together, they are mixed by time."""
        for stream in self._data_log_streams(job):
            pages = self._logs.get_paginator("filter_log_events").paginate(
                logGroupName=self._log_group, logStreamNames=[stream]
            )
            yield (
                line
                for page in pages
                for event in page["events"]
                for line in event["message"].splitlines()
            )

    def _data_log_streams(self, job: Job) -> list[str]:
        pages = self._logs.get_paginator("describe_log_streams").paginate(
            logGroupName=self._log_group, logStreamNamePrefix=f"{job.name}/"
        )
        try:
            return [
                stream["logStreamName"]
                for page in pages
                for stream in page["logStreams"]
                if stream["logStreamName"].endswith("/data-log")
            ]
        except self._logs.exceptions.ResourceNotFoundException:
            return []  # No job of this account has logged anything yet.


def read_complaints(
    lines: Iterable[str], *, bucket: str, keys: Collection[str]
) -> Iterator[tuple[str, str]]:
    """Yield each key that a data-log complains of, with the whole complaint in one line.

    The agent writes `<bucket>/<key>: <text>` and then the reply's body line by line (reference §4).
    """
    texts: dict[str, list[str]] = {}
    current: str | None = None
    prefix = f"{bucket}/"
    for raw in lines:
        line = _LINE.sub("", raw)
        if line.startswith(prefix):
            key, text = _split(line.removeprefix(prefix), keys)
            current = key
        else:
            text = line
        if current is not None and text.strip() and text.strip() != "Message:":
            texts.setdefault(current, []).append(text.strip())
    for key, parts in texts.items():
        yield key, " ".join(parts)


def _split(line: str, keys: Collection[str]) -> tuple[str | None, str]:
    """Cut `<key>: <text>` at the colon that leaves a known key: a key may hold colons itself."""
    for colon in re.finditer(r":(?: |$)", line):
        if line[: colon.start()] in keys:
            return line[: colon.start()], line[colon.end() :]
    return None, ""


def refusal(error: Mapping[str, str]) -> str:
    """Return why Step Functions could not create a job, in SageMaker's own words."""
    cause = error.get("cause", "")
    return f"{error.get('error', '')}: {cause}" if cause else error.get("error", "")
