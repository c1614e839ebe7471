"""Where the emulator falls short of AWS and no design serves both: one function per gap.

Each has a test in `tests/local_cloud/test_patches.py` that fails without it, so that a new version
of the emulator shows which of them can go.
"""

import contextvars
import json
import threading
from typing import Any

from local_cloud import transform_task
from local_cloud.errors import EmulatorMismatch

_RAISED = "__local_cloud_raised__"


def apply() -> None:
    """Patch the emulator that this process imports."""
    lambda_errors_have_the_name_of_their_class()
    lambda_logging_is_set_up()
    a_stopped_execution_stays_stopped()
    an_execution_ends_at_its_time_limit()
    a_task_learns_that_nobody_waits_for_it()
    a_runtime_error_ends_the_execution()
    ecr_tells_that_an_image_is_missing()
    log_events_are_filtered_by_the_prefix_of_their_stream()
    alarms_on_metric_math_deploy()


def lambda_errors_have_the_name_of_their_class() -> None:
    """Retry and Catch match the class of a Python exception; the emulator always says HandlerError.

    The worker also survives the exception, as on AWS, where the emulator restarts it. It tells us
    of the exception as if it were a result, which we turn back here.
    """
    from ministack.core import lambda_runtime
    from ministack.services import lambda_svc

    lambda_runtime._PYTHON_WORKER_SCRIPT = _replaced(
        lambda_runtime._PYTHON_WORKER_SCRIPT,
        """_real_stdout.write(json.dumps({"status": "error", "error": str(e), "trace": """
        """traceback.format_exc()}) + "\\n")""",
        f"""_real_stdout.write(json.dumps({{"status": "ok", "result": {{"{_RAISED}": {{
                "errorMessage": str(e), "errorType": type(e).__name__,
                "requestId": context.aws_request_id,
                "stackTrace": traceback.format_tb(e.__traceback__)[1:],
            }}}}}}) + "\\n")
            print("[ERROR]", traceback.format_exc().rstrip(), flush=True)""",
    )
    execute = lambda_svc._execute_function_warm

    def execute_and_name_the_error(func: Any, event: Any, request_id: str) -> Any:
        result = execute(func, event, request_id)
        body = result.get("body")
        if isinstance(body, dict) and _RAISED in body:
            return {"body": body[_RAISED], "error": True, "log": result.get("log", "")}
        if result.get("error") and body["errorMessage"] == "Worker process died":
            body["errorType"] = "Runtime.ExitError"
            body["errorMessage"] = f"RequestId: {request_id} Error: Runtime exited with error"
        return result

    lambda_svc._execute_function_warm = execute_and_name_the_error


def lambda_logging_is_set_up() -> None:
    """AWS's runtime gives the root logger a handler, and the level and format of LoggingConfig.

    Without it `logger.info` of a function is lost.
    """
    from ministack.core import lambda_runtime

    lambda_runtime._PYTHON_WORKER_SCRIPT = _replaced(
        lambda_runtime._PYTHON_WORKER_SCRIPT,
        """        try:
            result = handler_fn(event, context)""",
        """        _ms_log.aws_request_id = context.aws_request_id
        try:
            result = handler_fn(event, context)""",
    )
    lambda_runtime._PYTHON_WORKER_SCRIPT = _replaced(
        lambda_runtime._PYTHON_WORKER_SCRIPT,
        """    os.environ.update(env)
    sys.path.insert(0, code_dir)""",
        """    os.environ.update(env)
    _ms_log = _ms_set_up_logging()
    sys.path.insert(0, code_dir)""",
    )
    lambda_runtime._PYTHON_WORKER_SCRIPT = _LAMBDA_LOGGING + lambda_runtime._PYTHON_WORKER_SCRIPT
    spawn = lambda_runtime.Worker._spawn

    def spawn_with_logging_config(worker: Any) -> None:
        # AWS tells its runtime by these two variables, which a function cannot set itself.
        config = worker.config
        logging_config = config.get("LoggingConfig") or {}
        variables = {
            **(config.get("Environment") or {}).get("Variables", {}),
            "AWS_LAMBDA_LOG_FORMAT": logging_config.get("LogFormat", "Text"),
            "AWS_LAMBDA_LOG_LEVEL": logging_config.get("ApplicationLogLevel", ""),
        }
        worker.config = {**config, "Environment": {"Variables": variables}}
        try:
            spawn(worker)
        finally:
            worker.config = config

    lambda_runtime.Worker._spawn = spawn_with_logging_config


