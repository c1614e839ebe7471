"""The state machine of a run, as a plain dict: ASL with JSONata, testable without Node.

    Begin ─► Step1 ─► Settle ─► JobStillRuns? ─► Index (Map) ─► Announce ─► Announced? ─► Succeeded
      └── finish ──────►┘  ▲───── WaitForJob ◄──┘

Models that SSM parameters name are read between Begin and Step1 (ReadModel1 …).

Only a run id, URIs and counts travel through it, never lists (256 KB is the limit of a state).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from batch_transform.model_parameter import ModelParameter, read_states

JOB_NAME = "{% $states.input.run_id & '-s1-' & $string($states.context.State.RetryCount) %}"
MANIFEST_URI = "{% $states.input.manifest_uri %}"
OUTPUT_URI = "{% $states.input.output_uri %}"

EVENT_SOURCE = "batch-transform"

# The classes of transform_lambdas/errors.py after which another try cannot help.
PERMANENT_ERRORS = ("PermanentError", "UnknownRun")

_JOB_RETRY = [
    # 900 waits of up to 5 minutes are, with full jitter, a day and a half in the queue for an
    # instance, and about 2,700 of the 25,000 events that an execution may have.
    {
        "ErrorEquals": ["SageMaker.ResourceLimitExceededException"],
        "IntervalSeconds": 60,
        "BackoffRate": 2,
        "MaxDelaySeconds": 300,
        "JitterStrategy": "FULL",
        "MaxAttempts": 900,
    },
    {
        "ErrorEquals": ["SageMaker.AmazonSageMakerException"],
        "IntervalSeconds": 5,
        "BackoffRate": 2,
        "MaxDelaySeconds": 120,
        "JitterStrategy": "FULL",
        "MaxAttempts": 6,
    },
]
_ANY_ERROR_RETRY = {
    "ErrorEquals": ["States.ALL"],
    "IntervalSeconds": 2,
    "BackoffRate": 2,
    "MaxDelaySeconds": 60,
    "JitterStrategy": "FULL",
    "MaxAttempts": 6,
}
_LAMBDA_RETRY = [
    {"ErrorEquals": [*PERMANENT_ERRORS], "MaxAttempts": 0},
    # A new account runs 10 functions at once, and each may hold its place for 15 minutes: more than
    # half an hour of patience, in waits so long that 1,000 parts stay below 25,000 events.
    {
        "ErrorEquals": ["Lambda.TooManyRequestsException"],
        "IntervalSeconds": 5,
        "BackoffRate": 2,
        "MaxDelaySeconds": 300,
        "JitterStrategy": "FULL",
        "MaxAttempts": 20,
    },
    _ANY_ERROR_RETRY,
]
# Settle sees what the job left behind, however it ended.
_SETTLE_AFTER_ERROR = [
    {
        "ErrorEquals": ["States.ALL"],
        "Output": {
            "run_id": "{% $states.input.run_id %}",
            "error": "{% $string($states.errorOutput.Error) %}",
            "cause": (
                "{% $exists($states.errorOutput.Cause) ? $string($states.errorOutput.Cause) : '' %}"
            ),
        },
        "Next": "Settle",
    }
]
_INDEX_CONCURRENCY = 40  # what an inline Map runs at once
_JOB_POLL_S = 20


def run_definition(
    *,
    pipeline_id: str,
    request: Mapping[str, Any],
    settle_function_arn: str,
    index_function_arn: str | None,
    job_timeout_s: int,
    model_parameters: Sequence[ModelParameter] = (),
) -> dict[str, Any]:
    """Return the state machine's definition.

    :param request: the CreateTransformJob request; its JSONata is evaluated per run.
    :param index_function_arn: `None` leaves the index out.
    """
    read_models = read_states(
        model_parameters, then="Step1", retry=[_ANY_ERROR_RETRY], catch=_SETTLE_AFTER_ERROR
    )
    states: dict[str, Any] = {
        "Begin": {
            "Type": "Choice",
            "Choices": [{"Condition": "{% $states.input.finish = true %}", "Next": "Settle"}],
            "Default": next(iter(read_models), "Step1"),
        },
        **read_models,
        "Step1": {
            "Type": "Task",
            "Resource": "arn:aws:states:::sagemaker:createTransformJob.sync",
            "Arguments": dict(request),
            "TimeoutSeconds": job_timeout_s,
            "Output": {"run_id": "{% $states.input.run_id %}"},
            "Retry": _JOB_RETRY,
            "Catch": _SETTLE_AFTER_ERROR,
            "Next": "Settle",
        },
        "Settle": _invoke(
            settle_function_arn,
            "{% $merge([{'run_id': $states.input.run_id}, $exists($states.input.error)"
            " ? {'error': $states.input.error, 'cause': $states.input.cause} : {}]) %}",
        )
        | {"Next": "JobStillRuns"},
        "JobStillRuns": {
            "Type": "Choice",
            "Choices": [
                {
                    "Condition": "{% $states.input.status = 'JobStillRuns' %}",
                    "Next": "WaitForJob",
                }
            ],
            "Default": "Announce" if index_function_arn is None else "Index",
        },
        "WaitForJob": {"Type": "Wait", "Seconds": _JOB_POLL_S, "Next": "Settle"},
    }
    if index_function_arn is not None:
        states["Index"] = _index(index_function_arn)
    states |= _announcement(pipeline_id, indexed=index_function_arn is not None)
    return {
        "Comment": "One batch: transform it, settle every drop, index and announce the outcome.",
        "QueryLanguage": "JSONata",
        "StartAt": "Begin",
        "States": states,
    }


def _invoke(function_arn: str, payload: str | dict[str, Any]) -> dict[str, Any]:
    return {
        "Type": "Task",
        "Resource": "arn:aws:states:::lambda:invoke",
        "Arguments": {"FunctionName": function_arn, "Payload": payload},
        "Output": "{% $states.result.Payload %}",
        "Retry": _LAMBDA_RETRY,
    }


def _index(function_arn: str) -> dict[str, Any]:
    return {
        "Type": "Map",
        "Items": ("{% $states.input.index_parts = 0 ? [] : [0..$states.input.index_parts - 1] %}"),
        "MaxConcurrency": _INDEX_CONCURRENCY,
        "ItemSelector": {
            "run_id": "{% $states.input.run_id %}",
            "part": "{% $states.context.Map.Item.Value %}",
        },
        "ItemProcessor": {
            "ProcessorConfig": {"Mode": "INLINE"},
            "StartAt": "IndexPart",
            "States": {
                "IndexPart": _invoke(
                    function_arn,
                    {"run_id": "{% $states.input.run_id %}", "part": "{% $states.input.part %}"},
                )
                | {"End": True}
            },
        },
        # The 0 makes the sum of no parts a number.
        "Output": (
            "{% $merge([$states.input,"
            " {'indexed': $sum($append([0], $states.result.indexed)),"
            " 'unindexed': $sum($append([0], $states.result.unindexed))}]) %}"
        ),
        "Next": "Announce",
    }


def _announcement(pipeline_id: str, *, indexed: bool) -> dict[str, Any]:
    told = ["run_id", "outcome", "counts", "report"]
    if indexed:
        told += ["indexed", "unindexed"]
    detail = {"pipeline": pipeline_id} | {name: f"{{% $states.input.{name} %}}" for name in told}
    return {
        "Announce": {
            "Type": "Task",
            "Resource": "arn:aws:states:::events:putEvents",
            "Arguments": {
                "Entries": [
                    {
                        "Source": EVENT_SOURCE,
                        "DetailType": "{% 'Batch Transform Run ' & $states.input.outcome %}",
                        "Detail": detail,
                    }
                ]
            },
            "Output": {"refused": "{% $states.result.FailedEntryCount %}"},
            "Retry": [_ANY_ERROR_RETRY],
            "Next": "Announced",
        },
        "Announced": {
            "Type": "Choice",
            # PutEvents succeeds as a call when it refuses the entry.
            "Choices": [{"Condition": "{% $states.input.refused > 0 %}", "Next": "NotAnnounced"}],
            "Default": "Succeeded",
        },
        "NotAnnounced": {
            "Type": "Fail",
            "Error": "NotAnnounced",
            "Cause": "EventBridge refused the run's event; the run itself is settled",
        },
        "Succeeded": {"Type": "Succeed"},
    }
