"""Turns waiting drops into runs while a batch is due and a slot is free, and looks after open runs.

Everything here may be cut short between any two calls and repeated by the next wake-up. A run goes
claiming → claimed → running → settled → closed, and whoever finds it takes it on from where it is.
"""

import json
import logging
import os
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import cache
from typing import Any

import boto3

from transform_lambdas import clock, metrics
from transform_lambdas.batches import Batch, BatchPolicy
from transform_lambdas.clock import Clock, utc_now
from transform_lambdas.drops import Drop
from transform_lambdas.executions import ENDED, Executions
from transform_lambdas.ledger import CLAIMED, CLAIMING, CLOSED, SETTLED, Ledger, Run, WaitingDrops
from transform_lambdas.run_files import RunFiles, step_input
from transform_lambdas.wake_queue import WakeQueue

_SCHEDULE_S = 60  # the schedule wakes dispatch so often
_LOOK_AGAIN_S = 60  # longer than a dispatch takes from opening a run to starting its execution
_LOOK_AGAIN_LIMIT_S = 3600
_TIME_TO_STOP_S = 60  # what a last round of dispatch may take before Lambda ends it

# What follows the run id, whose last six digits may look like it, in the name of an execution.
_FINISH = re.compile(r"(?<=-[0-9a-f]{6})-f\d+$")

logger = logging.getLogger(__name__)


class Dispatcher:
    """Opens runs, starts their executions, and has dead ones finished."""

    def __init__(
        self,
        *,
        pipeline_id: str,
        ledger: Ledger,
        files: RunFiles,
        input_bucket: str,
        executions: Executions,
        wake_queue: WakeQueue,
        policy: BatchPolicy,
        slots: int,
        now: Clock = utc_now,
    ) -> None:
        self._pipeline_id = pipeline_id
        self._ledger = ledger
        self._files = files
        self._input_bucket = input_bucket
        self._executions = executions
        self._wake_queue = wake_queue
        self._policy = policy
        self._slots = slots
        self._now = now

    def wake_up(
        self, messages: Sequence[Mapping[str, Any]], *, time_left_s: Callable[[], float]
    ) -> list[str]:
        """Do what wake-ups ask for; return the ids of the runs that were started.

        :param messages: each says that it is worth looking, may tell of an execution that has
            ended, and may ask for a report, as the schedule's does.
        """
        for message in messages:
            run_id = run_of(message)
            if run_id:
                self.look_at(run_id)
        self.look_after_open_runs()
        report = any(message.get("report", False) for message in messages)
        return self.dispatch(time_left_s=time_left_s, report=report)

    def dispatch(self, *, time_left_s: Callable[[], float], report: bool = True) -> list[str]:
        """Start runs while a batch is due and a slot is free; return their ids.

        :param report: look at what waits, and tell of it, also when no slot is free.
        """
        started: list[str] = []
        tried: set[tuple[str, str]] = set()
        while True:
            # A look at what waits reads up to 8 MB. Without a slot it starts no run, and who frees
            # one wakes us.
            if (tried or not report) and self._ledger.free_slot(self._slots) is None:
                return started
            waiting, apart = self._ledger.waiting(), self._ledger.waiting_apart()
            # The index still shows for a moment what was just claimed.
            batch = self._policy.cut(entry for entry in waiting if _name(entry.drop) not in tried)
            retries = [entry for entry in apart if _name(entry.drop) not in tried]
            probes = False
            if retries:
                again = self._policy.cut_apart(retries)
                # Until the model is known to work, what may be its fault is tried run by run.
                unproven = self._ledger.proven_at() <= (again.returned_at or "")
                if not unproven or self._ledger.may_probe():
                    batch, probes = again, unproven
            if not tried:
                self._report(waiting, apart)
            if batch.since is None:
                return started
            wait_s = self._policy.wait_left_s(
                batch, now=self._now(), marked_at=self._ledger.marked_at()
            )
            if wait_s > 0:
                # Every wake-up may ask for another one, so it must not do so long beforehand.
                if wait_s <= _SCHEDULE_S:
                    self._wake_queue.wake(after_s=wait_s)
                return started
            if time_left_s() < _TIME_TO_STOP_S:
                self._wake_queue.wake()
                return started
            tried.update(map(_name, batch.drops))
            run = self._open(batch, probes=probes)
            if run is None:
                return started  # no slot: the run that frees one wakes us; or another one gathers
            if self._take_on(run):
                started.append(run.run_id)

    def _report(self, *queues: WaitingDrops) -> None:
        since = min((queue.oldest for queue in queues if queue.oldest), default=None)
        waited = self._now() - clock.from_text(since) if since else timedelta()
        waiting = sum(queue.seen for queue in queues)
        free = max(0, self._slots - len(self._ledger.taken_slots()))
        metrics.emit(self._pipeline_id, {"DropsWaiting": waiting, "SlotsFree": free})
        metrics.emit(
            self._pipeline_id,
            {"OldestWaitingSeconds": max(0, round(waited.total_seconds()))},
            unit="Seconds",
        )

    def look_after_open_runs(self) -> None:
        """Take on every open run whose time has come: a wake-up may be lost, a run never is."""
        for run in self._ledger.runs_to_look_at():
            # A run that has to be finished again and again is looked at ever less often.
            pause_s = min(_LOOK_AGAIN_S * 2**run.finishes, _LOOK_AGAIN_LIMIT_S)
            if self._ledger.look_later(run, pause_s):
                self._look_at(run.run_id, may_finish=True)

    def look_at(self, run_id: str) -> None:
        """Take on one run, if it is open, because an execution of it is said to have ended."""
        self._look_at(run_id, may_finish=False)

    def _look_at(self, run_id: str, *, may_finish: bool) -> None:
        run = self._ledger.run(run_id)
        if run is None or run.status == CLOSED:
            return
        if run.status in (CLAIMING, CLAIMED):
            self._take_on(run)
            return
        status = self._executions.status(run.execution)
        if status is None:
            self._start_as(run, run.execution)
        elif status == "SUCCEEDED" and run.status == SETTLED:
            self._ledger.close_run(run.run_id)
        elif status in ENDED and (may_finish or run.finishes == 0):
            # What was finished once and died again is left to the pauses of the schedule.
            logger.warning("execution %s ended as %s; finishing its run", run.execution, status)
            execution = f"{run.run_id}-f{run.finishes + 1}"
            if self._ledger.begin_finish(run, execution):
                self._start_as(run, execution)

    def _open(self, batch: Batch, *, probes: bool) -> Run | None:
        slot = self._ledger.free_slot(self._slots)
        if slot is None:
            return None
        moment = self._now().strftime("%Y%m%dt%H%M%S")
        run_id = f"{self._pipeline_id}-{moment}-{secrets.token_hex(3)}"
        self._files.write_plan(run_id, batch.drops)
        opened = self._ledger.open_run(
            run_id,
            slot=slot,
            drops=len(batch.drops),
            look_again_s=_LOOK_AGAIN_S,
            probes=probes,
        )
        # Not opened: another dispatch is at it this moment, and goes on with what waits.
        return self._ledger.run(run_id) if opened else None

    def _take_on(self, run: Run) -> bool:
        """Bring a run from wherever it is before its start to a running execution."""
        drops, size_bytes = run.drops, run.size_bytes
        if run.status == CLAIMING:
            planned = self._files.read_plan(run.run_id)
            claimed = self._ledger.claim(run.run_id, planned)
            if claimed is None:
                return False  # Another dispatch has taken it further meanwhile.
            for drop in set(planned).difference(claimed):
                self._ledger.postpone(drop)
            if not claimed:
                self._ledger.abandon(run)
                return False
            self._files.write_manifest(run.run_id, claimed, input_bucket=self._input_bucket)
            drops, size_bytes = len(claimed), sum(drop.size for drop in claimed)
            ours = self._ledger.end_claiming(run.run_id, drops=drops, size_bytes=size_bytes)
            if ours:
                metrics.emit(self._pipeline_id, {"RunsStarted": 1, "DropsClaimed": drops})
        self._start(run.run_id, drops=drops, size_bytes=size_bytes)
        self._ledger.mark_running(run.run_id)
        return True

    def _start_as(self, run: Run, execution: str) -> None:
        """Start the run's own execution, or one that only settles what that has left behind."""
        if execution == run.run_id:
            self._start(run.run_id, drops=run.drops, size_bytes=run.size_bytes)
        else:
            self._executions.start(execution, {"run_id": run.run_id, "finish": True})

    def _start(self, run_id: str, *, drops: int, size_bytes: int) -> None:
        begin = step_input(run_id, 1, objects=drops, size_bytes=size_bytes)
        self._executions.start(run_id, begin)


