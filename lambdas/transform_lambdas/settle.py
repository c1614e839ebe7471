"""Looks at which outputs a step has made, and hands them on to the next step of the run.

After the last one, or when nothing is left to hand on, it ends or gives back each of the drops.
"""

import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import boto3
from botocore.config import Config

from transform_lambdas import index_work, metrics, report
from transform_lambdas.batches import generation, halves
from transform_lambdas.drops import Drop
from transform_lambdas.errors import UnknownRun
from transform_lambdas.index_work import Output
from transform_lambdas.inputs import Inputs
from transform_lambdas.intake_queue import IntakeQueue
from transform_lambdas.ledger import (
    CLAIMED,
    DONE,
    FAILED,
    SUPERSEDED,
    WAITING,
    Entry,
    Ledger,
    Run,
)
from transform_lambdas.outcomes import (
    NAME_IN_USE,
    ErrorBudget,
    Missing,
    explain,
    explain_short,
    judge,
    run_outcome,
)
from transform_lambdas.record_counts import Check, Compared, RecordCounts
from transform_lambdas.report import Fate
from transform_lambdas.run_files import RunFiles, Step, in_turn, prediction_key, step_input
from transform_lambdas.transform_jobs import UNFINISHED, Job, TransformJobs, refusal
from transform_lambdas.wake_queue import WakeQueue

_LOOK_FOR_AFTER_S = 60  # by then the drop that was overtaken is superseded
_COUNTED_IN_VAIN = 8  # executions that died, over some hours: the records are not counted then
_AT_ONCE = 16  # calls to S3 and DynamoDB, each on a connection of its own
_CONFIG = Config(max_pool_connections=_AT_ONCE)

logger = logging.getLogger(__name__)


