"""The ceiling: wrk, which posts the same body again and again and looks at no reply."""

import time
from pathlib import Path

from benchmarks.errors import BenchmarkError
from benchmarks.program import run_program
from benchmarks.servers import Server, Tools

_LOOKS, _LOOK_S = 50, 0.2
_SCRIPT = Path(__file__).with_name("wrk.lua")


def run_wrk(
    tools: Tools,
    server: Server,
    *,
    body: Path,
    connections: int,
    seconds: int,
    content_type: str = "text/csv",
    lines: bool = False,
    may_refuse: bool = False,
) -> float:
    """Post a file's content, or its lines in turn, and return how many a second are answered.

    :param may_refuse: let the server refuse some, which do not count.

    :raises BenchmarkError: a request failed, or the server counted others.
    """
    before = server.answered()
    script = {"BODY": str(body), "CONTENT_TYPE": content_type} | ({"LINES": "1"} if lines else {})
    run = run_program(
        [
            *(tools.wrk, "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "60s"),
            *("--latency", "-s", _SCRIPT, f"{server.url}/invocations"),
        ],
        limit_s=seconds + 120,
        environment=script,
    )
    said = run.ended
    if said["lost"] or (said["refused"] and not may_refuse):
        raise BenchmarkError(f"every request of wrk must succeed, got {dict(said)}; see the server")
    counted = _in_the_end(server) - before
    # What was on its way when the time was over is counted by the server only.
    answered: int = said["requests"] - said["refused"]
    if not answered <= counted <= answered + connections:
        raise BenchmarkError(
            f"wrk and the server must count the same, got {answered} and {counted}"
        )
    seconds_taken: float = said["duration_s"]
    return answered / seconds_taken


def _in_the_end(server: Server) -> int:
    """Return what a server has counted once it has no request of ours any more.

    Those that waited for one of its threads when wrk ended are counted later.
    """
    count = server.answered()
    for _ in range(_LOOKS):
        time.sleep(_LOOK_S)
        before, count = count, server.answered()
        if count == before:
            return count
    raise BenchmarkError(f"a server must come to rest within {_LOOKS * _LOOK_S:g} s after wrk")
