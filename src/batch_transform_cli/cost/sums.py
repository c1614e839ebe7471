"""What usage costs: for what has run, and for what is to run."""

import calendar
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any

from batch_transform_cli.cost.estimate import Estimate
from batch_transform_cli.cost.prices import Prices
from batch_transform_cli.cost.usage import Period, Usage
from batch_transform_cli.errors import BadValue
from batch_transform_cli.moments import moment
from batch_transform_cli.pipelines.client import PipelineClient
from batch_transform_cli.screen import counted

DEFAULT_DAYS = 30
_FIRST = datetime(2000, 1, 1, tzinfo=UTC)  # no run is older
_AT_ONCE = 16
_HOUR_S = 3600
_MONTH = re.compile(r"(20\d{2})-(0[1-9]|1[0-2])")
_EXACT = Decimal("0.000001")
_WIDE = Context(prec=60)

_NAMES_SHOWN = 5

_BILLED = (
    "instances are billed by the second, from a job's start to its end, idle ones too; the minutes "
    "before its start are not"
)
_CALLS = "calls are averages that were measured for each drop and job (docs/scale.md)"
_NO_PRICES = "no prices: hours alone; --prices FILE has what you pay"
_LEFT_OUT = (
    "left out: storage, data transfer, logs, keys, networks, predictions that are looked up, "
    "Savings Plans, taxes"
)
_ROUNDED = (
    "amounts are sums of exact products, rounded half up to 0.01, or to 0.0001 below 1; a bill "
    "rounds in its own way"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Bill:
    """Usage with what it costs, where that is known.

    :param seconds: of instances, by type.
    :param calls: how often each kind is made.
    """

    seconds: Mapping[str, int]
    calls: Mapping[str, Decimal]
    prices: Prices | None

    @property
    def instance_costs(self) -> dict[str, Decimal | None]:
        """What the instances cost, by type; None without a price."""
        prices = {} if self.prices is None else self.prices.instance_hour
        return {
            name: prices[name] * seconds / _HOUR_S if name in prices else None
            for name, seconds in self.seconds.items()
        }

    @property
    def call_costs(self) -> dict[str, Decimal | None]:
        """What the calls cost, by kind; None without a price."""
        prices = {} if self.prices is None else self.prices.calls
        return {
            kind: prices[kind] * count if kind in prices else None
            for kind, count in self.calls.items()
        }

    @property
    def unpriced(self) -> list[str]:
        """What was used and has no price."""
        costs = {**self.instance_costs, **self.call_costs}
        used = {**self.seconds, **self.calls}
        return [name for name, cost in costs.items() if cost is None and used[name]]

    @property
    def total(self) -> Decimal | None:
        """What all that has a price costs; None without prices."""
        if self.prices is None:
            return None
        costs = [*self.instance_costs.values(), *self.call_costs.values()]
        return sum((cost for cost in costs if cost is not None), Decimal(0))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; amounts are text, so that nobody reads them as floats."""
        instance_costs, call_costs = self.instance_costs, self.call_costs
        return {
            "instances": {
                name: {
                    "instance_seconds": seconds,
                    "instance_hours": exact(hours(seconds)),
                    "cost": exact(instance_costs[name]),
                }
                for name, seconds in self.seconds.items()
            },
            "calls": {
                kind: {"count": exact(count), "cost": exact(call_costs[kind])}
                for kind, count in self.calls.items()
            },
            "cost": exact(self.total),
            "unpriced": self.unpriced if self.prices is not None else [],
        }


def bill_of(usage: Usage, prices: Prices | None) -> Bill:
    """Return what the usage of runs costs."""
    return Bill(seconds=usage.instance_seconds, calls=usage.calls, prices=prices)


def usage_document(
    usages: Mapping[str, Usage], of: Period, prices: Prices | None, notes: Sequence[str]
) -> dict[str, Any]:
    """Return the one JSON document of `cost --json`."""
    told = {name: _usage_told(usage, prices) for name, usage in usages.items()}
    return {
        "since": of.since.isoformat(),
        "until": of.until.isoformat(),
        **_prices_told(prices),
        "pipelines": [{"pipeline": name, **each} for name, each in told.items()],
        "all": _usage_told(Usage.sum([*usages.values()]), prices),
        "assumed": [*notes],
    }


def estimate_document(estimate: Estimate, bill: Bill, notes: Sequence[str]) -> dict[str, Any]:
    """Return the one JSON document of `cost estimate --json`."""
    return {
        "bytes": estimate.input.total_bytes,
        "objects": estimate.input.objects,
        "bytes_per_second": exact(estimate.rate.bytes_s),
        "speedup": exact(estimate.speedup),
        "start_seconds": exact(estimate.start_s),
        "instance_count": estimate.instance_count,
        "jobs": estimate.jobs,
        "job_seconds": estimate.job_s,
        **_prices_told(bill.prices),
        **bill.to_dict(),
        "assumed": [*notes],
    }


def usage_notes(
    usages: Mapping[str, Usage], of: Period, prices: Prices | None, *, region: str | None
) -> list[str]:
    """Return what usage and its cost take for granted, and what they lack, a sentence each.

    :param region: where the pipelines are.
    """
    together = Usage.sum([*usages.values()])
    said = [f"runs that began from {of.since:%Y-%m-%d %H:%MZ} until {of.until:%Y-%m-%d %H:%MZ}"]
    if together.without_report:
        said.append(
            f"{counted(len(together.without_report), 'run')} without a report, not counted: "
            f"{_some(together.without_report)}"
        )
    if together.open_runs:
        said.append(
            f"{counted(len(together.open_runs), 'run')} not ended, not counted: "
            f"{_some(together.open_runs)}"
        )
    if together.untimed_jobs:
        said.append(
            f"{counted(together.untimed_jobs, 'job')} without times in the reports, which have "
            "those of the newest 50 of a run: their hours are not counted"
        )
    said += [_BILLED, f"{_CALLS}, and for each day from a pipeline's first run on"]
    if prices is not None and region is not None and prices.region != region:
        said.append(f"prices are of {prices.region}, the pipelines are in {region}")
    return said + _price_notes(bill_of(together, prices))


def estimate_notes(estimate: Estimate, bill: Bill) -> list[str]:
    """Return what an estimate takes for granted, a sentence each."""
    calls = _CALLS if estimate.input.objects else f"{_CALLS}; of drops none, without --objects"
    return [*estimate.assumptions, _BILLED, calls, *_price_notes(bill)]


def _price_notes(bill: Bill) -> list[str]:
    if bill.prices is None:
        return [_NO_PRICES]
    said = [f"prices are those of the file, in {bill.prices.currency} for {bill.prices.region}"]
    if bill.unpriced:
        said.append(f"without a price, and not in the sum: {', '.join(bill.unpriced)}")
    return [*said, _ROUNDED, _LEFT_OUT]


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {more:,} more" if more > 0 else "")


def _usage_told(usage: Usage, prices: Prices | None) -> dict[str, Any]:
    return {
        "runs": usage.runs,
        "drops": usage.drops,
        "bytes_in": usage.bytes_in,
        "bytes_out": usage.bytes_out,
        "records_in": usage.records_in,
        "jobs": usage.all_jobs,
        **bill_of(usage, prices).to_dict(),
        "without_report": [*usage.without_report],
        "open_runs": [*usage.open_runs],
        "jobs_without_times": usage.untimed_jobs,
    }


def _prices_told(prices: Prices | None) -> dict[str, Any]:
    return {
        "currency": None if prices is None else prices.currency,
        "prices_region": None if prices is None else prices.region,
    }


def hours(seconds: int) -> Decimal:
    """Return seconds as hours."""
    return Decimal(seconds) / _HOUR_S


def exact(amount: Decimal | None) -> str | None:
    """Return a number for programs, with six digits behind the point."""
    return None if amount is None else f"{amount.quantize(_EXACT, ROUND_HALF_UP, _WIDE):f}"


def money(amount: Decimal | None, currency: str = "") -> str:
    """Return an amount for a person, as `_ROUNDED` says."""
    if amount is None:
        return "no price"
    step = Decimal("0.01") if amount >= 1 else Decimal("0.0001")
    return f"{amount.quantize(step, ROUND_HALF_UP, _WIDE) if amount else 0:,} {currency}".rstrip()


def period(since: str | None, until: str | None, month: str | None, *, now: datetime) -> Period:
    """Read which runs are asked for: a month in UTC, or from one moment until another.

    :raises BadValue: it is neither, or both.
    """
    if month is not None:
        if since is not None or until is not None:
            raise BadValue(
                "the period must be a month, or from --since until --until, got both; "
                "leave --month out"
            )
        match = _MONTH.fullmatch(month)
        if match is None:
            raise BadValue(f"--month must be one such as 2026-10, got {month!r}; write it so")
        first = datetime(int(match[1]), int(match[2]), 1, tzinfo=UTC)
        days = calendar.monthrange(first.year, first.month)[1]
        return Period(since=first, until=first + timedelta(days=days))
    end = now if until is None else moment(until, now=now, option="--until")
    begin = _FIRST if since is None else moment(since, now=now, option="--since")
    if since is None and end > _FIRST:
        begin = end - timedelta(days=DEFAULT_DAYS)
    if begin >= end:
        raise BadValue(
            f"--since must be before --until, got {begin:%Y-%m-%dT%H:%MZ} and "
            f"{end:%Y-%m-%dT%H:%MZ}; correct one"
        )
    return Period(since=begin, until=end)


def usage_of(client: PipelineClient, of: Period, *, now: datetime) -> Usage:
    """Return what the runs of a pipeline have used that began in a period.

    :raises CommandError: a report cannot be read.
    """
    known = client.runs()
    runs = [run for run in known if of.has(run.opened_at)]
    open_runs = [run.run_id for run in runs if run.is_open]
    ended = [run.run_id for run in runs if not run.is_open]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        reports = dict(zip(ended, pool.map(client.report, ended), strict=True))
    lived = Period(since=of.since, until=min(of.until, now))
    return Usage.of(
        (report for report in reports.values() if report is not None),
        days=lived.days_from(known[0].opened_at) if known else Decimal(0),
        without_report=[run for run, report in reports.items() if report is None],
        open_runs=open_runs,
    )