def _name(drop: Drop) -> tuple[str, str]:
    return drop.key, drop.order


def run_of(message: Mapping[str, Any]) -> str | None:
    """Return the run that a wake-up speaks of: the one whose execution has changed its status."""
    name = message.get("detail", {}).get("name")
    return _FINISH.sub("", name) if name else None


@cache
def _dispatcher() -> Dispatcher:
    environment = os.environ
    return Dispatcher(
        pipeline_id=environment["PIPELINE_ID"],
        ledger=Ledger(boto3.resource("dynamodb").Table(environment["LEDGER_TABLE"])),
        files=RunFiles(boto3.client("s3"), environment["OUTPUT_BUCKET"]),
        input_bucket=environment["INPUT_BUCKET"],
        executions=Executions(boto3.client("stepfunctions"), environment["STATE_MACHINE_ARN"]),
        wake_queue=WakeQueue(boto3.client("sqs"), environment["WAKE_QUEUE_URL"]),
        policy=BatchPolicy(
            max_wait_s=float(environment["MAX_WAIT_S"]),
            max_objects=int(environment["MAX_OBJECTS"]),
            max_bytes=int(environment["MAX_BYTES"]),
        ),
        slots=int(environment["MAX_CONCURRENT_RUNS"]),
    )


def handle(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Lambda entry point: a batch of wake-ups from SQS."""
    started = _dispatcher().wake_up(
        [json.loads(message["body"]) for message in event["Records"]],
        time_left_s=lambda: context.get_remaining_time_in_millis() / 1000,
    )
    return {"started": started}
