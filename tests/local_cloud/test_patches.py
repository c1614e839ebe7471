"""Each patch against its gap: without the patch the test of its name fails."""

import json
import time
from typing import Any

import pytest

from local_cloud import LocalCloud

from .conftest import make_function, run_machine, transform_request, wait_until

SYNC = "arn:aws:states:::sagemaker:createTransformJob.sync"


def _task(resource: str, arguments: object, **more: Any) -> dict[str, Any]:
    task = {"Type": "Task", "Resource": resource, "Arguments": arguments, "End": True, **more}
    return {"QueryLanguage": "JSONata", "StartAt": "Task", "States": {"Task": task}}


def _lambda_task(function: str, **more: Any) -> dict[str, Any]:
    return _task("arn:aws:states:::lambda:invoke", {"FunctionName": function}, **more)


def test_lambda_errors_have_the_name_of_their_class(cloud: LocalCloud) -> None:
    function = make_function(
        cloud,
        "refuses",
        "class PermanentError(Exception): ...\n"
        "def handle(event, context):\n"
        "    raise PermanentError('never')\n",
    )
    retry = [
        {"ErrorEquals": ["PermanentError"], "MaxAttempts": 0},
        {"ErrorEquals": ["States.ALL"], "IntervalSeconds": 30, "MaxAttempts": 5},
    ]
    ended = run_machine(cloud, "refuses", _lambda_task(function, Retry=retry))

    assert ended["error"] == "PermanentError"
    cause = json.loads(ended["cause"])
    assert cause["errorMessage"] == "never"
    assert cause["errorType"] == "PermanentError"
    assert "raise PermanentError" in cause["stackTrace"][-1]


def test_a_worker_survives_the_exception_of_its_function(cloud: LocalCloud) -> None:
    make_function(
        cloud,
        "survives",
        "import os\n"
        "def handle(event, context):\n"
        "    if event:\n"
        "        raise ValueError(os.getpid())\n"
        "    return os.getpid()\n",
    )
    invoke = cloud.client("lambda").invoke
    failed = invoke(FunctionName="survives", Payload=b"1")
    assert failed["FunctionError"] == "Unhandled"
    before = json.load(failed["Payload"])["errorMessage"]
    after = json.load(invoke(FunctionName="survives", Payload=b"0")["Payload"])
    assert str(after) == before


def test_a_crash_is_an_exit_error(cloud: LocalCloud) -> None:
    function = make_function(
        cloud, "crashes", "import os\ndef handle(event, context):\n    os._exit(1)\n"
    )
    assert run_machine(cloud, "crashes", _lambda_task(function))["error"] == "Runtime.ExitError"


@pytest.mark.parametrize(
    ("config", "expected", "absent"),
    [
        pytest.param(
            {"LogFormat": "JSON", "ApplicationLogLevel": "INFO"},
            ['"level": "INFO"', '"message": "told you"', '"run": "r-1"'],
            "not this",
            id="JSON at INFO",
        ),
        pytest.param(
            {"LogFormat": "Text"}, ["[WARNING]\t", "a warning"], "told you", id="text at WARNING"
        ),
    ],
)
def test_lambda_logging_is_set_up(
    cloud: LocalCloud, config: dict[str, str], expected: list[str], absent: str
) -> None:
    name = f"logs-{config['LogFormat'].lower()}"
    make_function(
        cloud,
        name,
        "import logging\n"
        "log = logging.getLogger(__name__)\n"
        "def handle(event, context):\n"
        "    log.debug('not this')\n"
        "    log.info('told you', extra={'run': 'r-1'})\n"
        "    log.warning('a warning')\n",
        LoggingConfig=config,
    )
    cloud.client("lambda").invoke(FunctionName=name, Payload=b"{}")
    events = cloud.client("logs").filter_log_events(logGroupName=f"/aws/lambda/{name}")["events"]
    text = "\n".join(event["message"] for event in events)

    assert all(part in text for part in expected), text
    assert absent not in text


def test_a_stopped_execution_stays_stopped(cloud: LocalCloud) -> None:
    function = make_function(
        cloud,
        "fails-late",
        "import time\ndef handle(event, context):\n    time.sleep(4)\n    raise ValueError\n",
    )
    started = run_machine(cloud, "fails-late", _lambda_task(function), wait=False)
    states = cloud.client("stepfunctions")

    def runs() -> bool:
        history = states.get_execution_history(executionArn=started["executionArn"])["events"]
        return any(event["type"] == "TaskScheduled" for event in history)

    wait_until(runs)
    states.stop_execution(executionArn=started["executionArn"])
    time.sleep(5)
    described = states.describe_execution(executionArn=started["executionArn"])
    assert described["status"] == "ABORTED"


def test_a_stopped_execution_starts_no_other_task(cloud: LocalCloud) -> None:
    function = make_function(
        cloud,
        "fails-first",
        "def handle(event, context):\n    print('called'); raise ValueError\n",
    )
    retry = [{"ErrorEquals": ["States.ALL"], "IntervalSeconds": 1, "MaxAttempts": 9}]
    started = run_machine(cloud, "fails-first", _lambda_task(function, Retry=retry), wait=False)
    states, logs = cloud.client("stepfunctions"), cloud.client("logs")

    def calls() -> int:
        try:
            found = logs.filter_log_events(
                logGroupName="/aws/lambda/fails-first", filterPattern="called"
            )
        except logs.exceptions.ResourceNotFoundException:
            return 0
        return len(found["events"])

    wait_until(calls)
    states.stop_execution(executionArn=started["executionArn"])
    before = calls()
    time.sleep(1.5)
    assert calls() == before