_LAMBDA_LOGGING = """
def _ms_set_up_logging():
    import json, logging, os, sys, time

    class Handler(logging.StreamHandler):
        aws_request_id = ""

        def format(self, record):
            moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            if os.environ.get("AWS_LAMBDA_LOG_FORMAT") == "JSON":
                entry = {"timestamp": moment + "Z", "level": record.levelname,
                         "message": record.getMessage(), "logger": record.name}
                if record.exc_info:
                    entry["errorType"] = record.exc_info[0].__name__
                    entry["errorMessage"] = str(record.exc_info[1])
                    entry["stackTrace"] = self.formatter.formatException(record.exc_info)
                known = logging.makeLogRecord({}).__dict__
                entry.update({k: v for k, v in record.__dict__.items()
                              if k not in known and k not in ("message", "asctime")})
                entry["requestId"] = self.aws_request_id
                return json.dumps(entry, default=str)
            text = "[%s]\\t%s.%03dZ\\t%s\\t%s" % (record.levelname, moment, record.msecs,
                                              self.aws_request_id, record.getMessage())
            if record.exc_info:
                text += "\\n" + self.formatter.formatException(record.exc_info)
            return text

    handler = Handler(sys.stderr)
    handler.setFormatter(logging.Formatter())
    logging.getLogger().addHandler(handler)
    level = os.environ.get("AWS_LAMBDA_LOG_LEVEL")
    if not level and os.environ.get("AWS_LAMBDA_LOG_FORMAT") == "JSON":
        level = "INFO"
    if level:
        logging.getLogger().setLevel({"TRACE": "DEBUG", "FATAL": "CRITICAL"}.get(level, level))
    return handler
"""


def a_stopped_execution_stays_stopped() -> None:
    """An error of its last task turns ABORTED into FAILED in the emulator, and it runs on.

    After a stop it would still start tasks: those whose retry was due, and all in a Map.
    """
    from ministack.services import stepfunctions

    fail, run, invoke = (
        stepfunctions._fail_execution,
        stepfunctions._run_execution,
        stepfunctions._invoke_resource,
    )

    def fail_unless_over(execution: Any, error: str, cause: str) -> None:
        if execution["status"] == "RUNNING":
            fail(execution, error, cause)

    def run_until_stopped(arn: str) -> None:
        execution = stepfunctions._executions.get(arn)
        transform_task.abandoned.set(
            lambda: execution is not None and execution["status"] != "RUNNING"
        )
        try:
            run(arn)
        except _Stopped:
            pass  # Its status says so already.

    def invoke_unless_stopped(resource: str, input_data: Any) -> Any:
        if transform_task.abandoned.get()():
            raise _Stopped
        return invoke(resource, input_data)

    stepfunctions._fail_execution = fail_unless_over
    stepfunctions._run_execution = run_until_stopped
    stepfunctions._invoke_resource = invoke_unless_stopped


class _Stopped(BaseException):
    """Leaves an execution's thread; no Retry, no Catch and no `except Exception` may hold it."""


def an_execution_ends_at_its_time_limit() -> None:
    """TimeoutSeconds of a whole state machine is ignored by the emulator."""
    from ministack.core.responses import now_iso
    from ministack.services import stepfunctions

    run = stepfunctions._run_execution

    def run_within_limit(arn: str) -> None:
        execution = stepfunctions._executions.get(arn)
        limit_s = _time_limit_s(stepfunctions, execution)
        if limit_s is None:
            run(arn)
            return

        def time_out() -> None:
            if execution["status"] != "RUNNING":
                return
            execution["status"] = "TIMED_OUT"
            execution["error"] = "States.Timeout"
            execution["stopDate"] = now_iso()
            details = {"executionTimedOutEventDetails": {"error": "States.Timeout"}}
            stepfunctions._add_event(execution, "ExecutionTimedOut", details)
            stepfunctions._emit_execution_status_event(execution)

        # The account and the region of the execution go with the timer's thread.
        timer = threading.Timer(limit_s, contextvars.copy_context().run, [time_out])
        timer.daemon = True
        timer.start()
        try:
            run(arn)
        finally:
            timer.cancel()

    stepfunctions._run_execution = run_within_limit


