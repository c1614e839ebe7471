"""One pipeline and its users, by one seed: uploads, Lambdas, executions, jobs, and what goes wrong.

The code of the functions is the real one. The state machine is told here in Python; that it is the
one that is deployed, tests/synth and tests/journeys show.
"""

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

from batch_transform_cli.pipelines.dead_letters import DeadLetters
from batch_transform_cli.pipelines.records import drop_of
from batch_transform_cli.pipelines.redrive import choose, requests
from tests.simulation.aws import (
    S3,
    Account,
    Faults,
    Logs,
    Queue,
    SageMaker,
    StepFunctions,
    Table,
    TransformJob,
    Version,
    service_error,
)
from tests.simulation.scheduler import Killed, Process, Scheduler
from transform_lambdas import (
    backfill,
    index,
    intake,
    ledger,
    metrics,
    record_counts,
    redrive,
    settle,
    transform_jobs,
)
from transform_lambdas.backfill import Backfill
from transform_lambdas.batches import BatchPolicy
from transform_lambdas.dispatch import Dispatcher
from transform_lambdas.executions import Executions
from transform_lambdas.index import Indexer
from transform_lambdas.inputs import Inputs
from transform_lambdas.intake import Intake, Receiver
from transform_lambdas.intake_queue import IntakeQueue
from transform_lambdas.ledger import Ledger
from transform_lambdas.outcomes import ErrorBudget
from transform_lambdas.predictions import CsvRecords, PredictionTable
from transform_lambdas.record_counts import Check, RecordCounts
from transform_lambdas.redrive import Redrive
from transform_lambdas.run_files import RunFiles, in_turn
from transform_lambdas.settle import Settlement
from transform_lambdas.transform_jobs import TransformJobs
from transform_lambdas.uploads import Uploads
from transform_lambdas.wake_queue import WakeQueue

INPUT, OUTPUT = "input-bucket", "output-bucket"
_MACHINE = "arn:aws:states:us-east-1:111122223333:stateMachine:churn"
_HOUR_S = 3600.0
_PREDICTIONS, _RUNS = "predictions/", "runs/"
_ENDED = ("done", "failed", "superseded")


class Broken(BaseException):  # no `except Exception` of the functions must take it
    """An invariant does not hold; the message says which, and when."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a seed makes happen."""

    faults: Faults
    uploads: int
    keys: int
    steps: int
    slots: int
    max_attempts: int
    max_objects: int
    poison: float  # of the objects, refused by the model
    killer: int | None  # the upload whose object ends the model server
    quota: int  # of jobs, while the trouble lasts; at least 1 after it
    trouble_s: float
    lossy: float = 0.0  # of the objects, of whose rows the model leaves the last one out
    untold: float = 0.0  # of the uploads, of which no event tells: a backfill has to find them
    model_works: bool = True
    budget: float | None = None  # the part of a batch that may come out without predictions
    redrives: int = 0  # at any time, of all that has failed until then
    max_receives: int = 5  # of an upload's message, until it is a dead letter

    @classmethod
    def of(cls, scheduler: Scheduler) -> "Plan":
        """Draw a plan, from a calm day to a bad one."""
        random = scheduler.random

        def chance(most: float) -> float:
            return random.choice((0.0, 0.0, most / 4, most))

        return cls(
            faults=Faults(
                dies=chance(0.08),
                throttled=chance(0.05),
                conflict=chance(0.2),
                slow=chance(0.1),
                doubled=chance(0.3),
                late=chance(0.1),
                lost=chance(0.5),
                aborted=chance(0.3),
                job_fails=chance(0.4),
                index_lag_s=random.choice((0.0, 0.5, 5.0)),
                skew_s=random.choice((0.0, 0.0, 2.0)),
            ),
            uploads=random.randint(1, 14),
            keys=random.choice((1, 3, 8, 100)),
            steps=random.choice((1, 1, 2)),
            slots=random.randint(1, 3),
            max_attempts=random.randint(1, 3),
            max_objects=random.choice((1, 3, 100)),
            poison=random.choice((0.0, 0.0, 0.3)),
            killer=random.choice((None, None, 0)),
            quota=random.choice((0, 1, 5, 5)),
            trouble_s=random.uniform(600, 2 * _HOUR_S),
            untold=random.choice((0.0, 0.0, 0.3, 1.0)),
            lossy=random.choice((0.0, 0.0, 0.3)),
            budget=random.choice((None, None, 0.2)),
            redrives=random.choice((0, 0, 1, 4)),
            max_receives=random.choice((1, 2, 5)),
        )


