"""A local cloud in which much goes wrong, and in which every drop has to end all the same.

    python -m tests.journeys.adversity 2000

uploads so many drops, tells of one in five twice, kills Lambdas at their calls and instances at
their work, aborts executions and restarts the cloud; then it looks at what is left. The model
answers each row with its SHA-256, so that what an output must be is known without any model.
"""

import argparse
import hashlib
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batch_transform_cli.pipelines.records import Drop, Status
from batch_transform_cli.synthesis import synthesize
from local_cloud import LocalCloud, processes
from local_cloud.emulator import TEMPORARY

from .conftest import APP, PROJECT, Pipeline, deployed, set_environment

_PIPELINES = """
pipelines:
  Tried:
    model: {{artifact: model, image: {image}}}
    instance_type: ml.m5.large
    instance_count: 2
    settings:
      csv: {{data_processing: {{join_source: Input, output_filter: "$[0,-1]"}}}}
    index: {{record_id: 0}}
    batch: {{max_wait_s: 2, max_objects: {max_objects}}}
    max_concurrent_runs: 3
    max_attempts: 9 # what is killed before the model has shown that it works has had an attempt
"""
_PREDICT = """
import hashlib, time

def predict(body):
    time.sleep(0.05)
    rows = body.splitlines()
    if any(row.endswith(b"bad") for row in rows):
        raise ValueError("a row must be good")
    return b"\\n".join(hashlib.sha256(row).hexdigest().encode() for row in rows)
"""
_ROWS = 2
_DOUBLED, _BAD, _OVERWRITTEN = 1 / 5, 1 / 50, 1 / 50
_AT_ONCE = 50  # uploads, between two looks at what goes on
_LOOK_S, _STATUS_S = 0.1, 3.0
_VISIBILITY_S = 20  # of a message whose function was killed; as deployed 361 and 1801
_WAIT_SCALE = 0.2  # of the state machine's waits
_ENDED = ("done", "failed", "superseded")


class Broken(Exception):
    """Something is not as it must be."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A version of an object."""

    name: str
    body: bytes

    @property
    def is_bad(self) -> bool:
        """Whether the model refuses it."""
        return self.body.endswith(b"bad\n")

    @property
    def output(self) -> bytes:
        """What its output must be."""
        rows = self.body.splitlines()
        return b"".join(
            b"%b,%b\n" % (row.split(b",")[0], hashlib.sha256(row).hexdigest().encode())
            for row in rows
        )


