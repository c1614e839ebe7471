"""Measures the engine beside the machine's limits: `python -m benchmarks`, see docs/benchmarks.md.

One JSON line per figure on standard output; what happens, and a table, on standard error.
Exit code: 0 if every figure reaches what is demanded of it, 1 if one does not or could not be
measured, 2 if nothing can be measured here.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.bench import QUICK, Bench, Sizes
from benchmarks.errors import BenchmarkError, Missing
from benchmarks.figures import Figure, measure
from benchmarks.servers import Tools, find_tools, nginx
from benchmarks.works import WORKS, replies


def main(arguments: Sequence[str]) -> int:
    """Measure what the arguments name and print it."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    if unknown := [name for name in asked.names if name not in WORKS]:
        parser.error(f"NAME must be one of {', '.join(WORKS)}, got {', '.join(unknown)}")
    screen = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else 200)
    began = time.monotonic()

    def say(text: str) -> None:
        screen.print(f"{time.monotonic() - began:6.0f} s  {text}", markup=False, soft_wrap=True)

    try:
        tools = find_tools()
    except Missing as missing:
        say(str(missing))
        return 2
    sizes = QUICK if asked.quick else Sizes()
    rounds = asked.rounds or (1 if asked.quick else 5)
    print(json.dumps({"machine": _machine(tools)}), flush=True)

    figures: list[Figure] = []
    problems: list[str] = []
    with tempfile.TemporaryDirectory(prefix="benchmarks-", dir=asked.folder) as name:
        folder = Path(name).resolve()
        with nginx(
            tools, folder / "nginx", replies=replies(sizes), stall_at=sizes.stall_at
        ) as server:
            bench = Bench(folder=folder, tools=tools, nginx=server, sizes=sizes)
            for work_name in asked.names or WORKS:
                try:
                    with WORKS[work_name](bench) as work:
                        for figure in measure(
                            work_name,
                            work,
                            without=asked.without,
                            rounds=rounds,
                            judge=not asked.quick,
                            say=say,
                        ):
                            print(json.dumps(figure.to_json()), flush=True)
                            figures.append(figure)
                except BenchmarkError as error:
                    problems.append(f"{work_name} could not be measured: {error}")
                    say(problems[-1])
    screen.print(_table(figures))
    problems += [
        f"{figure.name} must be {figure.demanded}, got {figure.reached}"
        for figure in figures
        if figure.holds is False
    ]
    for problem in problems:
        screen.print(problem, markup=False, soft_wrap=True)
    return 1 if problems else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure the engine beside wrk and others; see docs/benchmarks.md.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(WORKS)}")
    parser.add_argument("--rounds", type=int, help="runs of each; the median counts; default 5")
    parser.add_argument(
        "--quick", action="store_true", help="do little work once, to see that all of it runs"
    )
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        metavar="REFERENCE",
        help="leave one out that is not installed, such as local-mode",
    )
    parser.add_argument(
        "--folder",
        help="where the files go, 8 GB at most; default: the system's folder for temporary files",
    )
    return parser


def _machine(tools: Tools) -> dict[str, Any]:
    """Tell what the figures depend on."""
    said = subprocess.run([tools.nginx, "-v"], capture_output=True, text=True, timeout=10).stderr
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "cpus": os.cpu_count(),
        "cpu": models[0] if models else platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "uvloop": version("uvloop"),
        "nginx": said.rpartition("/")[2].strip(),
        "load": os.getloadavg()[0],
    }


def _table(figures: Sequence[Figure]) -> Table:
    table = Table("figure", "work", "engine", "reference", "reached", "demanded", "")
    for figure in figures:
        held = {None: "", True: "yes", False: "[red]no"}[figure.holds]
        table.add_row(
            *(figure.name, figure.work, figure.engine, figure.reference, figure.reached),
            *(figure.demanded, held),
        )
    return table


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # The servers must not outlive it.
    sys.exit(main(sys.argv[1:]))
