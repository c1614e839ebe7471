"""The definition, walked through by a small interpreter of what it uses of ASL and JSONata."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jsonata  # type: ignore[import-untyped]
import pytest

from batch_transform.model_parameter import ModelParameter
from batch_transform.state_machine import (
    JOB_NAME,
    MANIFEST_URI,
    OUTPUT_URI,
    run_definition,
)

SETTLE, INDEX = "arn:settle", "arn:index"
RUN_ID = "churn-20260301t120000-0a1b2c"
INPUT = {
    "run_id": RUN_ID,
    "manifest_uri": f"s3://out/runs/{RUN_ID}/manifest.json",
    "output_uri": f"s3://out/runs/{RUN_ID}/step-1",
    "finish": False,
}
SETTLED = {
    "status": "Settled",
    "run_id": RUN_ID,
    "outcome": "Completed",
    "counts": {"done": 2, "waiting": 0, "failed": 0},
    "index_parts": 2,
    "report": f"s3://out/reports/{RUN_ID}.json",
}
REQUEST = {
    "TransformJobName": JOB_NAME,
    "TransformInput": {"DataSource": {"S3DataSource": {"S3Uri": MANIFEST_URI}}},
    "TransformOutput": {"S3OutputPath": OUTPUT_URI},
}


def definition(*, indexed: bool = True, parameters: Sequence[str] = ()) -> dict[str, Any]:
    read = [
        ModelParameter(name=name, arn=f"arn:{name}", variable=f"model_{name}")
        for name in parameters
    ]
    return run_definition(
        pipeline_id="churn",
        request=REQUEST | {"ModelName": read[0].expression} if read else REQUEST,
        settle_function_arn=SETTLE,
        index_function_arn=INDEX if indexed else None,
        job_timeout_s=86_400,
        model_parameters=read,
    )


class TaskError(Exception):
    def __init__(self, error: str, cause: str | None) -> None:
        super().__init__(error)
        self.output = {"Error": error} | ({} if cause is None else {"Cause": cause})


def evaluate(
    template: Any, variables: Mapping[str, Any] = MappingProxyType({}), **states: Any
) -> Any:
    if isinstance(template, dict):
        return {name: evaluate(value, variables, **states) for name, value in template.items()}
    if isinstance(template, list):
        return [evaluate(value, variables, **states) for value in template]
    if isinstance(template, str) and template.startswith("{%"):
        value = jsonata.Jsonata(template[2:-2]).evaluate(None, {"states": states, **variables})
        assert value is not None, f"undefined, which Step Functions refuses: {template}"
        return value
    return template


Service = Callable[[str, Any], Any]


def walk(
    machine: dict[str, Any], data: Any, service: Service, visited: list[str], **context: Any
) -> Any:
    """Run a state machine to its end, note the states it visits, and return its output."""
    name: str = machine["StartAt"]
    variables: dict[str, Any] = {}
    while True:
        visited.append(name)
        state = machine["States"][name]
        states = {"input": data, "context": {"State": {"RetryCount": 0}, **context}}
        match state["Type"]:
            case "Succeed" | "Fail":
                return data
            case "Choice":
                met = [c for c in state["Choices"] if evaluate(c["Condition"], **states)]
                name = met[0]["Next"] if met else state["Default"]
                continue
            case "Task":
                try:
                    arguments = evaluate(state["Arguments"], variables, **states)
                    result = service(state["Resource"], arguments)
                except TaskError as error:
                    (catch,) = state["Catch"]
                    data = evaluate(catch["Output"], **states, errorOutput=error.output)
                    name = catch["Next"]
                    continue
                data = evaluate(state["Output"], **states, result=result)
                variables |= evaluate(state.get("Assign", {}), **states, result=result)
            case "Map":
                result = []
                for item in evaluate(state["Items"], **states):
                    mapped = {**states["context"], "Map": {"Item": {"Value": item}}}
                    inner = evaluate(state["ItemSelector"], input=data, context=mapped)
                    result.append(walk(state["ItemProcessor"], inner, service, visited))
                data = evaluate(state["Output"], **states, result=result)
        if state.get("End"):
            return data
        name = state["Next"]


class Cloud:
    """The services as far as the state machine knows them."""

    def __init__(self, *settled: dict[str, Any], job: TaskError | None = None) -> None:
        self.settled = list(settled) or [SETTLED]
        self.job = job
        self.refused_events = 0
        self.parameters: dict[str, str] = {}
        self.calls: list[tuple[str, Any]] = []

    def __call__(self, resource: str, arguments: Any) -> Any:
        service = resource.rpartition(":::")[2]
        self.calls.append((service, arguments))
        if service.startswith("sagemaker"):
            if self.job is not None:
                raise self.job
            return {"TransformJobStatus": "Completed"}
        if service == "aws-sdk:ssm:getParameter":
            if arguments["Name"] not in self.parameters:
                raise TaskError("Ssm.ParameterNotFoundException", "no such parameter")
            return {"Parameter": {"Value": self.parameters[arguments["Name"]]}}
        if service.startswith("events"):
            return {"FailedEntryCount": self.refused_events}
        if arguments["FunctionName"] == INDEX:
            return {"Payload": {"indexed": 10, "unindexed": arguments["Payload"]["part"]}}
        return {"Payload": self.settled.pop(0) if len(self.settled) > 1 else self.settled[0]}

    def of(self, service: str) -> list[Any]:
        return [arguments for name, arguments in self.calls if name.startswith(service)]

    def lambdas(self, arn: str) -> list[Any]:
        return [call["Payload"] for call in self.of("lambda") if call["FunctionName"] == arn]


def run(cloud: Cloud, *, data: dict[str, Any] = INPUT, **options: Any) -> tuple[list[str], Any]:
    visited: list[str] = []
    output = walk(definition(**options), data, cloud, visited)
    return visited, output


def test_a_good_run_is_transformed_settled_indexed_and_announced() -> None:
    cloud = Cloud()

    visited, _ = run(cloud)

    assert visited[:3] == ["Begin", "Step1", "Settle"]
    assert visited[-3:] == ["Announce", "Announced", "Succeeded"]
    assert cloud.of("sagemaker") == [
        {
            "TransformJobName": f"{RUN_ID}-s1-0",
            "TransformInput": {"DataSource": {"S3DataSource": {"S3Uri": INPUT["manifest_uri"]}}},
            "TransformOutput": {"S3OutputPath": INPUT["output_uri"]},
        }
    ]
    assert cloud.lambdas(SETTLE) == [{"run_id": RUN_ID}]
    assert cloud.lambdas(INDEX) == [{"run_id": RUN_ID, "part": 0}, {"run_id": RUN_ID, "part": 1}]
    ((entry,),) = [call["Entries"] for call in cloud.of("events")]
    assert entry == {
        "Source": "batch-transform",
        "DetailType": "Batch Transform Run Completed",
        "Detail": {
            "pipeline": "churn",
            "run_id": RUN_ID,
            "outcome": "Completed",
            "counts": SETTLED["counts"],
            "report": SETTLED["report"],
            "indexed": 20,
            "unindexed": 1,
        },
    }


@pytest.mark.parametrize("parts", [0, 1])
def test_counts_are_numbers_however_few_parts_there_are(parts: int) -> None:
    cloud = Cloud(SETTLED | {"index_parts": parts})

    run(cloud)

    (detail,) = [call["Entries"][0]["Detail"] for call in cloud.of("events")]
    assert (detail["indexed"], detail["unindexed"]) == (10 * parts, 0)


def test_without_an_index_nothing_of_it_is_there() -> None:
    cloud = Cloud()

    visited, _ = run(cloud, indexed=False)

    assert "Index" not in visited
    assert "indexed" not in str(cloud.of("events"))


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        pytest.param(TaskError("States.TaskFailed", '{"cut at 32,768 ch'), '{"cut at 32,768 ch'),
        pytest.param(TaskError("States.Timeout", None), ""),
    ],
    ids=["failed", "timed out"],
)
def test_settle_is_told_why_the_job_ended(error: TaskError, cause: str) -> None:
    cloud = Cloud(job=error)

    visited, _ = run(cloud)

    assert cloud.lambdas(SETTLE) == [
        {"run_id": RUN_ID, "error": error.output["Error"], "cause": cause}
    ]
    assert visited[-1] == "Succeeded"


def test_a_job_that_still_runs_is_waited_for() -> None:
    cloud = Cloud({"status": "JobStillRuns", "run_id": RUN_ID}, SETTLED)

    visited, _ = run(cloud)

    assert visited[2:7] == ["Settle", "JobStillRuns", "WaitForJob", "Settle", "JobStillRuns"]
    assert cloud.lambdas(SETTLE) == [{"run_id": RUN_ID}] * 2


def test_a_run_that_is_only_to_be_finished_starts_no_job() -> None:
    cloud = Cloud()

    visited, _ = run(cloud, data={"run_id": RUN_ID, "finish": True})

    assert cloud.of("sagemaker") == []
    assert visited[-1] == "Succeeded"


def test_an_event_that_was_refused_fails_the_execution() -> None:
    cloud = Cloud()
    cloud.refused_events = 1

    visited, _ = run(cloud)

    assert visited[-1] == "NotAnnounced"


def test_a_model_that_a_parameter_names_is_read_once_before_the_first_job() -> None:
    cloud = Cloud()
    cloud.parameters = {"churn": "churn-v7"}

    visited, _ = run(cloud, parameters=["churn", "churn"])

    assert visited[:4] == ["Begin", "ReadModel1", "Step1", "Settle"]
    (job,) = cloud.of("sagemaker")
    assert job["ModelName"] == "churn-v7"
    assert cloud.lambdas(SETTLE) == [{"run_id": RUN_ID}]


def test_every_parameter_is_read() -> None:
    cloud = Cloud()
    cloud.parameters = {"features": "features-v1", "churn": "churn-v7"}

    visited, _ = run(cloud, parameters=["churn", "features"])

    assert visited[1:4] == ["ReadModel1", "ReadModel2", "Step1"]


def test_without_its_parameter_a_run_creates_no_job_and_settle_is_told_why() -> None:
    cloud = Cloud()

    visited, _ = run(cloud, parameters=["churn"])

    assert cloud.of("sagemaker") == []
    assert cloud.lambdas(SETTLE) == [
        {"run_id": RUN_ID, "error": "Ssm.ParameterNotFoundException", "cause": "no such parameter"}
    ]
    assert visited[-1] == "Succeeded"


def test_a_run_that_is_only_to_be_finished_reads_no_parameter() -> None:
    cloud = Cloud()

    run(cloud, data={"run_id": RUN_ID, "finish": True}, parameters=["churn"])

    assert cloud.of("aws-sdk") == []


def test_a_parameter_that_does_not_exist_is_not_asked_for_again() -> None:
    missing, others = definition(parameters=["churn"])["States"]["ReadModel1"]["Retry"]

    assert missing["MaxAttempts"] == 0
    assert others["ErrorEquals"] == ["States.ALL"]


def all_states(machine: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, state in machine["States"].items():
        yield name, state
        if "ItemProcessor" in state:
            yield from all_states(state["ItemProcessor"])


def test_lambda_tasks_never_repeat_permanent_errors_and_repeat_all_others() -> None:
    lambdas = [
        state
        for _, state in all_states(definition())
        if state.get("Resource") == "arn:aws:states:::lambda:invoke"
    ]

    assert len(lambdas) == 2
    for state in lambdas:
        permanent, throttled, others = state["Retry"]
        assert "PermanentError" in permanent["ErrorEquals"]
        assert permanent["MaxAttempts"] == 0
        assert others["ErrorEquals"] == ["States.ALL"]
        assert (others["IntervalSeconds"], others["MaxAttempts"]) == (2, 6)

        # A new account has 10 calls at once, and one that holds a place may take 15 minutes.
        assert throttled["ErrorEquals"] == ["Lambda.TooManyRequestsException"]
        waits = [
            min(
                throttled["IntervalSeconds"] * throttled["BackoffRate"] ** attempt,
                throttled["MaxDelaySeconds"],
            )
            for attempt in range(throttled["MaxAttempts"])
        ]
        assert throttled["JitterStrategy"] == "FULL"  # half of each wait, on the average
        assert sum(waits) / 2 > 2 * 15 * 60


def test_a_refused_job_waits_with_jitter_and_a_failed_one_is_not_repeated() -> None:
    retries = {
        error: retry
        for retry in definition()["States"]["Step1"]["Retry"]
        for error in retry["ErrorEquals"]
    }

    assert set(retries) == {
        "SageMaker.ResourceLimitExceededException",
        "SageMaker.AmazonSageMakerException",
    }
    assert all(retry["JitterStrategy"] == "FULL" for retry in retries.values())
    limit = retries["SageMaker.ResourceLimitExceededException"]
    # About three history events an attempt, of the 25,000 that an execution may have.
    assert limit["MaxAttempts"] * 3 < 25_000


def test_what_the_emulator_and_aws_want_literal_is_literal() -> None:
    for _, state in all_states(definition()):
        for member in ("TimeoutSeconds", "MaxConcurrency", "Seconds"):
            assert isinstance(state.get(member, 0), int)
