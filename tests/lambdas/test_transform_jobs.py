import time
from functools import partial
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from transform_lambdas import outcomes
from transform_lambdas.outcomes import Kind, explain
from transform_lambdas.transform_jobs import Job, TransformJobs, read_complaints

GROUP = "/aws/sagemaker/TransformJobs"
STAMP = "2026-03-01T12:00:00.000:[sagemaker logs]: "


def test_a_complaint_is_read_whole_from_the_lines_of_a_data_log() -> None:
    lines = [
        f"{STAMP}MaxConcurrentTransforms=1, MaxPayloadInMB=6, BatchStrategy=MULTI_RECORD",
        f"{STAMP}bkt/in/bad.csv: ClientError: 400",
        f"{STAMP}bkt/in/bad.csv: ",
        f"{STAMP}bkt/in/bad.csv: Message:",
        f"{STAMP}bkt/in/bad.csv: row 3, column 5 must be a number",
        f"{STAMP}bkt/in/a: b.csv: Bad HTTP status received from algorithm: 500",
        f"{STAMP}",
        f"{STAMP}bkt/in/a: b.csv: Message:",
        f"{STAMP}out of memory",
        f"{STAMP}bkt/in/of-another-run.csv: ClientError: 400",
        f"{STAMP}and its text",
    ]
    keys = {"in/bad.csv", "in/a: b.csv", "in/fine.csv"}
    assert dict(read_complaints(lines, bucket="bkt", keys=keys)) == {
        "in/bad.csv": "ClientError: 400 row 3, column 5 must be a number",
        "in/a: b.csv": "Bad HTTP status received from algorithm: 500 out of memory",
    }


def write_log(stream: str, *messages: str, start_ms: int | None = None) -> Any:
    logs = boto3.client("logs")
    if not logs.describe_log_groups()["logGroups"]:
        logs.create_log_group(logGroupName=GROUP)
    start_ms = start_ms or int(time.time() * 1000)
    logs.create_log_stream(logGroupName=GROUP, logStreamName=stream)
    logs.put_log_events(
        logGroupName=GROUP,
        logStreamName=stream,
        logEvents=[
            {"timestamp": start_ms + number, "message": message}
            for number, message in enumerate(messages)
        ],
    )
    return logs


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transform_lambdas.transform_jobs._LOG_PAUSE_S", 0)


def test_the_reason_is_found_in_the_data_log_of_the_job_that_failed() -> None:
    logs = write_log("run-s1-0/i-1-1772366400/data-log", f"{STAMP}bkt/in/a.csv: ClientError: 400")
    jobs = TransformJobs(boto3.client("sagemaker"), logs, log_group=GROUP)
    failed = Job("run-s1-0", "Failed", "ClientError: See job logs for more information")

    assert jobs.complaints([failed], bucket="bkt", keys={"in/a.csv"}) == {
        "in/a.csv": "ClientError: 400"
    }


class MixingLogs:
    """CloudWatch Logs as AWS has it: the events of several streams come sorted by their time."""

    def __init__(self, logs: Any) -> None:
        self.exceptions = logs.exceptions
        self._logs = logs

    def get_paginator(self, operation: str) -> Any:
        paginator = self._logs.get_paginator(operation)
        if operation != "filter_log_events":
            return paginator
        return SimpleNamespace(paginate=partial(paginator.paginate, interleaved=True))


def test_what_two_instances_say_at_the_same_time_is_not_mixed() -> None:
    start_ms = int(time.time() * 1000)
    write_log(
        "run-s1-0/i-1-1772366400/data-log",
        f"{STAMP}bkt/in/a.csv: Bad HTTP status received from algorithm: 500",
        f"{STAMP}out of memory",
        start_ms=start_ms,
    )
    logs = write_log(
        "run-s1-0/i-2-1772366400/data-log",
        f"{STAMP}bkt/in/b.csv: ClientError: 400",
        f"{STAMP}ClientError is what the model says of row 3",
        start_ms=start_ms,
    )
    jobs = TransformJobs(boto3.client("sagemaker"), MixingLogs(logs), log_group=GROUP)
    failed = Job("run-s1-0", "Failed", "ClientError: See job logs for more information")

    assert jobs.complaints([failed], bucket="bkt", keys={"in/a.csv", "in/b.csv"}) == {
        "in/a.csv": "Bad HTTP status received from algorithm: 500 out of memory",
        "in/b.csv": "ClientError: 400 ClientError is what the model says of row 3",
    }


def test_no_log_at_all_is_no_complaint() -> None:
    jobs = TransformJobs(boto3.client("sagemaker"), boto3.client("logs"), log_group=GROUP)
    failed = Job("run-s1-0", "Failed", "ClientError: See job logs for more information")
    assert jobs.complaints([failed], bucket="bkt", keys={"in/a.csv"}) == {}


