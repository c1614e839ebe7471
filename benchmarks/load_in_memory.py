"""Takes drops in and through runs with the deployed handlers: `load_in_memory.py ASSEMBLY DROPS`.

The handlers, their environment and their batch sizes are those of the template. AWS is that of
tests/simulation, at boto3's place, with pages as large as AWS's, and each call is counted.
"""

import importlib
import json
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from benchmarks.units import item_bytes, read_units, write_units

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "lambdas")]

import boto3  # noqa: E402 (the paths come first)

from tests.simulation.aws import (  # noqa: E402
    S3,
    Account,
    Faults,
    Logs,
    SageMaker,
    StepFunctions,
    Table,
    TransformJob,
)
from tests.simulation.scheduler import Scheduler  # noqa: E402
from tests.simulation.world import simulated  # noqa: E402

_EVENT = ROOT / "tests" / "events" / "object_created.json"
_EVENTS_AT_ONCE, _WAKE_UPS_AT_ONCE = 100, 10
_INDEX_KEY = ("queue", "due")
_QUERY_BYTES = 2**20
_BODY = b"1,2,3\n"
_CONTEXT = SimpleNamespace(get_remaining_time_in_millis=lambda: 900_000)


class Meter(Account):
    """Counts the calls of each phase, and what they cost; nothing takes time and nothing fails.

    :ivar counts: by phase and figure.
    :ivar largest: of what has a limit, the largest seen.
    """

    list_page = 1000

    def __init__(self) -> None:
        super().__init__(Scheduler(0), Faults())
        self.phase = ""
        self.counts: dict[str, dict[str, float]] = {}
        self.largest: Counter[str] = Counter()
        self.ledger = Table(self, "ledger", ("pk", "sk"), on_write=self._written)
        self.s3 = S3(self)
        self.states = StepFunctions(lambda name, arguments: None)
        self.sagemaker = SageMaker(self)
        self.queues = Queues()
        self._in_transaction = False

    @property
    def query_page(self) -> int:
        """As many of the ledger's items as a page of a query holds."""
        drop = next(item for item in self.ledger.items.values() if "drop_status" in item)
        return _QUERY_BYTES // item_bytes(drop)

    def boto3_client(self, service: str, **_: Any) -> Any:
        """Return what `boto3.client` returns."""
        return self.client(
            {
                "s3": self.s3,
                "sqs": self.queues,
                "stepfunctions": self.states,
                "sagemaker": self.sagemaker,
                "logs": Logs(self.sagemaker),
            }[service]
        )

    def boto3_resource(self, service: str, **_: Any) -> Any:
        """Return what `boto3.resource` returns, of which the functions use the ledger."""
        return SimpleNamespace(Table=lambda name: self.ledger)

    def count(self, name: str, amount: float = 1) -> None:
        """Add to a figure of this phase."""
        self.counts.setdefault(self.phase, defaultdict(float))[name] += amount

    def call(self, effect: Callable[[], Any]) -> Any:
        """Count a call and make it."""
        assert isinstance(effect, partial)
        name, arguments = effect.func.__name__, effect.keywords
        self.count("calls")
        self.count(name)
        self._in_transaction = name == "transact_write_items"
        answer = effect()
        if name == "query":
            self._read(answer["Items"], arguments)
        elif name == "get_item":
            self._read([answer["Item"]] if "Item" in answer else [], arguments)
        elif name == "batch_get_item":
            for item in answer["Responses"]["ledger"]:
                self._read([item], {"ConsistentRead": True})
        elif name == "put_object" and "/manifest-" in arguments["Key"]:
            self.keep_largest("manifest_lines", len(json.loads(arguments["Body"])))
        elif name == "start_execution":
            self.keep_largest("state_bytes", len(arguments["input"]))
        return answer

    def keep_largest(self, name: str, *amounts: int) -> None:
        """Look at the size of something that has a limit."""
        self.largest[name] = max(self.largest[name], *amounts)

    def _read(self, items: list[dict[str, Any]], arguments: Mapping[str, Any]) -> None:
        consistent = arguments.get("ConsistentRead", False)
        self.count("read_units", read_units(items, consistent=consistent))

    def _written(self, before: dict[str, Any] | None, after: dict[str, Any] | None) -> None:
        transaction = self._in_transaction
        units = write_units(before, after, index=_INDEX_KEY, transaction=transaction)
        self.count("write_units", units)


class Queues:
    """Queues that only count what dispatch is to look at."""

    def __init__(self) -> None:
        self.wake_ups = 0

    def send_message(self, **_: Any) -> None:
        """Take a message."""
        self.wake_ups += 1


class Pipeline:
    """The functions of a template, by module, each invoked with its environment."""

    def __init__(self, template: Mapping[str, Any], meter: Meter) -> None:
        self._meter = meter
        self._functions = {
            resource["Properties"]["Handler"].split(".")[1]: resource["Properties"]
            for resource in template["Resources"].values()
            if resource["Type"] == "AWS::Lambda::Function"
        }

    def environment(self, module: str) -> dict[str, str]:
        """Return the function's variables, with the names of resources for what they refer to."""
        variables = self._functions[module]["Environment"]["Variables"]
        return {name: _resolved(value) for name, value in variables.items()} | {"MAX_WAIT_S": "0"}

    def invoke(self, module: str, event: Mapping[str, Any]) -> Any:
        """Invoke a function, and look at what goes in and out."""
        handle = importlib.import_module(f"transform_lambdas.{module}").handle
        with patch.dict(os.environ, self.environment(module)):
            answer = handle(event, _CONTEXT)
        self._meter.keep_largest(
            "invocation_bytes", len(json.dumps(event)), len(json.dumps(answer))
        )
        self._meter.count("invocations")
        return answer


