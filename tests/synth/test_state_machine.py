"""The definition, walked through by a small interpreter of what it uses of ASL and JSONata."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jsonata  # type: ignore[import-untyped]
import pytest

from batch_transform.model_parameter import ModelParameter
from batch_transform.state_machine import (
    StepTask,
    instance_type_of,
    job_name,
    run_definition,
    run_uri,
)

SETTLE, INDEX = "arn:settle", "arn:index"
RUN_ID = "churn-20260301t120000-0a1b2c"
INPUT = {
    "run_id": RUN_ID,
    "step": 1,
    "objects": 3,
    "size_bytes": 300,
    "shortages": 0,
}
SECOND = INPUT | {"step": 2, "status": "NextStep"}
SETTLED = {
    "status": "Settled",
    "run_id": RUN_ID,
    "outcome": "Completed",
    "counts": {"done": 2, "waiting": 0, "failed": 0},
    "index_parts": 2,
    "report": f"s3://out/reports/{RUN_ID}.json",
}
TYPES = ["ml.g5.xlarge", "ml.g4dn.xlarge"]


def task(step: int, types: list[str], model: ModelParameter | None) -> StepTask:
    request: dict[str, Any] = {
        "TransformJobName": job_name(step),
        "TransformInput": {"DataSource": {"S3DataSource": {"S3Uri": run_uri("out", f"in-{step}")}}},
        "TransformOutput": {"S3OutputPath": run_uri("out", f"out-{step}")},
        "TransformResources": {"InstanceType": instance_type_of(types)},
    }
    if model is not None:
        request["ModelName"] = model.expression
    return StepTask(request=request, instance_types=len(types), timeout_s=86_400)


def definition(
    *,
    indexed: bool = True,
    counts: bool = True,
    steps: int = 1,
    parameters: Sequence[str] = (),
) -> dict[str, Any]:
    read = [
        ModelParameter(name=name, arn=f"arn:{name}", variable=f"model_{name}")
        for name in parameters
    ]
    model = read[0] if read else None
    return run_definition(
        pipeline_id="churn",
        steps=[
            task(1, TYPES, model),
            *(task(step, TYPES[:1], model) for step in range(2, steps + 1)),
        ],
        settle_function_arn=SETTLE,
        counts_records=counts,
        index_function_arn=INDEX if indexed else None,
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

    def __init__(self, *settled: dict[str, Any], jobs: Sequence[TaskError | None] = ()) -> None:
        self.settled = list(settled) or [SETTLED]
        self.jobs = list(jobs)
        self.refused_events = 0
        self.parameters: dict[str, str] = {}
        self.calls: list[tuple[str, Any]] = []

    def __call__(self, resource: str, arguments: Any) -> Any:
        service = resource.rpartition(":::")[2]
        self.calls.append((service, arguments))
        if service.startswith("sagemaker"):
            error = self.jobs.pop(0) if self.jobs else None
            if error is not None:
                raise error
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
            "TransformInput": {
                "DataSource": {"S3DataSource": {"S3Uri": f"s3://out/runs/{RUN_ID}/in-1"}}
            },
            "TransformOutput": {"S3OutputPath": f"s3://out/runs/{RUN_ID}/out-1"},
            "TransformResources": {"InstanceType": TYPES[0]},
        }
    ]
    assert cloud.lambdas(SETTLE) == [{"run_id": RUN_ID, "step": 1}]
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
    cloud = Cloud(jobs=[error])

    visited, _ = run(cloud)

    (told,) = cloud.lambdas(SETTLE)
    assert (told["run_id"], told["step"]) == (RUN_ID, 1)
    assert (told["error"], told["cause"]) == (error.output["Error"], cause)
    assert visited == ["Begin", "Step1", "JobFailed", "Settle", "Settled", "Index"] + [
        "IndexPart"
    ] * 2 + ["Announce", "Announced", "Succeeded"]


def test_a_job_that_still_runs_is_waited_for() -> None:
    told = {"status": "JobStillRuns", "run_id": RUN_ID, "step": 1}
    cloud = Cloud(told, SETTLED)

    visited, _ = run(cloud)

    assert visited[2:7] == ["Settle", "Settled", "WaitForJob", "Settle", "Settled"]
    assert cloud.lambdas(SETTLE) == [{"run_id": RUN_ID, "step": 1}, told]


def test_settle_has_the_records_counted_part_by_part_and_goes_on() -> None:
    told = {"status": "CountRecords", "run_id": RUN_ID, "step": 1, "count_parts": 3}
    # The calls that count a part answer nothing.
    cloud = Cloud(told, {}, {}, {}, SETTLED)

    visited, _ = run(cloud)

    assert visited[2:9] == ["Settle", "Settled", "CountRecords", *["CountPart"] * 3, "Settle"]
    first, *parts, last = cloud.lambdas(SETTLE)
    assert first == {"run_id": RUN_ID, "step": 1}
    assert parts == [{"run_id": RUN_ID, "count_part": part} for part in range(3)]
    assert last == told | {"counted": 3}


def test_without_a_step_whose_records_are_counted_nothing_of_it_is_there() -> None:
    assert "CountRecords" not in str(definition(counts=False))


def test_each_step_begins_with_what_settle_hands_on() -> None:
    cloud = Cloud(SECOND, SETTLED)

    visited, _ = run(cloud, steps=2)

    assert visited[:8] == [
        *("Begin", "Step1", "Settle", "Settled"),
        *("NextStep", "Step2", "Settle", "Settled"),
    ]
    _, second = cloud.of("sagemaker")
    assert second["TransformJobName"] == f"{RUN_ID}-s2-0"
    assert second["TransformOutput"] == {"S3OutputPath": f"s3://out/runs/{RUN_ID}/out-2"}
    assert [told["step"] for told in cloud.lambdas(SETTLE)] == [1, 2]


NO_CAPACITY = TaskError(
    "States.TaskFailed",
    '{"TransformJobStatus": "Failed", "FailureReason": "CapacityError: Unable to provision '
    'requested ML compute capacity. Please retry using a different ML instance type."}',
)


def test_without_capacity_the_next_type_is_tried_at_once_and_after_the_last_one_a_wait() -> None:
    cloud = Cloud(jobs=[NO_CAPACITY] * 3)
    cloud.parameters = {"churn": "churn-v7"}

    visited, _ = run(cloud, parameters=["churn"])

    jobs = cloud.of("sagemaker")
    assert [job["TransformResources"]["InstanceType"] for job in jobs] == [*TYPES, *TYPES]
    assert [job["TransformJobName"].removeprefix(RUN_ID) for job in jobs] == [
        "-s1-0",
        "-s1-1000",
        "-s1-2000",
        "-s1-3000",
    ]
    assert visited.count("WaitForCapacity") == visited.count("ReadModel1") == 1
    assert "error" not in cloud.lambdas(SETTLE)[0]


def test_a_step_begins_again_with_its_own_type_and_gives_up_in_the_end() -> None:
    cloud = Cloud(SECOND, SETTLED, jobs=[None, *[NO_CAPACITY] * 100])

    visited, _ = run(cloud, steps=2)

    assert visited.count("Step1") == 1
    assert visited.count("Step2") == 100
    assert visited.count("WaitForCapacity") == 99
    assert "CapacityError" in cloud.lambdas(SETTLE)[1]["cause"]
    assert visited[-1] == "Succeeded"


def test_a_job_that_failed_for_another_reason_is_not_repeated() -> None:
    cloud = Cloud(jobs=[TaskError("States.TaskFailed", '{"FailureReason": "AlgorithmError"}')])

    visited, _ = run(cloud)

    assert visited.count("Step1") == 1


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
    assert cloud.lambdas(SETTLE) == [{"run_id": RUN_ID, "step": 1}]


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
        INPUT | {"error": "Ssm.ParameterNotFoundException", "cause": "no such parameter"}
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

    assert len(lambdas) == 3
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