@dataclass(slots=True)
class Adversity:
    """Lives through it once.

    :ivar done: what has been done to the cloud, and how often.
    """

    folder: Path
    drops: int
    seed: int
    limit_s: float
    say: Callable[[str], None] = lambda text: None
    done: Counter[str] = field(default_factory=Counter)
    _cloud: LocalCloud = field(init=False)
    _pipeline: Pipeline = field(init=False)
    _queues: Mapping[str, Mapping[str, str]] = field(init=False)
    _tap: str = field(init=False)
    _random: random.Random = field(init=False)

    def run(self) -> None:
        """Do all of it.

        :raises Broken: something is not as it must be.
        """
        self._random = random.Random(self.seed)
        uploads = self._uploads()
        assembly = self._synthesize()
        self._start()
        try:
            (outputs,) = self._cloud.deploy(assembly).values()
            self._pipeline = deployed(self._cloud, outputs)
            self._prepare()
            self._live(uploads)
            self.say(f"all have ended; what was done: {dict(self.done)}")
            problems = [*self._of_drops(uploads), *self._of_the_ledger(), *self._of_queues()]
            problems += self._of_processes()
        finally:
            self._cloud.stop()
        problems += self._of_what_is_left()
        if problems:
            raise Broken("\n".join(problems))

    # What happens

    def _uploads(self) -> list[Upload]:
        uploads: list[Upload] = []
        for number in range(self.drops):
            name = f"{number:06}.csv"
            if uploads and self._random.random() < _OVERWRITTEN:
                name = self._random.choice(uploads).name
            word = "bad" if self._random.random() < _BAD else "good"
            rows = (f"{name}-{row},{number},{word}\n" for row in range(_ROWS))
            uploads.append(Upload(name, "".join(rows).encode()))
        return uploads

    def _synthesize(self) -> Path:
        project = self.folder / "app"
        (project / "model").mkdir(parents=True)
        (project / "model" / "predict.py").write_text(_PREDICT)
        (project / "pipelines.yaml").write_text(
            _PIPELINES.format(
                image=PROJECT / "examples" / "image", max_objects=max(40, self.drops // 20)
            )
        )
        (project / "app.py").write_text(APP)
        (project / "cdk.json").write_text('{"app": "python3 app.py"}')
        synthesize(project, project / "cdk.out")
        set_environment(
            project / "cdk.out",
            PYTHONPATH=str(Path(__file__).parent / "dying"),
            DEATHS_ALLOWED=str(self._deaths / "allowed"),
        )
        self._deaths.mkdir()
        self._allow(0)
        return project / "cdk.out"

    @property
    def _deaths(self) -> Path:
        return self.folder / "deaths"

    def _allow(self, deaths: int) -> None:
        """Let each function die so often in all."""
        new = self._deaths / "new"
        new.write_text(str(deaths))
        new.rename(self._deaths / "allowed")

    def _start(self, port: int | None = None) -> None:
        self._cloud = LocalCloud(
            state_dir=self.folder / "state", port=port, wait_scale=_WAIT_SCALE
        ).start()

    def _prepare(self) -> None:
        """Let messages come again soon, and listen to what S3 tells intake."""
        sqs, events = self._cloud.client("sqs"), self._cloud.client("events")
        self._queues = {
            queue: sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]
            for queue in sqs.list_queues()["QueueUrls"]
        }
        for queue in self._queues:
            attributes = {"VisibilityTimeout": str(_VISIBILITY_S)}
            sqs.set_queue_attributes(QueueUrl=queue, Attributes=attributes)
        told = self._queues[self._pipeline.client.intake_queue_url]["QueueArn"]
        (rule,) = events.list_rule_names_by_target(TargetArn=told)["RuleNames"]
        self._tap = sqs.create_queue(QueueName="tap")["QueueUrl"]
        arn = told.rpartition(":")[0] + ":tap"
        events.put_targets(Rule=rule, Targets=[{"Id": "tap", "Arn": arn}])

    def _wake(self) -> None:
        """As on a busy pipeline; as deployed there is one wake-up a minute at least."""
        (queue,) = {*self._read_queues} - {self._pipeline.client.intake_queue_url}
        self._cloud.client("sqs").send_message(QueueUrl=queue, MessageBody="{}")

    @property
    def _read_queues(self) -> list[str]:
        """Those that are no dead letters."""
        return [queue for queue, of_it in self._queues.items() if "RedrivePolicy" in of_it]

    def _live(self, uploads: Sequence[Upload]) -> None:
        """Upload, and make trouble in step with what has ended, until all has ended."""
        left = [*uploads]
        often = max(2, self.drops // 200)
        more = [*[self._kill_instance] * (often - 1), *[self._abort] * (often // 2 - 1)]
        more += [self._restart] * (often // 5 - 1)
        self._random.shuffle(more)
        # One of each kind while there is most left that it can be done to.
        trouble = deque([self._kill_instance, self._abort, self._restart, *more])
        all_trouble = len(trouble)
        deadline, next_status = time.monotonic() + self.limit_s, 0.0
        ended = 0
        while True:
            if left:
                wave, left = left[:_AT_ONCE], left[_AT_ONCE:]
                self._upload(wave)
            self._tell_twice()
            # All of it in the first half, so that there is something left that it can be done to.
            share = min(1.0, 2 * ended / self.drops)
            self._allow(1 + int(often * share))
            if trouble and all_trouble - len(trouble) <= all_trouble * share and trouble[0]():
                made = trouble.popleft()
                self.done[made.__name__.strip("_").replace("_", " ")] += 1
            if time.monotonic() >= next_status:
                status = self._pipeline.client.status()
                ended = sum(drop.status in _ENDED for drop in status.drops)
                counts = Counter(drop.status for drop in status.drops)
                self.say(f"{dict(counts)}, {len(status.runs)} runs, {len(trouble)} troubles left")
                is_over = ended == len(uploads) and not any(run.is_open for run in status.runs)
                if is_over and not any(map(self._messages, self._read_queues)):
                    break
                if time.monotonic() > deadline:
                    raise Broken(f"all must end within {self.limit_s:g} s, got {_open(status)}")
                self._wake()
                next_status = time.monotonic() + _STATUS_S
            time.sleep(_LOOK_S)
        self._allow(0)
        for function in self._cloud.client("lambda").list_functions()["Functions"]:
            deaths = self._deaths / f"{function['FunctionName']}.deaths"
            if deaths.exists():
                module = function["Handler"].split(".")[1]
                self.done[f"kill {module}"] = len(deaths.read_text())

    def _upload(self, wave: Sequence[Upload]) -> None:
        of_key: dict[str, list[Upload]] = {}
        for upload in wave:
            of_key.setdefault(upload.name, []).append(upload)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(self._put, of_key.values()))

    def _put(self, versions: Sequence[Upload]) -> None:
        for upload in versions:
            self._pipeline.drop(upload.name, upload.body)

    def _tell_twice(self) -> None:
        """Send some of what S3 has told intake again, up to half a minute later."""
        sqs = self._cloud.client("sqs")
        while messages := self._told(sqs):
            for message in messages:
                if self._random.random() < _DOUBLED:
                    sqs.send_message(
                        QueueUrl=self._pipeline.client.intake_queue_url,
                        MessageBody=message["Body"],
                        DelaySeconds=self._random.randrange(30),
                    )
                    self.done["tell twice"] += 1
                sqs.delete_message(QueueUrl=self._tap, ReceiptHandle=message["ReceiptHandle"])

    def _told(self, sqs: Any) -> list[dict[str, Any]]:
        answer = sqs.receive_message(QueueUrl=self._tap, MaxNumberOfMessages=10)
        found: list[dict[str, Any]] = answer.get("Messages", [])
        return found

    # Trouble; each returns whether there was something to do it to

    def _kill_instance(self) -> bool:
        pids = [pid for pid, command in self._processes() if "transform_engine.instance" in command]
        if not pids:
            return False
        try:
            os.kill(self._random.choice(pids), signal.SIGKILL)
        except ProcessLookupError:
            return False  # It has just ended.
        return True

    def _abort(self) -> bool:
        states = self._cloud.client("stepfunctions")
        (machine,) = states.list_state_machines()["stateMachines"]
        found = states.list_executions(
            stateMachineArn=machine["stateMachineArn"], statusFilter="RUNNING"
        )["executions"]
        if not found:
            return False
        states.stop_execution(executionArn=self._random.choice(found)["executionArn"])
        return True

    def _restart(self) -> bool:
        port = int(self._cloud.endpoint.rpartition(":")[2])
        self._cloud.stop()
        self._start(port)
        return True

    def _processes(self) -> Iterator[tuple[int, str]]:
        for pid in processes.family(self._cloud.marker):
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
            except OSError:
                continue  # It has just ended.
            yield pid, command.replace(b"\0", b" ").decode()

    # What must hold at the end; each says what does not

    def _of_drops(self, uploads: Sequence[Upload]) -> Iterator[str]:
        """Each upload is one drop that has ended as it must, and the newest has its output."""
        status = self._pipeline.client.status()
        versions: dict[str, list[Upload]] = {}
        for upload in uploads:
            versions.setdefault(f"{self._pipeline.client.input_prefix}{upload.name}", []).append(
                upload
            )
        drops: dict[str, list[Drop]] = {}
        for drop in sorted(status.drops, key=lambda drop: drop.order):
            drops.setdefault(drop.key, []).append(drop)
        outputs = self._outputs()
        newest: dict[str, bytes] = {}
        for key, uploaded in versions.items():
            told = drops.pop(key, [])
            if len(told) != len(uploaded):
                yield f"{key} must be {len(uploaded)} drops, got {told}"
                continue
            expected = None
            for upload, drop in zip(uploaded, told, strict=True):
                may_be = {"failed"} if upload.is_bad else {"done"}
                if upload is not uploaded[-1]:
                    may_be |= {"superseded"}
                if drop.status not in may_be:
                    yield f"a drop must be {may_be}, got {drop}"
                if drop.status != "done" and not drop.reason:
                    yield f"a drop that is not done must say why, got {drop}"
                if drop.status == "done":
                    expected = upload.output
            if (got := outputs.pop(f"predictions/{key}.out", None)) != expected:
                yield f"the output of {key} must be {expected!r}, got {got!r}"
            newest[key] = expected or b""
        yield from self._of_predictions(newest)
        if drops or outputs:
            yield f"only uploads must be drops and have outputs, got {[*drops, *outputs]}"
        done = sum(drop.status == "done" for drop in status.drops)
        if (counted := sum(run.done for run in status.runs)) != done:
            yield f"each drop must be done in one run, got {done} drops, and {counted} in runs"

    def _outputs(self) -> dict[str, bytes]:
        pages = self._pipeline.s3.get_paginator("list_objects_v2").paginate(
            Bucket=self._pipeline.client.output_bucket, Prefix="predictions/"
        )
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        with ThreadPoolExecutor(8) as pool:
            return dict(zip(keys, pool.map(self._read, keys), strict=True))

    def _read(self, key: str) -> bytes:
        found = self._pipeline.s3.get_object(Bucket=self._pipeline.client.output_bucket, Key=key)
        body: bytes = found["Body"].read()
        return body

    def _of_predictions(self, expected: Mapping[str, bytes]) -> Iterator[str]:
        """Each row of the newest outputs is found by its id."""
        rows = dict(
            row.split(",") for output in expected.values() for row in output.decode().split()
        )
        ids = [*rows]
        for start in range(0, len(ids), 100):
            for record_id, found in self._pipeline.client.lookup_many(
                ids[start : start + 100]
            ).items():
                if found is None or found.prediction != [rows[record_id]]:
                    yield f"{record_id} must be {rows[record_id]}, got {found}"

    def _of_the_ledger(self) -> Iterator[str]:
        """No run holds anything any more."""
        pages = self._cloud.client("dynamodb").get_paginator("scan")
        for page in pages.paginate(TableName=self._pipeline.client.ledger_table):
            for item in page["Items"]:
                is_drop_or_run = "drop_status" in item or "run_status" in item
                if "queue" in item or ("run_id" in item and not is_drop_or_run):
                    yield f"nothing must be held or wait any more, got {item}"

    def _of_queues(self) -> Iterator[str]:
        for queue in self._queues:
            if queue not in self._read_queues and (count := self._messages(queue)):
                yield f"no message must be a dead letter, got {count} in {queue}"

    def _messages(self, queue: str) -> int:
        """Count those that can be received, that are being worked on, and that are delayed."""
        names = [f"ApproximateNumberOfMessages{which}" for which in ("", "NotVisible", "Delayed")]
        found = self._cloud.client("sqs").get_queue_attributes(
            QueueUrl=queue, AttributeNames=names
        )["Attributes"]
        return sum(int(found[name]) for name in names)

    def _of_processes(self) -> Iterator[str]:
        """The server and its idle Lambda workers are there, and nothing of any job."""
        deadline = time.monotonic() + 10
        while left := [
            c
            for _, c in self._processes()
            if "local_cloud.server" not in c and "ministack-lambda-" not in c
        ]:
            if time.monotonic() > deadline:
                yield f"no process of a job must be left, got {left}"
                return
            time.sleep(_LOOK_S)
        jobs = self.folder / "state" / TEMPORARY / "jobs"
        if jobs.exists() and (files := [*jobs.iterdir()]):
            yield f"no file of a job must be left, got {files}"

    def _of_what_is_left(self) -> Iterator[str]:
        """Of a cloud that was stopped: what it keeps, and nothing else."""
        if left := processes.family(self._cloud.marker):
            yield f"no process must be left, got {left}"
        if (temporary := self.folder / "state" / TEMPORARY).exists():
            yield f"no temporary file must be left, got {[*temporary.iterdir()]}"


def _open(status: Status) -> list[object]:
    drops = [drop for drop in status.drops if drop.is_open]
    return [*drops[:5], *[run for run in status.runs if run.is_open][:5]]


def main(arguments: Sequence[str]) -> int:
    """Live through it in a folder of its own, and say what is not as it must be."""
    parser = argparse.ArgumentParser(prog="python -m tests.journeys.adversity")
    parser.add_argument("drops", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit-s", type=float, default=3600)
    asked = parser.parse_args(arguments)
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {text}", flush=True)

    with tempfile.TemporaryDirectory(prefix="adversity-") as folder:
        adversity = Adversity(
            Path(folder), drops=asked.drops, seed=asked.seed, limit_s=asked.limit_s, say=say
        )
        try:
            adversity.run()
        except Broken as broken:
            say(str(broken))
            return 1
    say("every drop has ended as it must, and nothing is left")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
