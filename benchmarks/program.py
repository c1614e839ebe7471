"""Runs one program to its end and measures it."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.errors import BenchmarkError

PROJECT = Path(__file__).resolve().parents[1]
_USED = Path(__file__).with_name("used.py")
_LEAST_S = 1e-6  # Both lines of what has hardly any work may be read in one go.
_MARK = re.compile(rb'\{"event": ?"(?:started|ended|used)".*')
_LAST_WORDS = 2000


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What a program took.

    :param phase_s: from its line `{"event": "started", …}` to `{"event": "ended", …}`: without
        the start of the interpreter, of libraries and of model servers.
    :param process_s: from before it was launched until after it was gone.
    :param cpu_s: user and system time of the process and those it waited for.
    :param peak_bytes: the most memory that it had resident.
    :param ended: its line `{"event": "ended", …}`.
    """

    phase_s: float
    process_s: float
    cpu_s: float
    peak_bytes: int
    ended: Mapping[str, Any]


def _marks(output: int) -> Iterator[tuple[float, Mapping[str, Any]]]:
    """Give the lines that tell how far a program is, and when they came.

    There may be ten thousand others, which must not take a core from who is measured.
    """
    rest = b""
    while piece := os.read(output, 1 << 16):
        now = time.perf_counter()
        lines, _, rest = (rest + piece).rpartition(b"\n")
        for line in _MARK.findall(lines):
            yield now, json.loads(line)


def run_program(
    command: Sequence[str | Path],
    *,
    limit_s: float = 900,
    environment: Mapping[str, str] | None = None,
) -> Run:
    """Run a program that says when its work has started and ended.

    :raises BenchmarkError: it fails, says neither, or takes longer than `limit_s`.
    """
    name = " ".join(map(str, command))
    began = time.perf_counter()
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            [sys.executable, "-IS", _USED, *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=PROJECT,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        ) as process,
    ):
        over = threading.Timer(limit_s, os.killpg, (process.pid, signal.SIGKILL))
        over.start()
        seen: dict[str, tuple[float, Mapping[str, Any]]] = {}
        assert process.stdout is not None
        try:
            for at, event in _marks(process.stdout.fileno()):
                seen[event["event"]] = (at, event)
            # The pipe may close before the group is gone; it is reaped only after the timer.
            over.cancel()
            over.join()
            process.wait(10)
        except BaseException:
            over.cancel()
            over.join()
            os.killpg(process.pid, signal.SIGKILL)
            raise
        process_s = time.perf_counter() - began
        errors.seek(max(0, errors.seek(0, os.SEEK_END) - _LAST_WORDS))
        last_words = errors.read().decode(errors="replace").strip()
    if "used" not in seen:
        raise BenchmarkError(f"{name} must end within {limit_s:g} s, got no end; {last_words}")
    used = seen["used"][1]
    if used["exit_code"] != 0 or "started" not in seen or "ended" not in seen:
        said = seen["ended"][1] if "ended" in seen else "no end of its work"
        raise BenchmarkError(f"{name} must do its work, got {said}; {last_words}")
    return Run(
        phase_s=max(_LEAST_S, seen["ended"][0] - seen["started"][0]),
        process_s=process_s,
        cpu_s=used["cpu_s"],
        peak_bytes=used["peak_bytes"],
        ended=seen["ended"][1],
    )