def _slow_job(cloud: LocalCloud, model: str, bucket: str, name: str) -> dict[str, Any]:
    cloud.client("s3").put_object(Bucket=bucket, Key=f"{name}/in/a.csv", Body=b"SLOW\n")
    return transform_request(name, model, bucket)


def _status(cloud: LocalCloud, name: str) -> str:
    sagemaker = cloud.client("sagemaker")
    try:
        job = sagemaker.describe_transform_job(TransformJobName=name)
    except sagemaker.exceptions.ResourceNotFound:
        return "none"
    return str(job["TransformJobStatus"])


def test_stopping_an_execution_stops_its_job(cloud: LocalCloud, model: str, bucket: str) -> None:
    request = _slow_job(cloud, model, bucket, "stopped-by-execution")
    started = run_machine(cloud, "stopped", _task(SYNC, request), wait=False)
    wait_until(lambda: _status(cloud, "stopped-by-execution") == "InProgress")
    cloud.client("stepfunctions").stop_execution(executionArn=started["executionArn"])

    wait_until(lambda: _status(cloud, "stopped-by-execution") == "Stopped")


def test_an_execution_ends_at_its_time_limit_and_so_does_its_job(
    cloud: LocalCloud, model: str, bucket: str
) -> None:
    request = _slow_job(cloud, model, bucket, "stopped-by-limit")
    machine = {**_task(SYNC, request), "TimeoutSeconds": 1}
    ended = run_machine(cloud, "limited", machine)

    assert (ended["status"], ended["error"]) == ("TIMED_OUT", "States.Timeout")
    wait_until(lambda: _status(cloud, "stopped-by-limit") == "Stopped")
    states = cloud.client("stepfunctions")
    assert states.describe_execution(executionArn=ended["executionArn"])["status"] == "TIMED_OUT"


def test_an_execution_within_its_time_limit_succeeds(cloud: LocalCloud) -> None:
    machine = {
        "TimeoutSeconds": 1,
        "StartAt": "Pass",
        "States": {"Pass": {"Type": "Pass", "End": True}},
    }
    ended = run_machine(cloud, "quick-enough", machine)
    time.sleep(1.2)
    states = cloud.client("stepfunctions")
    described = states.describe_execution(executionArn=ended["executionArn"])
    assert described["status"] == "SUCCEEDED"


def test_a_task_that_times_out_stops_its_job(cloud: LocalCloud, model: str, bucket: str) -> None:
    request = _slow_job(cloud, model, bucket, "stopped-by-timeout")
    catch = [{"ErrorEquals": ["States.Timeout"], "Next": "Later"}]
    machine = _task(SYNC, request, TimeoutSeconds=1, Catch=catch)
    machine["States"]["Later"] = {"Type": "Wait", "Seconds": 30, "End": True}
    started = run_machine(cloud, "timeout", machine, wait=False)

    wait_until(lambda: _status(cloud, "stopped-by-timeout") == "Stopped")

    states = cloud.client("stepfunctions")
    assert states.describe_execution(executionArn=started["executionArn"])["status"] == "RUNNING"
    states.stop_execution(executionArn=started["executionArn"])


def test_a_runtime_error_ends_the_execution(cloud: LocalCloud) -> None:
    every = {"ErrorEquals": ["States.ALL"]}
    machine = _task(
        SYNC,
        {"NoSuchMember": 1},
        Retry=[{**every, "IntervalSeconds": 30}],
        Catch=[{**every, "Next": "Caught"}],
    )
    machine["States"]["Caught"] = {"Type": "Succeed"}
    ended = run_machine(cloud, "runtime-error", machine)
    assert (ended["status"], ended["error"]) == ("FAILED", "States.Runtime")


def test_ecr_tells_that_an_image_is_missing(cloud: LocalCloud) -> None:
    ecr = cloud.client("ecr")
    ecr.create_repository(repositoryName="images")
    with pytest.raises(ecr.exceptions.ImageNotFoundException):
        ecr.describe_images(repositoryName="images", imageIds=[{"imageTag": "none"}])


def test_log_events_of_an_unknown_stream_prefix_are_none(cloud: LocalCloud) -> None:
    logs = cloud.client("logs")
    logs.create_log_group(logGroupName="one-stream")
    logs.create_log_stream(logGroupName="one-stream", logStreamName="a")
    logs.put_log_events(
        logGroupName="one-stream",
        logStreamName="a",
        logEvents=[{"timestamp": int(time.time() * 1000), "message": "m"}],
    )
    found = logs.filter_log_events(logGroupName="one-stream", logStreamNamePrefix="b")
    assert found["events"] == []


def test_an_alarm_on_metric_math_deploys(cloud: LocalCloud) -> None:
    metric = {"Namespace": "Letters", "MetricName": "Lost"}
    lost = {"Metric": metric, "Period": 60, "Stat": "Sum"}
    alarm = {
        "Metrics": [
            {"Id": "lost", "MetricStat": lost, "ReturnData": False},
            {"Id": "all", "Expression": "2 * lost"},
        ],
        "ComparisonOperator": "GreaterThanThreshold",
        "Threshold": 0,
        "EvaluationPeriods": 1,
    }
    resources = {"Alarm": {"Type": "AWS::CloudWatch::Alarm", "Properties": alarm}}
    cloudformation = cloud.client("cloudformation")
    cloudformation.create_stack(
        StackName="metric-math", TemplateBody=json.dumps({"Resources": resources})
    )
    cloudformation.get_waiter("stack_create_complete").wait(
        StackName="metric-math", WaiterConfig={"Delay": 1, "MaxAttempts": 30}
    )
    (found,) = cloud.client("cloudwatch").describe_alarms()["MetricAlarms"]
    assert found["AlarmName"].startswith("metric-math")
