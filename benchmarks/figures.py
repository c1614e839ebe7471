"""Works to figures: runs that take turns, medians, and whether they reach what is demanded."""

import statistics
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.bench import MB
from benchmarks.works import Cost, Growth, Memory, Reference, Sample, Speed, Work

_MEMORY_ROUNDS = 3
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One row of the table.

    :param engine: what the engine reached, as text with its unit; reference, likewise.
    :param reached: what is demanded of, as text; `demanded`, likewise.
    :param holds: None if nothing is demanded.
    :param details: the JSON line's other members.
    """

    name: str
    work: str
    engine: str
    reference: str
    reached: str
    demanded: str
    holds: bool | None
    details: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the figure's JSON line."""
        return {"figure": self.name, "work": self.work, **self.details, "holds": self.holds}


def measure(
    name: str, work: Work, *, without: Collection[str], rounds: int, judge: bool, say: Say
) -> Iterator[Figure]:
    """Run a work and its references, and give a figure for each reference.

    :param without: the references to leave out.
    :param judge: hold the figures against what is demanded of them.
    """
    if isinstance(work, Memory):
        yield _memory(name, work, rounds=min(rounds, _MEMORY_ROUNDS), judge=judge, say=say)
    elif isinstance(work, Cost):
        yield from _cost(name, work, rounds=rounds, judge=judge, say=say)
    elif isinstance(work, Growth):
        yield from _growth(name, work, judge=judge, say=say)
    else:
        references = tuple(r for r in work.references if r.name not in without)
        work = replace(work, references=references)
        yield from _speed(name, work, rounds=rounds, judge=judge, say=say)


def _speed(name: str, work: Speed, *, rounds: int, judge: bool, say: Say) -> Iterator[Figure]:
    samples: list[Sample] = []
    rates: dict[str, list[float]] = {reference.name: [] for reference in work.references}

    def run_engine() -> None:
        samples.append(work.engine())
        say(f"{name}: {samples[-1].rate:,.0f} {work.unit}, {len(samples)} of {rounds}")

    def run_references() -> None:
        for reference in work.references:
            rates[reference.name].append(reference.measure())
            say(f"{name}/{reference.name}: {rates[reference.name][-1]:,.1f} {work.unit}")

    for number in range(rounds):
        # Who comes second may find a machine that is warmer, in both senses.
        for run in (run_engine, run_references)[:: -1 if number % 2 else 1]:
            run()

    rate = statistics.median(sample.rate for sample in samples)
    details = {
        "unit": work.unit,
        "rounds": rounds,
        "engine": rate,
        "engine_runs": [sample.rate for sample in samples],
        "engine_cpu_s": statistics.median(sample.cpu_s for sample in samples),
        "engine_peak_mb": max(sample.peak_bytes for sample in samples) / MB,
    }
    engine = f"{rate:,.0f} {work.unit}"
    if not work.references:
        yield Figure(
            name=name,
            work=work.title,
            engine=engine,
            reference="",
            reached="",
            demanded="",
            holds=None,
            details=details,
        )
    for reference in work.references:
        yield _ratio(name, work, reference, rates[reference.name], details, judge=judge)


def _ratio(
    name: str,
    work: Speed,
    reference: Reference,
    rates: list[float],
    details: dict[str, Any],
    *,
    judge: bool,
) -> Figure:
    rate = statistics.median(rates)
    ratio = details["engine"] / rate
    least = reference.at_least
    return Figure(
        name=f"{name}/{reference.name}",
        work=work.title,
        engine=f"{details['engine']:,.0f} {work.unit}",
        reference=f"{reference.name} {rate:,.{0 if rate >= 10 else 2}f}",
        reached=_multiple(ratio),
        demanded="" if least is None else f"≥ {_multiple(least)}",
        holds=ratio >= least if judge and least is not None else None,
        details={
            **details,
            "against": reference.name,
            "reference": rate,
            "reference_runs": rates,
            "ratio": ratio,
            "at_least": least,
        },
    )


