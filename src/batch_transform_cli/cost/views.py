"""What usage and its cost look like on a screen."""

from collections.abc import Mapping, Sequence
from decimal import Decimal

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from batch_transform_cli.cost.prices import Prices
from batch_transform_cli.cost.sums import Bill, bill_of, hours, money
from batch_transform_cli.cost.usage import KINDS, Usage
from batch_transform_cli.screen import plain_table, printable, size

_NAME_WIDTH = 16  # at least, in a terminal that is too narrow for all columns


def usage_view(
    usages: Mapping[str, Usage], prices: Prices | None, notes: Sequence[str]
) -> RenderableType:
    """Return a row for each pipeline, then what all have used together by instance type and call.

    :param notes: what was assumed.
    """
    together = Usage.sum([*usages.values()])
    bill = bill_of(together, prices)
    pipelines = _table(
        ("pipeline",),
        ("runs", "drops", "read", "records", "jobs", "hours", *_cost(prices)),
    )
    rows = [*usages.items(), *([("all", together)] if len(usages) > 1 else [])]
    for name, usage in rows:
        seconds = sum(usage.instance_seconds.values())
        pipelines.add_row(
            Text(printable(name)),
            f"{usage.runs:,}",
            f"{usage.drops:,}",
            size(usage.bytes_in),
            f"{usage.records_in:,}",
            f"{usage.all_jobs:,}",
            _hours(seconds),
            *_costs(prices, bill_of(usage, prices).total),
        )
    return _sheet([pipelines, *bill_tables(bill, jobs=together.jobs)], notes)


def bill_view(bill: Bill, *, jobs: Mapping[str, int], notes: Sequence[str]) -> RenderableType:
    """Return what is used by instance type and call, and the sum.

    :param jobs: transform jobs by instance type.
    :param notes: what was assumed.
    """
    tables: list[RenderableType] = [*bill_tables(bill, jobs=jobs)]
    if bill.prices is not None:
        tables.append(Text(f"in all {money(bill.total, bill.prices.currency)}", style="bold"))
    return _sheet(tables, notes)


def bill_tables(bill: Bill, *, jobs: Mapping[str, int]) -> list[Table]:
    """Return a row for each instance type, and one for each kind of call."""
    prices = bill.prices
    instances = _table(("instance type",), ("jobs", "hours", *_cost(prices)))
    for name, cost in bill.instance_costs.items():
        seconds = bill.seconds[name]
        instances.add_row(
            Text(printable(name)), f"{jobs[name]:,}", _hours(seconds), *_costs(prices, cost)
        )
    calls = _table(("calls, about",), ("count", *_cost(prices)))
    for kind, cost in bill.call_costs.items():
        if round(bill.calls[kind]):
            calls.add_row(KINDS[kind], f"{bill.calls[kind]:,.0f}", *_costs(prices, cost))
    return [table for table in (instances, calls) if table.row_count]


def _sheet(tables: Sequence[RenderableType], notes: Sequence[str]) -> RenderableType:
    told = Table.grid(padding=(0, 1))
    for note in notes:
        told.add_row("-", Text(printable(note)))
    parts = [Padding(table, (1, 0, 0, 2), expand=False) for table in tables]
    return Group(*parts, Padding(told, (1, 0, 1, 2), expand=False))


def _table(left: Sequence[str], right: Sequence[str]) -> Table:
    table = plain_table()
    for name in left:
        table.add_column(name, overflow="fold", min_width=_NAME_WIDTH)
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _cost(prices: Prices | None) -> Sequence[str]:
    return () if prices is None else (prices.currency,)


def _costs(prices: Prices | None, cost: Decimal | None) -> Sequence[str]:
    return () if prices is None else (money(cost),)


def _hours(seconds: int) -> str:
    return f"{hours(seconds):,.4f}"