def _resolved(value: Any) -> str:
    match value:
        case str():
            return value
        case {"Ref": name}:
            return str(name)
        case {"Fn::GetAtt": [name, attribute]}:
            return f"{name}.{attribute}"
        case {"Fn::Join": [between, parts]}:
            return str(between).join(map(_resolved, parts))
    raise ValueError(f"a variable must be made of text and references, got {value}")


@contextmanager
def _phase(meter: Meter, name: str) -> Iterator[None]:
    meter.phase = name
    began = time.process_time()
    yield
    meter.count("cpu_us", 1e6 * (time.process_time() - began))


def main(assembly: str, drops: int) -> dict[str, Any]:
    """Take so many drops in, then through runs, and return what was counted."""
    (path,) = Path(assembly).glob("*.template.json")
    template = json.loads(path.read_text())
    meter = Meter()
    pipeline = Pipeline(template, meter)
    with (
        simulated(),
        patch.object(boto3, "client", meter.boto3_client),
        patch.object(boto3, "resource", meter.boto3_resource),
    ):
        _take_in(meter, pipeline, drops)
        _run_all(meter, pipeline)
    done = sum(item.get("drop_status") == "done" for item in meter.ledger.items.values())
    slots = [item for item in meter.ledger.items.values() if item["pk"] == "slot"]
    if done != drops or any("run_id" in slot for slot in slots):
        raise AssertionError(f"every drop must be done and every slot free, got {done} and {slots}")
    return {"phases": meter.counts, "largest": meter.largest}


def _take_in(meter: Meter, pipeline: Pipeline, drops: int) -> None:
    """Upload, tell intake in batches as large as they may be, and wake dispatch as it asks for."""
    bucket = pipeline.environment("intake")["INPUT_BUCKET"]
    events = (_event(meter, bucket, number) for number in range(drops))
    while batch := [*islice(events, _EVENTS_AT_ONCE)]:
        with _phase(meter, "intake"):
            answer = pipeline.invoke("intake", {"Records": batch})
        if answer["batchItemFailures"]:
            raise AssertionError(f"intake must take all, got {answer}")
        if meter.queues.wake_ups >= _WAKE_UPS_AT_ONCE:
            _wake(meter, pipeline)
    _wake(meter, pipeline)


def _event(meter: Meter, bucket: str, number: int) -> dict[str, Any]:
    key = f"input/2026/11/27/customers-{number:08}.csv"
    put = meter.s3.put_object(Bucket=bucket, Key=key, Body=_BODY)
    event = json.loads(_EVENT.read_text())
    event["detail"]["bucket"]["name"] = bucket
    event["detail"]["object"] |= {
        "key": key,
        "size": len(_BODY),
        "etag": put["ETag"].strip('"'),
        "version-id": put["VersionId"],
        "sequencer": f"{number:016X}",
    }
    return {"messageId": f"{number:036}", "body": json.dumps(event)}


def _wake(meter: Meter, pipeline: Pipeline, *ended: str) -> list[str]:
    """Give dispatch what is in its queue, and the ends of these executions."""
    bodies = [{"detail": {"name": name}} for name in ended] or [{}]
    records = [{"messageId": "m", "body": json.dumps(body)} for body in bodies]
    meter.queues.wake_ups = 0
    with _phase(meter, "dispatch"):
        started: list[str] = pipeline.invoke("dispatch", {"Records": records})["started"]
    return started


def _run_all(meter: Meter, pipeline: Pipeline) -> None:
    """Have every run that there is scored, settled and its end told of, until none is left."""
    output = pipeline.environment("settle")["OUTPUT_BUCKET"]
    while running := [n for n, e in meter.states.executions.items() if e.status == "RUNNING"]:
        for run_id in running:
            job = _score(meter, output, run_id)
            with _phase(meter, "settle"):
                _settle(meter, pipeline, {"run_id": run_id, "step": job.number})
            meter.states.executions[run_id].status = "SUCCEEDED"
            _wake(meter, pipeline, run_id)


def _settle(meter: Meter, pipeline: Pipeline, state: dict[str, Any]) -> None:
    """Do as the state machine does, with the maps that settle asks for."""
    while (settled := pipeline.invoke("settle", state))["status"] == "CountRecords":
        for part in range(settled["count_parts"]):
            pipeline.invoke("settle", {"run_id": settled["run_id"], "count_part": part})
        state = settled | {"counted": settled["count_parts"]}
        meter.keep_largest("state_bytes", len(json.dumps(state)))
    meter.keep_largest("state_bytes", len(json.dumps(settled)))


def _score(meter: Meter, bucket: str, run_id: str) -> TransformJob:
    """Do as a transform job does."""
    files, outputs = f"runs/{run_id}/", f"runs/{run_id}/step-1-of-1/"
    job = TransformJob(f"{run_id}-s1-0", 1, f"{files}manifest-1.json", outputs, status="Completed")
    meter.sagemaker.jobs[job.name] = job
    manifest = meter.s3.current(bucket, job.manifest)
    assert manifest is not None
    _, *names = json.loads(manifest.body)
    for name in names:
        meter.s3.put_object(Bucket=bucket, Key=f"{outputs}{name}.out", Body=_BODY)
    return job


if __name__ == "__main__":
    print(json.dumps({"event": "started"}), flush=True)
    print(json.dumps({"event": "ended", **main(sys.argv[1], int(sys.argv[2]))}), flush=True)
