"""The state machine of a run, as a plain dict: ASL with JSONata, testable without Node.

    Begin ─► Step1, Step2 … ─► Settle ─► Settled? ─► Index (Map) ─► Announce ─► … ─► Succeeded
      └── finish ──────────────►┘ ▲ ▲        │ └ JobStillRuns ─► WaitForJob ─► Settle
                                  │ │        ├── CountRecords ─► CountRecords (Map) ─► Settle
                                  │ │        └── NextStep ─► the Step that is next
      a Step that failed ─► JobFailed? ─► WaitForCapacity ─► the same Step again

Models that SSM parameters name are read between Begin and Step1 (ReadModel1 …).

Settle looks at what a step has left behind and says whether another one follows. What a step begins
with is written by dispatch and settle: a run id, the step and counts, never lists (256 KB is the
limit of a state).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batch_transform.model_parameter import ModelParameter, read_states
from batch_transform.places import RUNS

CREATE_JOB = "arn:aws:states:::sagemaker:createTransformJob.sync"
EVENT_SOURCE = "batch-transform"

# The classes of transform_lambdas/errors.py after which another try cannot help.
PERMANENT_ERRORS = ("PermanentError", "UnknownRun")

JOB_RETRY: list[dict[str, Any]] = [
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
_ERROR = (
    "'error': $string($states.errorOutput.Error), 'cause': "
    "$exists($states.errorOutput.Cause) ? $string($states.errorOutput.Cause) : ''"
)
# A job that found no instance has failed, and its name is used up. RetryCount begins anew when a
# state is entered again, so the name counts the shortages in thousands: `…-s1-2003`.
_ATTEMPTS_LIMIT = 1000
# SageMaker's words are "CapacityError: Unable to provision requested ML compute capacity. Please
# retry using a different ML instance type." Step Functions has them in the job's description.
_CAPACITY_ERROR = "CapacityError"
_CAPACITY_ROUNDS = 100  # through all types of a step: 8 hours of waits, and the time of the jobs
_CAPACITY_WAIT_S = 300
_MAP_CONCURRENCY = 40  # what an inline Map runs at once
_JOB_POLL_S = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class StepTask:
    """A step as the state machine runs it.

    :ivar request: CreateTransformJob's; its JSONata is evaluated when the step begins.
    :ivar instance_types: how many types the request chooses among.
    """

    request: Mapping[str, Any]
    instance_types: int
    timeout_s: int


def job_name(step: int) -> str:
    """Return the JSONata for the name of a step's job: another one for each attempt."""
    attempt = f"{_ATTEMPTS_LIMIT} * $states.input.shortages + $states.context.State.RetryCount"
    return f"{{% $states.input.run_id & '-s{step}-' & $string({attempt}) %}}"


def run_uri(bucket_name: str, rest: str) -> str:
    """Return the JSONata for the URI of what a run keeps in the output bucket."""
    return f"{{% 's3://{bucket_name}/{RUNS}' & $states.input.run_id & '/{rest}' %}}"


def instance_type_of(instance_types: Sequence[str]) -> str:
    """Return the type itself, or the JSONata that goes round among several as they fall short."""
    if len(instance_types) == 1:
        return instance_types[0]
    listed = ", ".join(f"'{instance_type}'" for instance_type in instance_types)
    return f"{{% [{listed}][$states.input.shortages % {len(instance_types)}] %}}"