class Settlement:
    """Settles runs. It may be cut short anywhere and repeated: what is settled stays so."""

    def __init__(
        self,
        *,
        pipeline_id: str,
        ledger: Ledger,
        files: RunFiles,
        inputs: Inputs,
        intake_queue: IntakeQueue,
        jobs: TransformJobs,
        wake_queue: WakeQueue,
        output_prefix: str,
        steps: Sequence[Step],
        records: RecordCounts,
        max_attempts: int,
        budget: ErrorBudget,
        indexed: bool,
    ) -> None:
        self._pipeline_id = pipeline_id
        self._ledger = ledger
        self._files = files
        self._inputs = inputs
        self._intake_queue = intake_queue
        self._jobs = jobs
        self._wake_queue = wake_queue
        self._output_prefix = output_prefix
        self._steps = steps
        self._records = records
        self._max_attempts = max_attempts
        self._budget = budget
        self._indexed = indexed

    def settle(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """Settle the run, hand on to its next step, or have its records counted.

        Returns what the state machine goes on with.

        :param told: `run_id`; the `step` that has ended, and if it failed its `error` and `cause`.
            Without a step no other one follows: the run's execution has died. `counted`: in how
            many parts the records were.
        :raises UnknownRun: the run is not in the ledger.
        """
        run_id = told["run_id"]
        run = self._ledger.run(run_id)
        if run is None:
            raise UnknownRun(run_id)
        if run.result is not None:
            self._wake_queue.wake()
            return dict(run.result)
        jobs = self._jobs.of_run(run_id)
        unfinished = [job for job in jobs if job.status in UNFINISHED]
        if unfinished:
            # The execution has died or given up, its job has not: no drop of it may start anew yet.
            # A name that is in use is that of an earlier call of ours, whose answer was lost.
            if not NAME_IN_USE.shows_in(refusal(told)):
                for job in unfinished:
                    self._jobs.stop(job)
            return {**told, "status": "JobStillRuns"}
        step = next((step for step in self._steps[:-1] if step.number == told.get("step")), None)
        if step is not None and (sizes := self._files.output_sizes(run_id, step)):
            self._files.hand_on(run_id, step, sizes)
            begin = step_input(
                run_id, step.number + 1, objects=len(sizes), size_bytes=sum(sizes.values())
            )
            return begin | {"status": "NextStep"}
        drops = self._drops(run_id)
        made = self._files.output_sizes(run_id, self._steps[-1])
        sizes = {drop.key: made[drop.key] for drop in drops if drop.key in made}
        if "counted" not in told and run.finishes < _COUNTED_IN_VAIN:
            parts = self._records.plan(run_id, [drop for drop in drops if drop.key in sizes])
            if parts:
                return {**told, "status": "CountRecords", "count_parts": parts}
        result = self._settle(run, jobs, told, drops, sizes)
        if self._ledger.settle_run(run, result):
            self._count(result)
        self._wake_queue.wake()
        return result

    def count(self, run_id: str, part: int) -> dict[str, Any]:
        """Count one part of the run's records."""
        self._records.count(run_id, part)
        return {}

    def _drops(self, run_id: str) -> list[Drop]:
        """Return what the run has claimed."""
        planned = {drop.key: drop for drop in self._files.read_plan(run_id)}
        return [planned[key] for key in self._files.read_claimed(run_id)]

    def _settle(
        self,
        run: Run,
        jobs: Sequence[Job],
        told: Mapping[str, Any],
        drops: Sequence[Drop],
        sizes: Mapping[str, int],
    ) -> dict[str, Any]:
        run_id = run.run_id
        since = self._ledger.settling_since(run_id)
        last = self._steps[-1]
        in_vain = "counted" not in told and run.finishes >= _COUNTED_IN_VAIN
        records = self._records.compare(
            run_id, sizes, parts=told.get("counted", 0), in_vain=in_vain
        )
        whole = {key: size for key, size in sizes.items() if not records[key].short}
        claimed = [
            entry
            for entry in self._ledger.entries(drops)
            if entry.run_id == run_id and entry.status == CLAIMED
        ]
        overtaken = self._overtaken(run_id, claimed)
        # Of all that the run had, so that a settlement that was cut short decides the same again.
        missing = [drop.key for drop in drops if drop.key not in whole]
        why_missing = self._explain(run_id, missing, records, jobs, told)
        halved = max((generation(entry.group) for entry in claimed), default=0)
        groups = halves(run_id, missing, of=halved)
        overrun = self._budget.overrun(why_missing.values(), drops=len(drops), is_whole=halved == 0)
        works = bool(sizes)
        if works:
            self._ledger.prove()
        proven_at = self._ledger.proven_at() if missing else ""

        def settle_one(entry: Entry) -> None:
            key = entry.drop.key
            if key in overtaken:
                newest = self._ledger.newest(key)
                if newest is None or newest.drop == entry.drop or newest.status == SUPERSEDED:
                    # Nobody has told of the version that is there, or it was taken for an older.
                    self._intake_queue.ask({"prefix": key}, after_s=_LOOK_FOR_AFTER_S)
                self._ledger.overtake(run_id, entry.drop)
                return
            if key in whole:
                prediction = self._files.promote(
                    run_id, last, key, size=whole[key], prefix=self._output_prefix
                )
                self._ledger.finish_drop(run_id, entry.drop, output=prediction)
                return
            why = why_missing[key]
            verdict = judge(
                why,
                attempts=entry.attempts,
                max_attempts=self._max_attempts,
                alone=run.drops == 1,
                proven=works or proven_at > (entry.first_returned_at or run.opened_at),
                overrun=overrun,
            )
            if verdict.fails is not None:
                self._ledger.fail_drop(run_id, entry.drop, reason=verdict.fails)
            else:
                self._ledger.give_back(
                    run_id,
                    entry.drop,
                    reason=why.reason,
                    ages=verdict.ages,
                    group=groups[key] if why.kind.apart else entry.group,
                )

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(settle_one, claimed))

        # From the ledger, so that a settlement in two halves tells of both.
        entries = {
            entry.drop.key: entry for entry in self._ledger.entries(drops) if entry.run_id == run_id
        }
        fates = [
            Fate(
                drop=drop,
                entry=entries.get(drop.key),
                output=(prediction_key(self._output_prefix, drop.key), sizes.get(drop.key, 0)),
                records=records.get(drop.key, Compared()),
                missing=why_missing.get(drop.key),
            )
            for drop in drops
        ]
        return self._write_down(run, since, fates, jobs, overrun)

    def _write_down(
        self,
        run: Run,
        since: str,
        fates: Sequence[Fate],
        jobs: Sequence[Job],
        overrun: str | None,
    ) -> dict[str, Any]:
        """Write the report and the index work, and return the run's result."""
        run_id = run.run_id
        done = [fate for fate in fates if fate.status == DONE]
        statuses = Counter(fate.status for fate in fates)
        counts = {status: statuses[status] for status in (DONE, WAITING, FAILED, SUPERSEDED)}
        outcome = run_outcome(counts)
        jobs_told = self._tell_of_jobs(jobs)
        models = sorted({job["model"] for job in jobs_told if job["model"]})
        totals = report.totals(fates, jobs_told)
        outputs = None
        if done:
            outputs = self._files.write_outputs(
                run_id, [fate.drop.key for fate in done], prefix=self._output_prefix
            )
        self._files.write_report(
            run_id,
            {
                "version": report.VERSION,
                "run_id": run_id,
                "pipeline": self._pipeline_id,
                "outcome": outcome,
                "opened_at": run.opened_at,
                "settled_at": since,
                "counts": counts,
                "totals": totals,
                "errors": report.errors(fates),
                "budget": {
                    "max_failed_fraction": self._budget.max_failed_fraction,
                    "overrun": overrun,
                },
                "steps": [
                    {"name": step.name, "compares_records": self._records.compares(step)}
                    for step in self._steps
                ],
                "jobs": jobs_told,
                "models": {name: report.model_of(self._jobs.model(name)) for name in models},
                "drops": self._files.write_drops(run_id, (fate.to_dict() for fate in fates)),
                "outputs": outputs,
            },
        )
        return {
            "status": "Settled",
            "run_id": run_id,
            "outcome": outcome,
            "counts": counts,
            "index_parts": self._plan_index(run_id, done) if self._indexed else 0,
            "report": self._files.report_uri(run_id),
            "records": {"in": totals["records_in"], "out": totals["records_out"]},
        }

    def _overtaken(self, run_id: str, claimed: Sequence[Entry]) -> set[str]:
        """Return the keys that held a version other than the drop's when this was first asked.

        Decided once a run: what is overwritten later may have its predictions in their place.
        """
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            answers = list(pool.map(lambda entry: self._inputs.is_overtaken(entry.drop), claimed))
        found = [entry.drop.key for entry, answer in zip(claimed, answers, strict=True) if answer]
        return set(self._files.write_overtaken(run_id, found))

    def _tell_of_jobs(self, jobs: Sequence[Job]) -> list[dict[str, Any]]:
        names = {step.number: step.name for step in self._steps}
        return [
            # A deployment may have taken the step away meanwhile.
            report.job_of(job, described, step=names.get(job.step, str(job.step)))
            for job, described in zip(jobs, self._jobs.describe(jobs), strict=True)
        ]

    def _explain(
        self,
        run_id: str,
        missing: Iterable[str],
        records: Mapping[str, Compared],
        jobs: Sequence[Job],
        told: Mapping[str, Any],
    ) -> dict[str, Missing]:
        """Say of each of these keys why it has no output, by the first step that made none."""
        found: dict[str, Missing] = {}
        left: set[str] = set()
        for key in missing:
            if key in records and (short := records[key].short):
                step, records_in, records_out = short
                found[key] = explain_short(
                    step.subject(key), records_in=records_in, records_out=records_out
                )
            else:
                left.add(key)
        before: Step | None = None
        for step in self._steps:
            if not left:
                break
            lost = left.difference([] if step.is_last else self._files.output_sizes(run_id, step))
            left -= lost
            of_step = [job for job in jobs if job.step == step.number]
            # Step 1 reads the drops, each other one what the step before it has written.
            bucket = self._files.bucket if before else self._inputs.bucket
            read = {before.output_key(run_id, key) if before else key: key for key in lost}
            before = step
            said = self._jobs.complaints(of_step, bucket=bucket, keys=read)
            for read_key, key in read.items():
                found[key] = explain(
                    step.subject(key),
                    jobs=of_step,
                    complaint=said.get(read_key),
                    error=told if told.get("step") == step.number else {},
                )
        return found

    def _plan_index(self, run_id: str, done: Sequence[Fate]) -> int:
        work = index_work.parts(
            Output(
                key=self._steps[-1].output_key(run_id, fate.drop.key),
                size=fate.output[1],
                source_key=fate.drop.key,
                # S3 tells whole seconds; the version's order decides between drops of one second.
                dropped_at=f"{fate.drop.dropped_at}#{fate.drop.order}",
            )
            for fate in done
        )
        for number, ranges in enumerate(work):
            self._files.write_index_part(run_id, number, [part.to_dict() for part in ranges])
        return len(work)

    def _count(self, result: Mapping[str, Any]) -> None:
        counts, records = result["counts"], result["records"]
        logger.info("run %s: %s, %s", result["run_id"], result["outcome"], counts)
        # A metric is billed while it is written, also of a pipeline that has nothing to count.
        counts_records = any(map(self._records.compares, self._steps))
        metrics.emit(
            self._pipeline_id,
            {
                "DropsDone": counts["done"],
                "DropsFailed": counts["failed"],
                "DropsReturned": counts["waiting"],
                "DropsSuperseded": counts["superseded"],
                f"Runs{result['outcome']}": 1,
            }
            | (
                {"RecordsIn": records["in"], "RecordsOut": records["out"]} if counts_records else {}
            ),
        )