@dataclass(slots=True)
class _Upload:
    """A version of an object, as its event tells of it."""

    key: str
    version: Version
    sequencer: str


class _Serial:
    """A thread pool that takes one thing after the other: threads know no seed."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __enter__(self) -> "_Serial":
        return self

    def __exit__(self, *_: object) -> None: ...

    def map(self, call: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        return [call(item) for item in items]


@contextmanager
def simulated() -> Iterator[None]:
    """Take threads, sleep and standard output away from the functions' code."""
    with (
        patch.object(intake, "ThreadPoolExecutor", _Serial),
        patch.object(backfill, "ThreadPoolExecutor", _Serial),
        patch.object(redrive, "ThreadPoolExecutor", _Serial),
        patch.object(settle, "ThreadPoolExecutor", _Serial),
        patch.object(record_counts, "ThreadPoolExecutor", _Serial),
        patch.object(index, "ThreadPoolExecutor", _Serial),
        patch.object(metrics, "emit", lambda *_, **__: None),
    ):
        yield


@dataclass
class _Time:
    """`time` for the modules that sleep."""

    scheduler: Scheduler

    def sleep(self, seconds: float) -> None:
        self.scheduler.pause(seconds)

    def time(self) -> float:
        return self.scheduler.moment().timestamp()


class World:
    """The pipeline of one seed; `run` lets it live until all is quiet, and looks at it meanwhile.

    :param plan: what goes wrong. Default: drawn by the seed.
    """

    def __init__(self, seed: int, plan: Plan | None = None) -> None:
        self.scheduler = Scheduler(seed)
        self.plan = plan or Plan.of(self.scheduler)
        self._random = self.scheduler.random
        self.account = Account(self.scheduler, self.plan.faults)
        self.s3 = S3(self.account)
        self.ledger_table = Table(
            self.account, "ledger", ("pk", "sk"), on_write=self._look_at_write
        )
        self.predictions = Table(self.account, "predictions", ("record_id", "dropped_at"))
        self.uploads = Queue(
            self.account,
            self._intake,
            batch_size=10,
            visibility_s=361,
            max_receives=self.plan.max_receives,
        )
        self.wake_ups = Queue(
            self.account, self._dispatch, batch_size=10, visibility_s=120, max_receives=5
        )
        self.states = StepFunctions(self._execute)
        self.sagemaker = SageMaker(self.account)
        self.logs = Logs(self.sagemaker)
        self._uploaded: list[_Upload] = []
        self._told: set[str] = set()
        self._processes: dict[str, Process] = {}  # executions
        self._numbers = itertools.count(1)
        self._in_trouble = True
        self._uploads_left = self.plan.uploads
        self._backfills_left = 1  # the last, when the trouble is over; those before it may be lost
        self._redrives_left = self.plan.redrives
        self._newest_execution: Process | None = None
        self._asked_again: set[tuple[str, str, str]] = set()  # key, order, when it had failed

    # What happens

    def run(self) -> None:
        """Live through it.

        :raises Broken: an invariant does not hold.
        """
        for number in range(self.plan.uploads):
            at_s = self._random.choice((0.0, self._random.uniform(0, self.plan.trouble_s)))
            key = f"input/{self._random.randrange(self.plan.keys)}.csv"
            word = "bad" if self._random.random() < self.plan.poison else "good"
            if number == self.plan.killer:
                word = "kills"
            elif self._random.random() < self.plan.lossy:
                word = "lossy"
            row = f"id-{key}-{number},{word}\n"
            body = (row + row.replace(",", "b,")).encode()
            self.scheduler.after(at_s, partial(self._upload, key, body))
        self._every_minute()
        if self.plan.untold:
            for at_s in sorted(self._random.uniform(0, self.plan.trouble_s) for _ in range(3)):
                self.scheduler.after(at_s, partial(self.uploads.send, '{"backfill": {}}'))
        for _ in range(self.plan.redrives):
            at_s = self._random.uniform(0, self.plan.trouble_s + _HOUR_S)
            self.scheduler.after(at_s, self._redrive)
        self.scheduler.after(self.plan.trouble_s, self._calm)
        limit_s = self.plan.trouble_s + 48 * _HOUR_S
        times = _Time(self.scheduler)
        with (
            patch.object(ledger, "time", times),
            patch.object(transform_jobs, "time", times),
            patch("random.uniform", self._random.uniform),
            patch.object(ledger, "_SHARDS", 2),  # enough to merge
            patch("secrets.token_hex", self._token),
        ):
            is_quiet = self.scheduler.run(until_s=limit_s, is_over=self._is_quiet)
        if not is_quiet:
            raise Broken(f"all must come to rest, got {self._what_is_left()}")
        self._look_at_end()

    def _token(self, size: int) -> str:
        return self._random.randbytes(size).hex()

    def _calm(self) -> None:
        self._in_trouble = False
        self.account.faults = Faults(index_lag_s=1.0)
        self.scheduler.after(60, self._last_backfill)

    def _last_backfill(self) -> None:
        self._backfills_left = 0
        if self.plan.untold:
            self.uploads.send('{"backfill": {}}')

    def _redrive(self) -> None:
        """Do as the command: look at the ledger, and ask for what has failed."""
        self._redrives_left -= 1
        items = self.ledger_table.items.values()
        drops = choose([drop_of(item) for item in items if "drop_status" in item]).drops
        self._asked_again |= {(drop.key, drop.order, drop.failed_at) for drop in drops}
        self._move_dead_letters()
        for request in requests(drops):
            for delay_s in (0.0, self._random.uniform(0, 2 * _HOUR_S)):  # it may come late again
                self.uploads.send(json.dumps(request), delay_s=delay_s)

    def overwrite(self, key: str, body: bytes) -> None:
        """Upload another version now, which was not planned, and abort what runs."""
        self._uploads_left += 1
        self._upload(key, body)
        if self._newest_execution is not None:
            self.scheduler.after(0.1, self._newest_execution.kill)

    def _move_dead_letters(self) -> None:
        letters = DeadLetters(what="uploads", queue_url="uploads", url="dead", count=0)
        sqs = self.account.client(self.uploads)
        process = self.scheduler.spawn(lambda: letters.move_back(sqs))
        if self._in_trouble:  # who loses patience does it again
            self.scheduler.after(self._random.uniform(0, 0.3), process.kill)

    def _upload(self, key: str, body: bytes) -> None:
        self.s3.put_object(Bucket=INPUT, Key=key, Body=body)
        version = self.s3.current(INPUT, key)
        assert version is not None
        upload = _Upload(key, version, f"{next(self._numbers):016X}")
        self._uploaded.append(upload)
        self._uploads_left -= 1
        event = {
            "time": self.scheduler.moment().strftime("%Y-%m-%dT%H:%M:%SZ"),
            "detail": {
                "bucket": {"name": INPUT},
                "object": {
                    "key": key,
                    "size": len(body),
                    "etag": version.etag,
                    "version-id": version.version_id,
                    "sequencer": upload.sequencer,
                },
            },
        }
        if self._random.random() >= self.plan.untold:
            self._told.add(version.etag)
            self.uploads.send(json.dumps(event))

    def _every_minute(self) -> None:
        # With nothing to look at, one look of many is enough.
        if self._random.random() < 0.1 or any(
            "queue" in item for item in self.ledger_table.items.values()
        ):
            self.wake_ups.send('{"report": true}')
        if self.uploads.has_dead_letters and (not self._in_trouble or self._random.random() < 0.5):
            self._move_dead_letters()
        self.scheduler.after(60, self._every_minute)

    # Lambdas

    def _invoke(
        self, handle: Callable[[], Any], on_end: Callable[[Any, BaseException | None], None]
    ) -> None:
        process = self.scheduler.spawn(handle, on_end=on_end)
        # Lambda ends what takes longer than its timeout.
        self.scheduler.after(self._random.choice((900.0, 900.0, 60.0)), process.kill)

    def _now(self) -> Callable[[], Any]:
        skew_s = self._random.uniform(-1, 1) * self.account.faults.skew_s
        return lambda: self.scheduler.moment(skew_s)

    def _ledger(self) -> Ledger:
        return Ledger(self.ledger_table, now=self._now())

    def _files(self) -> RunFiles:
        return RunFiles(self.account.client(self.s3), OUTPUT)

    def _wake_queue(self) -> WakeQueue:
        return WakeQueue(self.account.client(self.wake_ups), "wake-ups")

    def _intake(
        self, records: list[dict[str, Any]], ended: Callable[[set[str] | None], None]
    ) -> None:
        def handle() -> set[str]:
            uploads = Uploads(prefix="input/", marker="_SUCCESS")
            recorder = Intake(self._ledger(), self._wake_queue(), uploads=uploads)
            backfiller = Backfill(
                recorder=recorder,
                ledger=self._ledger(),
                wake_queue=self._wake_queue(),
                s3=self.account.client(self.s3),
                bucket=INPUT,
                intake_queue=IntakeQueue(self.account.client(self.uploads), "uploads"),
                uploads=uploads,
                now=self._now(),
            )
            redriver = Redrive(
                ledger=self._ledger(),
                wake_queue=self._wake_queue(),
                s3=self.account.client(self.s3),
                bucket=INPUT,
                uploads=uploads,
            )
            receiver = Receiver(recorder, backfiller, redriver)
            return set(receiver.receive(records, time_left_s=lambda: 60)[1])

        self._invoke(handle, lambda failed, died: ended(None if died else failed))

    def _dispatch(
        self, records: list[dict[str, Any]], ended: Callable[[set[str] | None], None]
    ) -> None:
        def handle() -> None:
            dispatcher = Dispatcher(
                pipeline_id="churn",
                ledger=self._ledger(),
                files=self._files(),
                input_bucket=INPUT,
                executions=Executions(self.account.client(self.states), _MACHINE),
                wake_queue=self._wake_queue(),
                policy=BatchPolicy(
                    max_wait_s=60, max_objects=self.plan.max_objects, max_bytes=10**9
                ),
                slots=self.plan.slots,
                now=self._now(),
            )
            messages = [json.loads(record["body"]) for record in records]
            dispatcher.wake_up(messages, time_left_s=lambda: 300)

        self._invoke(handle, lambda _, died: ended(None if died else set()))

    def _settlement(self) -> Settlement:
        steps = in_turn([f"step-{number}" for number in range(1, self.plan.steps + 1)])
        files, inputs = self._files(), Inputs(self.account.client(self.s3), INPUT)
        return Settlement(
            pipeline_id="churn",
            ledger=self._ledger(),
            files=files,
            inputs=inputs,
            intake_queue=IntakeQueue(self.account.client(self.uploads), "uploads"),
            jobs=TransformJobs(
                self.account.client(self.sagemaker),
                self.account.client(self.logs),
                log_group="/aws/sagemaker/TransformJobs",
            ),
            wake_queue=self._wake_queue(),
            output_prefix=_PREDICTIONS,
            steps=steps,
            records=RecordCounts(
                files=files, inputs=inputs, steps=steps, checks=[Check()] * len(steps)
            ),
            max_attempts=self.plan.max_attempts,
            budget=ErrorBudget(self.plan.budget),
            indexed=True,
        )

    def _index(self, run_id: str, part: int) -> None:
        indexer = Indexer(
            files=self._files(),
            table=PredictionTable(self.predictions),
            record_format=CsvRecords(record_id=0),
            retention_days=None,
        )
        indexer.index(run_id, part)

    # The state machine

    def _execute(self, name: str, arguments: dict[str, Any]) -> None:
        self._look_at_executions()

        def ended(_: Any, died: BaseException | None) -> None:
            status = "SUCCEEDED" if died is None else "FAILED"
            self.states.executions[name].status = "ABORTED" if isinstance(died, Killed) else status
            if not self.account.likely(self.account.faults.lost):
                self.wake_ups.send(json.dumps({"detail": {"name": name}}))

        process = self.scheduler.spawn(lambda: self._steps(arguments), on_end=ended)
        self._newest_execution = process
        if self.account.likely(self.account.faults.aborted):
            self.scheduler.after(self._random.uniform(0, 1200), process.kill)

    def _steps(self, arguments: dict[str, Any]) -> None:
        run_id = arguments["run_id"]
        state = arguments if arguments.get("finish") else self._step(arguments)
        while True:
            state = self._call(lambda: self._settlement().settle(state))  # noqa: B023
            if state["status"] == "JobStillRuns":
                self.scheduler.pause(20)
            elif state["status"] == "CountRecords":
                for part in range(state["count_parts"]):
                    self._call(lambda: self._settlement().count(run_id, part))  # noqa: B023
                state = state | {"counted": state["count_parts"]}
            elif state["status"] == "NextStep":
                state = self._step(state)
            else:
                break
        for part in range(state["index_parts"]):
            self._call(partial(self._index, run_id, part))

    def _call(self, handle: Callable[[], Any]) -> Any:
        """Do as a task that invokes a function, and tries again what fails."""
        for attempt in range(7):
            answer: list[tuple[Any, BaseException | None]] = []
            self._invoke(handle, lambda result, died: answer.append((result, died)))  # noqa: B023
            while not answer:
                self.scheduler.pause(1)
            ((result, died),) = answer
            if died is None:
                return result
            self.scheduler.pause(self._random.uniform(0, min(2.0 * 2**attempt, 60)))
        raise service_error("States.TaskFailed")

    def _step(self, state: dict[str, Any]) -> dict[str, Any]:
        told = {"run_id": state["run_id"], "step": state["step"]}
        for attempt in range(900):
            name = f"{state['run_id']}-s{state['step']}-{attempt}"
            files, step = f"{_RUNS}{state['run_id']}/", state["step"]
            manifest, outputs = f"manifest-{step}.json", f"step-{step}-of-{self.plan.steps}/"
            job = TransformJob(name, next(self._numbers), files + manifest, files + outputs)
            self.scheduler.pause(self._random.uniform(0.1, 5))
            running = [each for each in self.sagemaker.jobs.values() if _runs(each)]
            if len(running) >= (self.plan.quota if self._in_trouble else max(1, self.plan.quota)):
                self.scheduler.pause(self._random.uniform(0, 300))
                continue
            self.sagemaker.jobs[name] = job
            self._look_at_jobs()
            self.scheduler.spawn(lambda: self._work(job))  # noqa: B023
            try:
                while _runs(job):
                    self.scheduler.pause(15)
            except Killed:
                # Step Functions asks for the job's end when an execution is aborted, once.
                if _runs(job) and self._random.random() < 0.7:
                    self.sagemaker.stop_transform_job(TransformJobName=name)
                raise
            if job.status == "Completed":
                return told
            return told | {"error": "States.TaskFailed", "cause": json.dumps({"s": job.status})}
        return told | {"error": "SageMaker.ResourceLimitExceededException", "cause": "quota"}

    # SageMaker

    def _work(self, job: TransformJob) -> None:
        """Do as a transform job does: an output for each object that the model does not refuse."""
        self.scheduler.pause(self._random.uniform(60, 400))
        bucket, keys = self._read_manifest(job)
        fails_after = len(keys) if self.plan.model_works else 0
        if self.account.likely(self.account.faults.job_fails):
            fails_after = self._random.randrange(len(keys) + 1)
        for number, (key, name) in enumerate(keys):
            if job.status == "Stopping" or number >= fails_after:
                break
            self.scheduler.pause(self._random.uniform(1, 60))
            version = self.s3.current(bucket, key)
            assert version is not None
            self.scheduler.pause(self._random.uniform(1, 60))
            if b"kills" in version.body:
                fails_after = number
                break
            if b"bad" in version.body:
                job.log += [f"2026:[sagemaker logs]: {bucket}/{key}: ClientError: 400 bad row"]
                continue
            output = f"{job.outputs}{name}.out"
            answers = version.body.splitlines(keepends=True)
            if b"lossy" in version.body and len(answers) > 1:
                answers.pop()
            self.s3.put_object(Bucket=OUTPUT, Key=output, Body=b"".join(answers))
        self.scheduler.pause(self._random.uniform(1, 60))
        if job.status == "Stopping":
            job.status = "Stopped"
        elif fails_after < len(keys):
            job.status, job.failure_reason = "Failed", "AlgorithmError: the model server died"
        elif job.log:
            job.status = "Failed"
            job.failure_reason = "ClientError: See job logs for more information"
        else:
            job.status = "Completed"

    def _read_manifest(self, job: TransformJob) -> tuple[str, list[tuple[str, str]]]:
        """Return the bucket, and each object's key and its name behind the prefix."""
        version = self.s3.current(OUTPUT, job.manifest)
        if version is None:
            raise self._broken(f"a job must have its manifest, got none at {job.manifest}")
        head, *names = json.loads(version.body)
        bucket, _, prefix = head["prefix"].removeprefix("s3://").partition("/")
        self._look_at_inputs(job, names)
        return bucket, [(prefix + name, name) for name in names]

    # Invariants

    def _broken(self, what: str) -> Broken:
        return Broken(f"{what} at {self.scheduler.now_s:,.1f} s")

    def _look_at_write(self, before: dict[str, Any] | None, after: dict[str, Any] | None) -> None:
        key = (after or before or {})["pk"], (after or before or {})["sk"]
        if key[1].startswith("drop#"):
            self._look_at_drop(key, before, after)
        elif key[0] == "slot" and before and before.get("run_id"):
            held = before["run_id"]
            if (after or {}).get("run_id") not in (None, held):
                raise self._broken(f"a slot must be free before another run has it, got {key}")
            if after and after.get("run_id") is None:
                self._look_at_freed(held)

    def _look_at_drop(
        self, key: tuple[str, str], before: dict[str, Any] | None, after: dict[str, Any] | None
    ) -> None:
        if after is None:
            raise self._broken(f"a drop must never disappear, got {key}")
        old, new = (before or {}).get("drop_status"), after["drop_status"]
        may_be = {
            None: ("waiting", "failed"),
            "waiting": ("waiting", "claimed", "superseded"),
            "claimed": ("claimed", "done", "failed", "waiting", "superseded"),
            "failed": ("failed", "waiting"),
        }.get(old, (old,))
        if new not in may_be:
            raise self._broken(f"a drop that is {old} must not become {new}, got {key}")
        if old == new == "claimed" and before and before["run_id"] != after["run_id"]:
            raise self._broken(f"a drop must have one claim at a time, got two of {key}")
        if old != new and new == "done":
            self._look_at_done(after)
        if old == "failed" and new == "waiting" and before:
            self._look_at_again(before, after)

    def _look_at_again(self, before: dict[str, Any], after: dict[str, Any]) -> None:
        failure = (before["object_key"], before["ordering"], before["ended_at"])
        if failure not in self._asked_again:
            raise self._broken(f"a failure must be asked for to be tried again, got {failure}")
        if after["attempts"] or after.get("tried_with"):
            raise self._broken(f"a drop must begin anew when it is tried again, got {after}")

    def _look_at_done(self, drop: dict[str, Any]) -> None:
        key = drop["object_key"]
        prediction = self.s3.current(OUTPUT, f"{_PREDICTIONS}{key}.out")
        scored = next(u for u in self._uploaded if u.version.etag == drop["etag"])
        if prediction is None:
            raise self._broken(f"a drop that is done must have its predictions, got none of {key}")
        if prediction.body != scored.version.body:
            raise self._broken(
                f"a drop must be done with its own predictions, got {prediction.body!r} for "
                f"{scored.version.body!r}"
            )

    def _look_at_inputs(self, job: TransformJob, names: Sequence[str]) -> None:
        run_id, _, attempt = job.name.rpartition("-s")
        step = int(attempt.partition("-")[0])
        claimed = {
            item["object_key"]
            for item in self.ledger_table.items.values()
            if item.get("drop_status") == "claimed" and item["run_id"] == run_id
        }
        if not claimed.issuperset(name.removesuffix(".out" * (step - 1)) for name in names):
            raise self._broken(f"a job must read only what its run has claimed, got {names}")

    def _look_at_freed(self, run_id: str) -> None:
        jobs = [job.name for job in self.sagemaker.jobs.values() if job.name.startswith(run_id)]
        running = [name for name in jobs if _runs(self.sagemaker.jobs[name])]
        if running:
            raise self._broken(f"a run whose job runs must keep its slot, got {running} without")

    def _look_at_jobs(self) -> None:
        running = [job.name for job in self.sagemaker.jobs.values() if _runs(job)]
        if len(running) > self.plan.slots:
            raise self._broken(f"at most {self.plan.slots} jobs must run at a time, got {running}")

    def _look_at_executions(self) -> None:
        running = {
            execution.arguments["run_id"]
            for execution in self.states.executions.values()
            if execution.status == "RUNNING"
        }
        settled = {
            item["run_id"]
            for item in self.ledger_table.items.values()
            if item["sk"] == "run" and item["run_status"] in ("settled", "closed")
        }
        if len(running - settled) > self.plan.slots:
            raise self._broken(f"at most {self.plan.slots} runs must be in flight, got {running}")

    def _is_quiet(self) -> bool:
        if (
            self._uploads_left
            or self._backfills_left
            or self._redrives_left
            or not self.uploads.is_empty
            or self.uploads.has_dead_letters
            or self._in_trouble
        ):
            return False
        return not any(
            "queue" in item
            or item.get("drop_status") == "claimed"
            or (item["sk"] != "run" and "run_id" in item and "drop_status" not in item)
            for item in self.ledger_table.items.values()
        )

    def _what_is_left(self) -> Sequence[str]:
        return [
            f"{item['pk']}: {[item.get(name) for name in ('drop_status', 'run_status', 'run_id')]}"
            for item in self.ledger_table.items.values()
            if item.get("drop_status") not in _ENDED and item.get("run_status") != "closed"
        ]

    def _look_at_reports(self) -> None:
        """What a run has ended, its report must tell; a redrive or a newer version may follow."""
        told: dict[tuple[str, str], str] = {}
        for item in self.ledger_table.items.values():
            if item["sk"] != "run":
                continue
            report = self._report(f"reports/{item['run_id']}.json")
            drops = self._report(f"reports/{item['run_id']}.drops.jsonl")
            counts = Counter(drop["status"] for drop in drops)
            if len(report) != 1 or report[0]["counts"] != {
                status: counts[status] for status in (*_ENDED, "waiting")
            }:
                raise self._broken(f"a report must count its drops, got {report} for {drops}")
            told |= {(item["run_id"], drop["etag"]): drop["status"] for drop in drops}
        done: dict[str, list[str]] = {}
        for item in self.ledger_table.items.values():
            if item.get("drop_status") not in ("done", "failed") or "run_id" not in item:
                continue
            if told.get((item["run_id"], item["etag"])) != item["drop_status"]:
                raise self._broken(f"the report of a run must tell how {item} ended, got {told}")
            if item["drop_status"] == "done":
                # Twice, if a late event made a listing find an upload that was known already.
                done.setdefault(item["etag"], []).append(item["run_id"])
        by_run: dict[str, list[str]] = {}
        for (run_id, etag), status in told.items():
            if status == "done":
                by_run.setdefault(etag, []).append(run_id)
        if {etag: sorted(runs) for etag, runs in by_run.items()} != {
            etag: sorted(runs) for etag, runs in done.items()
        }:
            raise self._broken(f"reports must tell what is done, got {by_run} of {done}")

    def _report(self, key: str) -> list[dict[str, Any]]:
        version = self.s3.current(OUTPUT, key)
        return [json.loads(line) for line in version.body.splitlines()] if version else []

    def _look_at_end(self) -> None:
        self._look_at_reports()
        items = self.ledger_table.items
        drops: dict[str, dict[str, Any]] = {}
        for item in items.values():
            # An event and a listing may tell of one upload at one moment; then one is superseded.
            if "drop_status" in item and drops.get(item["etag"], {}).get("drop_status") in (
                None,
                "superseded",
            ):
                drops[item["etag"]] = item
        for upload in self._uploaded:
            drop = drops.get(upload.version.etag)
            if drop is None:
                newest_of_key = self.s3.current(INPUT, upload.key) is upload.version
                if newest_of_key or upload.version.etag in self._told:
                    raise self._broken(f"every upload must be in the ledger, got no {upload}")
                continue  # Overwritten before anybody could know of it.
            if drop["drop_status"] not in _ENDED:
                raise self._broken(f"every drop must end, got {drop}")
            if drop["drop_status"] != "done" and not drop.get("reason"):
                raise self._broken(f"a drop that is not done must say why, got {drop}")
        by_key: dict[str, list[_Upload]] = {}
        for upload in self._uploaded:
            by_key.setdefault(upload.key, []).append(upload)
        for key, uploads in by_key.items():
            newest = drops[uploads[-1].version.etag]
            if newest["drop_status"] == "superseded":
                raise self._broken(f"the newest version of {key} must be scored, got {newest}")
            done = [
                upload
                for upload in uploads
                if drops.get(upload.version.etag, {}).get("drop_status") == "done"
            ]
            prediction = self.s3.current(OUTPUT, f"{_PREDICTIONS}{key}.out")
            if (prediction.body if prediction else None) != (
                done[-1].version.body if done else None
            ):
                raise self._broken(
                    f"the newest predictions of {key} must be there, got {prediction}"
                )
            for upload in done:
                record_id = upload.version.body.split(b",")[0].decode()
                if not any(pk == record_id for pk, _ in self.predictions.items):
                    raise self._broken(f"every prediction must be indexed, got no {record_id}")


def _runs(job: TransformJob) -> bool:
    return job.status in ("InProgress", "Stopping")