def run_definition(
    *,
    pipeline_id: str,
    steps: Sequence[StepTask],
    settle_function_arn: str,
    index_function_arn: str | None,
    counts_records: bool = False,
    model_parameters: Sequence[ModelParameter] = (),
    run_timeout_s: int | None = None,
) -> dict[str, Any]:
    """Return the state machine's definition.

    :param index_function_arn: `None` leaves the index out.
    :param counts_records: settle may ask for it.
    """
    read_models = read_states(
        model_parameters,
        then="Step1",
        retry=[_ANY_ERROR_RETRY],
        catch=[_catch(f"{{% $merge([$states.input, {{{_ERROR}}}]) %}}", then="Settle")],
    )
    states: dict[str, Any] = {
        "Begin": {
            "Type": "Choice",
            "Choices": [{"Condition": "{% $states.input.finish = true %}", "Next": "Settle"}],
            "Default": next(iter(read_models), "Step1"),
        },
        **read_models,
        "NextStep": {
            "Type": "Choice",
            "Choices": [
                {"Condition": f"{{% $states.input.step = {number} %}}", "Next": f"Step{number}"}
                for number in range(1, len(steps) + 1)
            ],
        },
        **{f"Step{number}": _step(number, task) for number, task in enumerate(steps, start=1)},
        "JobFailed": {
            "Type": "Choice",
            "Choices": [
                {"Condition": "{% $states.input.again = 'now' %}", "Next": "NextStep"},
                {"Condition": "{% $states.input.again = 'later' %}", "Next": "WaitForCapacity"},
            ],
            "Default": "Settle",
        },
        "WaitForCapacity": {"Type": "Wait", "Seconds": _CAPACITY_WAIT_S, "Next": "NextStep"},
        "Settle": _invoke(settle_function_arn, "{% $states.input %}") | {"Next": "Settled"},
        "Settled": {
            "Type": "Choice",
            "Choices": [
                {
                    "Condition": "{% $states.input.status = 'JobStillRuns' %}",
                    "Next": "WaitForJob",
                },
                {"Condition": "{% $states.input.status = 'NextStep' %}", "Next": "NextStep"},
                *(
                    [
                        {
                            "Condition": "{% $states.input.status = 'CountRecords' %}",
                            "Next": "CountRecords",
                        }
                    ]
                    if counts_records
                    else []
                ),
            ],
            "Default": "Announce" if index_function_arn is None else "Index",
        },
        "WaitForJob": {"Type": "Wait", "Seconds": _JOB_POLL_S, "Next": "Settle"},
    }
    if counts_records:
        states["CountRecords"] = _map(
            "CountPart",
            settle_function_arn,
            parts="count_parts",
            part="count_part",
            output="{% $merge([$states.input, {'counted': $states.input.count_parts}]) %}",
            then="Settle",
        )
    if index_function_arn is not None:
        states["Index"] = _map(
            "IndexPart",
            index_function_arn,
            parts="index_parts",
            part="part",
            # The 0 makes the sum of no parts a number.
            output=(
                "{% $merge([$states.input,"
                " {'indexed': $sum($append([0], $states.result.indexed)),"
                " 'unindexed': $sum($append([0], $states.result.unindexed))}]) %}"
            ),
            then="Announce",
        )
    states |= _announcement(pipeline_id, indexed=index_function_arn is not None)
    return {
        "Comment": "One batch: transform it, settle every drop, index and announce the outcome.",
        "QueryLanguage": "JSONata",
        "StartAt": "Begin",
        "States": states,
    } | ({} if run_timeout_s is None else {"TimeoutSeconds": run_timeout_s})


def _step(number: int, task: StepTask) -> dict[str, Any]:
    limit = min(_CAPACITY_ROUNDS * task.instance_types, _ATTEMPTS_LIMIT)
    return {
        "Type": "Task",
        "Resource": CREATE_JOB,
        "Arguments": dict(task.request),
        "TimeoutSeconds": task.timeout_s,
        "Output": {"run_id": "{% $states.input.run_id %}", "step": number},
        "Retry": JOB_RETRY,
        # However the job ended, settle sees what it left behind.
        "Catch": [
            _catch(
                "{% ("
                f"$failed := {{{_ERROR}}};"
                " $shortages := $states.input.shortages + 1;"
                " $merge([$states.input, $failed, {"
                "'shortages': $shortages,"
                f" 'again': $not($contains($failed.cause, '{_CAPACITY_ERROR}'))"
                f" or $shortages >= {limit} ? 'no'"
                f" : $shortages % {task.instance_types} = 0 ? 'later' : 'now'"
                "}])) %}",
                then="JobFailed",
            )
        ],
        "Next": "Settle",
    }


def _catch(output: str, *, then: str) -> dict[str, Any]:
    return {"ErrorEquals": ["States.ALL"], "Output": output, "Next": then}


def _invoke(function_arn: str, payload: str | dict[str, Any]) -> dict[str, Any]:
    return {
        "Type": "Task",
        "Resource": "arn:aws:states:::lambda:invoke",
        "Arguments": {"FunctionName": function_arn, "Payload": payload},
        "Output": "{% $states.result.Payload %}",
        "Retry": _LAMBDA_RETRY,
    }


def _map(
    name: str, function_arn: str, *, parts: str, part: str, output: str, then: str
) -> dict[str, Any]:
    """Return the state that calls a function for each number of a part, which it knows as `part`.

    :param parts: the member of the state that says how many there are.
    """
    payload = {"run_id": "{% $states.input.run_id %}", part: "{% $states.input.part %}"}
    return {
        "Type": "Map",
        "Items": f"{{% $states.input.{parts} = 0 ? [] : [0..$states.input.{parts} - 1] %}}",
        "MaxConcurrency": _MAP_CONCURRENCY,
        "ItemSelector": {
            "run_id": "{% $states.input.run_id %}",
            "part": "{% $states.context.Map.Item.Value %}",
        },
        "ItemProcessor": {
            "ProcessorConfig": {"Mode": "INLINE"},
            "StartAt": name,
            "States": {name: _invoke(function_arn, payload) | {"End": True}},
        },
        "Output": output,
        "Next": then,
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