def _time_limit_s(stepfunctions: Any, execution: Any) -> float | None:
    machine = execution and stepfunctions._state_machines.get(execution["stateMachineArn"])
    try:
        limit_s = json.loads(machine["definition"]).get("TimeoutSeconds") if machine else None
    except ValueError:
        return None  # The emulator fails the execution for it.
    return None if limit_s is None else float(limit_s)


def a_runtime_error_ends_the_execution() -> None:
    """No Retry and no Catch holds States.Runtime on AWS, not even of States.ALL."""
    from ministack.services import stepfunctions

    matches = stepfunctions._error_matches

    def matches_but_no_runtime_error(error_equals: Any, error: str) -> Any:
        return error != "States.Runtime" and matches(error_equals, error)

    stepfunctions._error_matches = matches_but_no_runtime_error


def a_task_learns_that_nobody_waits_for_it() -> None:
    """TimeoutSeconds leaves the task running; a `.sync` task has to stop its job instead."""
    from ministack.services import stepfunctions

    invoke = stepfunctions._invoke_resource_with_timeout

    def invoke_and_tell(resource: str, input_data: Any, timeout: float) -> Any:
        stopped = transform_task.abandoned.get()
        over = False
        context = contextvars.copy_context()
        context.run(transform_task.abandoned.set, lambda: over or stopped())
        try:
            return context.run(invoke, resource, input_data, timeout)
        finally:
            over = True

    stepfunctions._invoke_resource_with_timeout = invoke_and_tell


def ecr_tells_that_an_image_is_missing() -> None:
    """DescribeImages of an unknown tag answers an empty list; the CDK CLI then never pushes it."""
    from ministack.core.responses import error_response_json
    from ministack.services import ecr

    describe = ecr._describe_images

    def describe_known_images(data: dict[str, Any]) -> Any:
        answer = describe(data)
        status, _, body = answer
        if status == 200 and data.get("imageIds") and not json.loads(body)["imageDetails"]:
            wanted = data["imageIds"][0]
            return error_response_json(
                "ImageNotFoundException",
                f"The image with imageId {wanted} does not exist within the repository with name "
                f"'{data['repositoryName']}'",
                400,
            )
        return answer

    ecr._describe_images = describe_known_images


def log_events_are_filtered_by_the_prefix_of_their_stream() -> None:
    """FilterLogEvents ignores logStreamNamePrefix, so one job's log would be every job's."""
    from ministack.core.responses import json_response
    from ministack.services import cloudwatch_logs

    find = cloudwatch_logs._filter_log_events

    def find_in_streams_of_the_prefix(data: dict[str, Any]) -> Any:
        prefix = data.get("logStreamNamePrefix")
        group = cloudwatch_logs._log_groups.get(cloudwatch_logs._resolve_log_group_name(data))
        if not prefix or group is None:
            return find(data)
        names = [name for name in list(group["streams"]) if name.startswith(prefix)]
        if not names:
            return json_response({"events": [], "searchedLogStreams": []})
        return find({**data, "logStreamNames": names})

    cloudwatch_logs._filter_log_events = find_in_streams_of_the_prefix


def alarms_on_metric_math_deploy() -> None:
    """CloudFormation here refuses an alarm that computes with metrics, and with it the whole stack.

    Such an alarm stands, on a metric without data: what it computes is not computed here.
    """
    from ministack.services.cloudformation import provisioners

    record = provisioners._cw_metric_alarm_record

    def record_without_the_computation(name: str, props: dict[str, Any]) -> Any:
        if not props.get("Metrics"):
            return record(name, props)
        alone = {member: value for member, value in props.items() if member != "Metrics"}
        return record(name, {**alone, "Namespace": "LocalCloud", "MetricName": "MetricMath"})

    provisioners._cw_metric_alarm_record = record_without_the_computation


def _replaced(text: str, old: str, new: str) -> str:
    if text.count(old) != 1:
        raise EmulatorMismatch(
            "the emulator's Lambda worker must have the lines that local_cloud.patches replaces, "
            f"got none like {old.strip().splitlines()[0]!r}; adapt the patch to this version"
        )
    return text.replace(old, new)
