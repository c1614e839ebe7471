import http.server
import json
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from transform_engine.data_log import CloudWatchLog, FileLog


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


def _files(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_files_are_named_as_the_streams_of_the_service_and_hold_each_line_at_once(
    tmp_path: Path,
) -> None:
    log = FileLog(tmp_path / "logs", "churn/i-1-1700000000")
    log.container(None, "loading")
    log.container(None, "")
    log.container("second", "é \ud800")
    log.agent("MaxConcurrentTransforms=1")
    assert _files(tmp_path / "logs") == {
        "churn/i-1-1700000000.log": "loading\n\n",
        "churn/i-1-1700000000/second.log": "é ?\n",
        "churn/i-1-1700000000/data-log.log": "MaxConcurrentTransforms=1\n",
    }
    log.close()
    again = FileLog(tmp_path / "logs", "churn/i-1-1700000000")
    again.container(None, "once more")
    again.close()
    log_file = tmp_path / "logs" / "churn" / "i-1-1700000000.log"
    assert log_file.read_text() == "loading\n\nonce more\n"


def test_no_name_leads_a_log_out_of_its_folder(tmp_path: Path) -> None:
    log = FileLog(tmp_path / "logs", "../i-1")
    for name in ("../../up", "/etc/passwd", "..", "", "a\0b", "c" * 300):
        log.container(name, name[:3])
    log.close()
    assert log.failure is None
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]
    assert len(_files(tmp_path / "logs")) == 6


def test_a_log_that_cannot_be_written_fails_nothing_and_says_why(tmp_path: Path) -> None:
    log = FileLog(tmp_path, "job/i-1")
    (tmp_path / "job" / "i-1.log").symlink_to("/dev/full")
    log.container(None, "lost")
    log.close()
    assert log.failure is not None
    assert "No space left" in str(log.failure)


def test_fails_when_the_folder_of_a_log_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file")
    with pytest.raises(NotADirectoryError):
        FileLog(tmp_path / "logs", "job/i-1")
