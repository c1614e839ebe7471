import http.server
import json
import threading
import tracemalloc
from collections.abc import Iterator

import pytest

from transform_engine.data_log import CloudWatchLog


class _SlowLogs(http.server.ThreadingHTTPServer):
    """CloudWatch Logs that answer only when they are told to."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = threading.Event()
        self.messages: list[str] = []
        self.largest = 0


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _SlowLogs

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.answer.wait(30)
        messages = [event["message"] for event in body.get("logEvents", ())]
        self.server.messages += messages
        size = sum(len(message.encode()) + 26 for message in messages)
        self.server.largest = max(self.server.largest, size)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def slow_logs(monkeypatch: pytest.MonkeyPatch) -> Iterator[_SlowLogs]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with _SlowLogs() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.answer.set()
        server.shutdown()
        thread.join()


def _log(server: _SlowLogs) -> CloudWatchLog:
    endpoint = f"http://127.0.0.1:{server.server_port}"
    return CloudWatchLog(endpoint=endpoint, region="us-east-1", stream="job/i-1")


def test_a_container_that_writes_faster_than_the_log_takes_loses_lines_and_no_memory(
    slow_logs: _SlowLogs,
) -> None:
    log = _log(slow_logs)
    tracemalloc.start()
    try:
        for _ in range(400):
            log.container(None, "x" * 1_000_000)
            log.container("second", "y" * 200_000)
        log.agent("every line of the agent counts")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 60_000_000
    slow_logs.answer.set()
    log.close()
    assert log.failure is None
    assert "every line of the agent counts" in slow_logs.messages
    told = [message for message in slow_logs.messages if "lines are missing here" in message]
    arrived = sum(message[0] in "xy" for message in slow_logs.messages)
    assert len(told) == 2
    assert sum(int(message.split()[0]) for message in told) + arrived == 800
    assert slow_logs.largest <= 1_048_576, "what CloudWatch takes at a time"


def test_no_line_is_missing_when_the_log_keeps_up(slow_logs: _SlowLogs) -> None:
    slow_logs.answer.set()
    log = _log(slow_logs)
    for number in range(3000):
        log.container(None, f"{number}")
    log.close()
    assert slow_logs.messages == [f"{number}" for number in range(3000)]