def _multiple(ratio: float) -> str:
    return f"{ratio:.1%}" if ratio < 2 else f"{ratio:,.1f} x"


def _memory(name: str, work: Memory, *, rounds: int, judge: bool, say: Say) -> Figure:
    peaks = dict.fromkeys(work.sizes, 0)
    for _ in range(rounds):
        for size in work.sizes:
            sample = work.peak(size)
            peaks[size] = max(peaks[size], sample.peak_bytes)
            say(
                f"{name}: {sample.peak_bytes / MB:.1f} MB for {size / MB:,.0f} MB of input, "
                f"{sample.rate:,.0f} MB/s"
            )
    under, near = work.under_bytes, work.apart_bytes
    apart = max(peaks.values()) - min(peaks.values())
    return Figure(
        name=name,
        work=work.title,
        engine=", ".join(
            f"{peak / MB:.1f} MB for {size / 1e9:g} GB" for size, peak in peaks.items()
        ),
        reference="",
        reached=f"{max(peaks.values()) / MB:.1f} MB, {apart / MB:.1f} MB apart",
        demanded=f"< {under / MB:g} MB" + (f", ≤ {near / MB:g} MB apart" if near else ""),
        holds=max(peaks.values()) < under and (near is None or apart <= near) if judge else None,
        details={
            "unit": "MB",
            "rounds": rounds,
            "peaks_mb": {f"{size / 1e9:g} GB": peak / MB for size, peak in peaks.items()},
            "under_mb": under / MB,
            "apart_mb": near / MB if near else None,
        },
    )


def _cost(name: str, work: Cost, *, rounds: int, judge: bool, say: Say) -> Iterator[Figure]:
    runs: dict[str, list[float]] = {program: [] for program in work.programs}
    for number in range(rounds):
        for program in [*work.programs][:: -1 if number % 2 else 1]:
            runs[program].append(work.programs[program]())
            say(f"{name}/{program}: {runs[program][-1]:.2f} CPU s, {number + 1} of {rounds}")
    cpu_s = {program: statistics.median(seconds) for program, seconds in runs.items()}
    for limit in work.limits:
        multiple = limit.of(cpu_s)
        yield Figure(
            name=f"{name}/{limit.name}",
            work=work.title,
            engine=", ".join(f"{program}: {seconds:.2f} s" for program, seconds in cpu_s.items()),
            reference="",
            reached=f"{multiple:.2f} x",
            demanded=f"≤ {limit.at_most:g} x",
            holds=multiple <= limit.at_most if judge else None,
            details={
                "unit": "CPU s",
                "rounds": rounds,
                "cpu_s": cpu_s,
                "runs": runs,
                "multiple": multiple,
                "at_most": limit.at_most,
            },
        )


def _growth(name: str, work: Growth, *, judge: bool, say: Say) -> Iterator[Figure]:
    """One round: what counts here does not vary from run to run."""
    measured = work.measure()
    small, *_, large = measured
    for figure, limit in [*work.flat.items(), *work.under.items()]:
        is_cost = figure in work.flat
        values = {
            size: found[figure] / (size if is_cost else 1) for size, found in measured.items()
        }
        reached = values[large] / values[small] if is_cost else max(values.values())
        written = ", ".join(f"{value:.4g} at {size:,}" for size, value in values.items())
        each = f" per {work.unit}" if is_cost else ""
        say(f"{name}/{figure}{each}: {written}")
        holds = (reached <= limit if is_cost else reached < limit) if limit is not None else None
        demanded = "" if limit is None else f"≤ {limit:g} x" if is_cost else f"< {limit:,g}"
        yield Figure(
            name=f"{name}/{figure}".replace(" ", "-"),
            work=work.title,
            engine=f"{figure}{each}: {written}",
            reference="",
            reached=f"{reached:.2f} x" if is_cost else f"{reached:,.4g}",
            demanded=demanded,
            holds=holds if judge else None,
            details={
                "values": {str(size): value for size, value in values.items()},
                "reached": reached,
                "limit": limit,
            },
        )
