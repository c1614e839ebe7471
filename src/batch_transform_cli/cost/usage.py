"""What pipelines have used: instance-time from the reports of their runs, calls as counted."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Self

from batch_transform_cli.errors import CommandError

_REPORT_VERSION = 1
_DAY_S = 86_400

#: What a pipeline calls for each drop, each transform job, and each day that it is deployed, as
#: `python -m benchmarks load-in-memory` counts it. docs/scale.md is made of the same numbers.
CALLS: Mapping[str, Mapping[str, Decimal]] = {
    "drop": {
        "s3_get": Decimal(4),
        "s3_put": Decimal(2),
        "s3_list": Decimal("0.001"),
        "sqs": Decimal("1.3"),
        "lambda": Decimal("0.01"),
        "lambda_gb_s": Decimal("0.0088"),
        "dynamodb_write": Decimal("11.1"),
        "dynamodb_read": Decimal("4.4"),
    },
    "job": {
        "step_functions": Decimal(8),
        "s3_get": Decimal(3),
        "s3_put": Decimal(5),
        "sqs": Decimal(6),
        "lambda": Decimal(4),
        "lambda_gb_s": Decimal(2),
        "dynamodb_write": Decimal(30),
        "dynamodb_read": Decimal(30),
    },
    "day": {
        "sqs": Decimal(4_320),
        "lambda": Decimal(1_440),
        "lambda_gb_s": Decimal(144),
        "dynamodb_read": Decimal(7_200),
    },
}
KINDS: Mapping[str, str] = {
    "step_functions": "state transitions",
    "lambda": "Lambda requests",
    "lambda_gb_s": "Lambda GB-seconds",
    "dynamodb_write": "DynamoDB write units",
    "dynamodb_read": "DynamoDB read units",
    "s3_get": "S3 GET, HEAD",
    "s3_put": "S3 PUT, COPY",
    "s3_list": "S3 LIST",
    "sqs": "SQS requests",
}


def calls_of(*, drops: int = 0, jobs: int = 0, days: Decimal = Decimal(0)) -> dict[str, Decimal]:
    """Return how often each kind of call is made."""
    times: Mapping[str, int | Decimal] = {"drop": drops, "job": jobs, "day": days}
    return {
        kind: sum(
            (CALLS[of].get(kind, Decimal(0)) * count for of, count in times.items()), Decimal(0)
        )
        for kind in KINDS
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """What the runs of a pipeline, or of several, have used.

    :ivar instance_seconds: that are billed, by instance type: from a job's start to its end, times
        its instances.
    :ivar jobs: transform jobs with known times, by instance type.
    :ivar untimed_jobs: jobs whose times no report has.
    :ivar days: for how long the pipelines were there, all together.
    :ivar without_report: runs that have ended, and of which nothing else is here.
    :ivar open_runs: runs that have not ended; nothing of them is here.
    """

    runs: int = 0
    drops: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    records_in: int = 0
    instance_seconds: Mapping[str, int] = field(default_factory=dict)
    jobs: Mapping[str, int] = field(default_factory=dict)
    untimed_jobs: int = 0
    days: Decimal = Decimal(0)
    without_report: Sequence[str] = ()
    open_runs: Sequence[str] = ()

    @property
    def all_jobs(self) -> int:
        """How many transform jobs there were."""
        return sum(self.jobs.values()) + self.untimed_jobs

    @property
    def calls(self) -> dict[str, Decimal]:
        """How often each kind of call was made, about."""
        return calls_of(drops=self.drops, jobs=self.all_jobs, days=self.days)

    @classmethod
    def of(
        cls,
        reports: Iterable[Mapping[str, Any]],
        *,
        days: Decimal = Decimal(0),
        without_report: Sequence[str] = (),
        open_runs: Sequence[str] = (),
    ) -> Self:
        """Sum up the reports of runs.

        :raises CommandError: a report is of a form that is not known here.
        """
        totals: Counter[str] = Counter()
        seconds: Counter[str] = Counter()
        jobs: Counter[str] = Counter()
        untimed = runs = 0
        for report in reports:
            if report.get("version") != _REPORT_VERSION:
                raise CommandError(
                    f"the report of {report.get('run_id')} must have version {_REPORT_VERSION}, "
                    f"got {report.get('version')}; install the batch-transform that it was made by"
                )
            runs += 1
            totals.update({name: report["totals"][name] for name in _TOTALS})
            for job in report["jobs"]:
                instance_type = job["instance_type"]
                if instance_type is None:
                    untimed += 1
                    continue
                # A job that never started has no times, and costs nothing.
                jobs[instance_type] += 1
                seconds[instance_type] += job["billable_seconds"] or 0
        return cls(
            runs=runs,
            **{name: totals[name] for name in _TOTALS},
            instance_seconds=dict(sorted(seconds.items())),
            jobs=dict(sorted(jobs.items())),
            untimed_jobs=untimed,
            days=days,
            without_report=without_report,
            open_runs=open_runs,
        )

    @classmethod
    def sum(cls, parts: Sequence["Usage"]) -> Self:
        """Return what several have used together."""
        seconds: Counter[str] = Counter()
        jobs: Counter[str] = Counter()
        for part in parts:
            seconds.update(part.instance_seconds)
            jobs.update(part.jobs)
        return cls(
            runs=sum(part.runs for part in parts),
            drops=sum(part.drops for part in parts),
            bytes_in=sum(part.bytes_in for part in parts),
            bytes_out=sum(part.bytes_out for part in parts),
            records_in=sum(part.records_in for part in parts),
            instance_seconds=dict(sorted(seconds.items())),
            jobs=dict(sorted(jobs.items())),
            untimed_jobs=sum(part.untimed_jobs for part in parts),
            days=sum((part.days for part in parts), Decimal(0)),
            without_report=[run for part in parts for run in part.without_report],
            open_runs=[run for part in parts for run in part.open_runs],
        )


_TOTALS = ("drops", "bytes_in", "bytes_out", "records_in")


@dataclass(frozen=True, kw_only=True, slots=True)
class Period:
    """From a moment on, and until before another one."""

    since: datetime
    until: datetime

    def has(self, moment: str) -> bool:
        """Whether a moment, as the ledger writes it, is in it."""
        return self.since <= datetime.fromisoformat(moment) < self.until

    def days_from(self, moment: str) -> Decimal:
        """Return how many days of it are after a moment, as the ledger writes it."""
        since = max(self.since, datetime.fromisoformat(moment))
        return Decimal(max(0, round((self.until - since).total_seconds()))) / _DAY_S