@cache
def _settlement() -> Settlement:
    environment = os.environ
    max_failed_fraction = environment["MAX_FAILED_FRACTION"]
    table = boto3.resource("dynamodb", config=_CONFIG).Table(environment["LEDGER_TABLE"])
    s3, sqs = boto3.client("s3", config=_CONFIG), boto3.client("sqs", config=_CONFIG)
    files = RunFiles(s3, environment["OUTPUT_BUCKET"])
    inputs = Inputs(s3, environment["INPUT_BUCKET"])
    steps = in_turn(environment["STEPS"].split(","))
    return Settlement(
        pipeline_id=environment["PIPELINE_ID"],
        ledger=Ledger(table),
        files=files,
        inputs=inputs,
        jobs=TransformJobs(
            boto3.client("sagemaker"),
            boto3.client("logs"),
            log_group=environment["TRANSFORM_LOG_GROUP"],
        ),
        intake_queue=IntakeQueue(sqs, environment["INTAKE_QUEUE_URL"]),
        wake_queue=WakeQueue(sqs, environment["WAKE_QUEUE_URL"]),
        output_prefix=environment["OUTPUT_PREFIX"],
        steps=steps,
        records=RecordCounts(
            files=files,
            inputs=inputs,
            steps=steps,
            checks=[
                None if check is None else Check(**check)
                for check in json.loads(environment["RECORD_CHECKS"])
            ],
        ),
        max_attempts=int(environment["MAX_ATTEMPTS"]),
        budget=ErrorBudget(float(max_failed_fraction) if max_failed_fraction else None),
        indexed=environment["INDEXED"] == "true",
    )


def handle(event: Mapping[str, Any], context: object) -> dict[str, Any]:
    """Lambda entry point: what `Settlement.settle` takes, or a part of the records to count."""
    if "count_part" in event:
        return _settlement().count(event["run_id"], event["count_part"])
    return _settlement().settle(event)