@pytest.mark.parametrize(
    ("jobs", "complaint", "error", "reason", "kind"),
    [
        pytest.param(
            [], None, {}, "the run ended before", outcomes.NOT_CREATED, id="died before its job"
        ),
        pytest.param(
            [],
            None,
            {"error": "SageMaker.ResourceLimitExceededException", "cause": "limit"},
            "ResourceLimitExceededException: limit",
            outcomes.LIMIT,
            id="a quota",
        ),
        pytest.param(
            [],
            None,
            {"error": "SageMaker.AmazonSageMakerException", "cause": "ValidationException"},
            "no transform job could be created",
            outcomes.REFUSED,
            id="a refusal",
        ),
        pytest.param(
            [],
            None,
            {
                "error": "SageMaker.AmazonSageMakerException",
                "cause": 'Could not find model "m-1". (Error Code: ValidationException)',
            },
            'Could not find model "m-1"',
            outcomes.MODEL_GONE,
            id="a model that a deployment replaced",
        ),
        pytest.param(
            [],
            None,
            {
                "error": "SageMaker.AmazonSageMakerException",
                "cause": "User: run is not authorized to perform: sagemaker:CreateTransformJob "
                "(Error Code: AccessDeniedException)",
            },
            "not authorized to perform",
            outcomes.NOT_CREATED,
            id="a permission that a deployment moved to the next model",
        ),
        pytest.param(
            [Job("j", "Stopped", "")], None, {}, "job j was stopped", outcomes.STOPPED, id="stopped"
        ),
        pytest.param(
            [Job("j", "Completed", "")],
            None,
            {},
            "without an output",
            outcomes.MODEL,
            id="deleted object",
        ),
        pytest.param(
            [Job("j", "Failed", "InternalServerError: We encountered an internal error.")],
            None,
            {},
            "job j failed: InternalServerError",
            outcomes.MODEL,
            id="the service's fault",
        ),
        pytest.param(
            [Job("j", "Failed", "")],
            "ClientError: 400 no",
            {},
            "k: ClientError: 400 no",
            outcomes.BAD_DATA,
            id="the data's fault",
        ),
        pytest.param(
            [Job("j", "Failed", "")],
            "Unable to get response from algorithm",
            {},
            "k: Unable to get response",
            outcomes.MODEL,
            id="the model's fault",
        ),
        pytest.param(
            [Job("j", "Failed", "")],
            "Bad HTTP status received from algorithm: 500 "
            "botocore.exceptions.ClientError: An error occurred (ThrottlingException)",
            {},
            "k: Bad HTTP status",
            outcomes.MODEL,
            id="a model whose own call to AWS failed",
        ),
    ],
)
def test_a_missing_output_is_explained(
    jobs: list[Job], complaint: str | None, error: dict[str, str], reason: str, kind: Kind
) -> None:
    missing = explain("k", jobs=jobs, complaint=complaint, error=error)
    assert reason in missing.reason
    assert missing.kind is kind


def test_a_long_reason_is_cut() -> None:
    missing = explain("k", jobs=[], complaint="x" * 5000, error={})
    assert len(missing.reason) == 1000


class ManyJobs:
    """SageMaker as far as it is asked what a job or a model is."""

    def __init__(self, code: str = "") -> None:
        self.asked: list[str] = []
        self._code = code

    def describe_transform_job(self, *, TransformJobName: str) -> dict[str, Any]:  # noqa: N803 (boto3's name)
        self.asked.append(TransformJobName)
        return {"TransformJobName": TransformJobName}

    def describe_model(self, *, ModelName: str) -> dict[str, Any]:  # noqa: N803 (boto3's name)
        if self._code:
            error = {"Code": self._code, "Message": "Could not find model"}
            raise ClientError({"Error": error}, "DescribeModel")
        return {"ModelName": ModelName}


def test_of_attempts_without_end_the_newest_are_described() -> None:
    sagemaker = ManyJobs()
    jobs = [Job(f"run-s1-{number}", "Failed", "CapacityError") for number in range(999, -1, -1)]

    described = TransformJobs(sagemaker, None, log_group=GROUP).describe(jobs)

    assert len(described) == 1000
    assert sagemaker.asked == [f"run-s1-{number}" for number in range(999, 949, -1)]
    assert described[49:51] == [{"TransformJobName": "run-s1-950"}, {}]


def test_a_model_that_is_gone_is_told_and_a_throttle_is_not_taken_for_that() -> None:
    def model(code: str) -> dict[str, Any] | str:
        return TransformJobs(ManyJobs(code), None, log_group=GROUP).model("churn")

    assert model("") == {"ModelName": "churn"}
    assert model("ValidationException") == "ValidationException: Could not find model"
    with pytest.raises(ClientError):
        model("ThrottlingException")
