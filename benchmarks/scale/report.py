"""The simulated days as tables of Markdown, and as a picture."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import matplotlib

from benchmarks.scale import model
from benchmarks.scale.inputs import Calls, Inputs
from benchmarks.scale.model import Day

_KINDS = {
    "create_transform_job": "CreateTransformJob",
    "step_functions": "state transitions",
    "lambda": "Lambda requests",
    "lambda_gb_s": "Lambda GB-s",
    "dynamodb_write": "DynamoDB write units",
    "dynamodb_read": "DynamoDB read units",
    "s3_get": "S3 GET, HEAD",
    "s3_put": "S3 PUT, COPY",
    "s3_list": "S3 LIST",
    "sqs": "SQS",
}
# They stand out on white and on black.
_COLOURS = ("#d9822b", "#a06bd9", "#7fb2e5", "#2b7fd9", "#2ba36b")
_GREY = "#808890"
_TICKS = {
    "1 min": 60,
    "10 min": 600,
    "1 h": 3600,
    "1 day": 86_400,
    "1 month": 30 * 86_400,
    "1 year": 365 * 86_400,
}


@dataclass(frozen=True, slots=True)
class Result:
    """A way of making jobs, at a volume."""

    uploads: int
    way: str
    day: Day
    calls: Calls
    usd: float


def ways(inputs: Inputs) -> Mapping[str, tuple[str, Callable[[int], Day]]]:
    """Return each way by its name: what its calls are listed under, and the simulation of a day."""
    found: dict[str, tuple[str, Callable[[int], Day]]] = {
        "job per upload": ("job per upload", partial(model.job_per_upload, inputs)),
        f"windows of {_time(inputs.windows.window_s)}": ("windows", partial(model.windows, inputs)),
    }
    for name, settings in inputs.pipelines.items():
        found[f"ours, {name}"] = ("ours", partial(model.ours, inputs, settings))
    return found


def results(inputs: Inputs, *, up_to: int | None = None) -> Iterator[Result]:
    """Simulate a day of each volume, for each way.

    :param up_to: leave larger volumes out.
    """
    for uploads in inputs.uploads_per_day:
        if up_to is not None and uploads > up_to:
            continue
        for way, (kind, simulate) in ways(inputs).items():
            day = simulate(uploads)
            calls = _calls(inputs, kind, day)
            hours = day.instance_s / 3600 * inputs.prices["instance_hour"]
            usd = hours + sum(count * inputs.prices[name] for name, count in calls.items())
            yield Result(uploads, way, day, calls, usd)


def _calls(inputs: Inputs, kind: str, day: Day) -> Calls:
    of = inputs.calls[kind]
    return {
        name: day.uploads * of.upload.get(name, 0)
        + day.jobs * of.job.get(name, 0)
        + of.day.get(name, 0)
        for name in _KINDS
    }


def tables(found: Sequence[Result]) -> str:
    """Return both tables."""
    head = ("uploads a day", "way", "jobs", "instance-hours", "wait p50", "wait p99")
    costs = (*head, "USD a day", "USD a million uploads")
    calls = ("uploads a day", "way", *_KINDS.values())
    return "\n".join(
        [
            *_table(costs, (_cost_row(each) for each in found)),
            "",
            "Calls a day:",
            "",
            *_table(calls, (_call_row(each) for each in found)),
        ]
    )


def _cost_row(result: Result) -> Sequence[str]:
    day = result.day
    return (
        f"{result.uploads:,}",
        result.way,
        f"{day.jobs:,}",
        _number(day.instance_s / 3600),
        _time(day.wait_s(0.5)),
        _time(day.wait_s(0.99)),
        _number(result.usd),
        _number(result.usd / result.uploads * 1e6),
    )


def _call_row(result: Result) -> Sequence[str]:
    return (f"{result.uploads:,}", result.way, *(_number(result.calls[kind]) for kind in _KINDS))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|---|---|" + "---:|" * (len(head) - 2)
    yield from (f"| {' | '.join(row)} |" for row in rows)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == 0 else f"{value:,.3g}"


def _time(seconds: float) -> str:
    for unit, of in (("years", 365 * 86_400), ("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * of:
            return f"{seconds / of:.3g} {unit}"
    return f"{seconds:.3g} s"


def draw(found: Sequence[Result], path: Path) -> None:
    """Draw waits, instance-hours and costs over the volume, as SVG or as PNG."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    by_way: dict[str, list[Result]] = {}
    for each in found:
        by_way.setdefault(each.way, []).append(each)
    with pyplot.rc_context():
        pyplot.rc("svg", fonttype="none", hashsalt="scale")  # the same picture for the same inputs
        pyplot.rc("font", size=9, family="sans-serif")
        pyplot.rc("axes", edgecolor=_GREY, labelcolor=_GREY, titlecolor=_GREY)
        pyplot.rc("xtick", color=_GREY)
        pyplot.rc("ytick", color=_GREY)
        pyplot.rc("text", color=_GREY)
        figure, axes = pyplot.subplots(1, 3, figsize=(11, 4), layout="constrained")
        waits, hours, costs = axes
        for colour, (way, of_it) in zip(_COLOURS, by_way.items(), strict=False):
            volumes = [each.uploads for each in of_it]
            p50, p99 = ([each.day.wait_s(share) for each in of_it] for share in (0.5, 0.99))
            waits.plot(volumes, p50, color=colour, label=way, marker=".")
            waits.plot(volumes, p99, color=colour, linestyle=":")
            spent = [each.day.instance_s / 3600 for each in of_it]
            hours.plot(volumes, spent, color=colour, marker=".")
            usd = [each.usd / each.uploads * 1e6 for each in of_it]
            costs.plot(volumes, usd, color=colour, marker=".")
        titles = (
            ("wait for the output: p50, dotted p99", "time, log"),
            ("instances", "instance-hours a day, log"),
            ("cost", "USD a million uploads, log"),
        )
        for axis, (title, label) in zip(axes, titles, strict=True):
            axis.set(xscale="log", yscale="log", title=title, ylabel=label)
            axis.set(xlabel="uploads a day, log")
            axis.grid(color=_GREY, alpha=0.25)
            axis.minorticks_off()
        waits.set_yticks([*_TICKS.values()], labels=[*_TICKS])
        waits.minorticks_off()  # a new scale of ticks has its own
        figure.legend(loc="outside lower center", ncols=len(by_way), frameon=False)
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, transparent=True, metadata=metadata, dpi=110)
        pyplot.close(figure)
