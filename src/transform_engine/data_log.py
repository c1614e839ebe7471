"""Where an instance's log lines go: CloudWatch Logs or files, in streams named as on AWS.

The streams of an instance (reference §9): `<job>/<instance-id>-<epoch>` for what its container
writes, `…/data-log` for what the agent says, and in a pipeline `…/<container-name>` for each.
"""

import queue
import re
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Any, Protocol

GROUP = "/aws/sagemaker/TransformJobs"
_DATA_LOG = "data-log"
_LINE_BYTES = 250_000
_BATCH_EVENTS = 1_000
# CloudWatch takes 1 MiB at a time, and one more line may come on top of this.
_BATCH_BYTES = 790_000
_WAITING_BYTES = 32 * 2**20


class LogSink(Protocol):
    """Takes the lines of an instance."""

    def container(self, name: str | None, line: str) -> None:
        """A line of a container's stdout or stderr; `name` only in a pipeline."""

    def agent(self, line: str) -> None:
        """A line of the data-log."""

    def close(self) -> None:
        """Deliver what is left."""


def agent_line(text: str) -> str:
    """Return a line as the service's agent writes it."""
    now = datetime.now(UTC)
    return f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond // 1000:03d}:[sagemaker logs]: {text}"


class MemoryLog:
    """Keeps the lines; for runs without CloudWatch Logs, and for tests."""

    def __init__(self) -> None:
        self.container_lines: list[tuple[str | None, str]] = []
        self.agent_lines: list[str] = []

    def container(self, name: str | None, line: str) -> None:
        """Keep a line of a container."""
        self.container_lines.append((name, line))

    def agent(self, line: str) -> None:
        """Keep a line of the data-log."""
        self.agent_lines.append(line)

    def close(self) -> None:
        """Nothing to deliver."""


class NoLog:
    """Drops the lines; the last ones of a container are in the result anyway."""

    def container(self, name: str | None, line: str) -> None:
        """Drop it."""

    def agent(self, line: str) -> None:
        """Drop it."""

    def close(self) -> None:
        """Nothing to deliver."""


class FileLog:
    """Appends the lines to files, each named as its stream with `.log` behind it.

    Every line is in its file as soon as it is said, and none is kept in memory. A line that cannot
    be written, such as on a full disk, is dropped: `failure` then has the last reason.

    :raises OSError: the folder of the log cannot be made.
    """

    def __init__(self, folder: Path, stream: str) -> None:
        self._stream = folder.joinpath(*(_safe_name(part) for part in stream.split("/")))
        self._files: dict[str | None, FileIO] = {}
        self.failure: OSError | None = None
        self._stream.parent.mkdir(parents=True, exist_ok=True)

    def container(self, name: str | None, line: str) -> None:
        """Write a line of a container."""
        self._write(name, line)

    def agent(self, line: str) -> None:
        """Write a line of the data-log."""
        self._write(_DATA_LOG, line)

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _write(self, name: str | None, line: str) -> None:
        rest = memoryview(line.encode(errors="replace") + b"\n")
        try:
            file = self._files.get(name) or self._open(name)
            while rest:
                rest = rest[file.write(rest) :]
        except OSError as error:  # Lost log lines must not fail a job.
            self.failure = error

    def _open(self, name: str | None) -> FileIO:
        path = self._stream if name is None else self._stream / _safe_name(name)
        path = path.with_name(f"{path.name}.log")
        path.parent.mkdir(parents=True, exist_ok=True)
        file = self._files[name] = FileIO(path, "ab")
        return file


def _safe_name(name: str) -> str:
    """Return a name that stays in its folder and that every file system takes."""
    return re.sub(r"^\.|[^\w.-]", "_", name, flags=re.ASCII)[:200] or "_"


class CloudWatchLog:
    """Delivers lines in batches from a thread of its own, so that logging never holds up work.

    A container that writes faster than CloudWatch takes loses lines, and the log says how many.
    """

    def __init__(self, *, endpoint: str, region: str, stream: str) -> None:
        import boto3

        self._client: Any = boto3.client("logs", endpoint_url=endpoint, region_name=region)
        self._stream = stream
        self._lines: queue.Queue[tuple[str, int, str] | None] = queue.Queue()
        self._waiting = 0  # bytes
        self._dropped: Counter[str] = Counter()  # by stream
        self._count = threading.Lock()
        self._streams: set[str] = set()
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._deliver, name="cloudwatch-logs", daemon=True)
        self._thread.start()

    def container(self, name: str | None, line: str) -> None:
        """Deliver a line of a container."""
        stream = self._stream if name is None else f"{self._stream}/{name}"
        with self._count:
            if self._waiting > _WAITING_BYTES:
                self._dropped[stream] += 1
                return
            dropped = self._dropped.pop(stream, 0)
        if dropped:
            self._put(stream, _dropped_line(dropped))
        self._put(stream, line)

    def agent(self, line: str) -> None:
        """Deliver a line of the data-log."""
        self._put(f"{self._stream}/{_DATA_LOG}", line)

    def _put(self, stream: str, line: str) -> None:
        # CloudWatch refuses empty messages and those over 256 KiB.
        text = line.encode(errors="replace")[:_LINE_BYTES].decode(errors="ignore") or " "
        with self._count:
            self._waiting += _size(text)
        self._lines.put((stream, int(time.time() * 1000), text))

    def close(self) -> None:
        """Deliver what is left, for at most ten seconds."""
        for stream, dropped in self._dropped.items():
            self._put(stream, _dropped_line(dropped))
        self._lines.put(None)
        self._thread.join(10)

    def _deliver(self) -> None:
        last = False
        while not last:
            batches: dict[str, list[dict[str, Any]]] = {}
            size = count = 0
            entry = self._lines.get()
            while entry is not None:
                stream, timestamp, message = entry
                batches.setdefault(stream, []).append({"timestamp": timestamp, "message": message})
                size += _size(message)
                count += 1
                if size > _BATCH_BYTES or count >= _BATCH_EVENTS:
                    break
                try:
                    entry = self._lines.get(timeout=0.2)
                except queue.Empty:
                    break
            else:
                last = True
            for stream, events in batches.items():
                try:
                    self._send(stream, events)
                except Exception as error:  # Lost log lines must not fail a job; told at its end.
                    self.failure = error
            with self._count:
                self._waiting -= size

    def _send(self, stream: str, events: list[dict[str, Any]]) -> None:
        if stream not in self._streams:
            self._create(stream)
            self._streams.add(stream)
        self._client.put_log_events(logGroupName=GROUP, logStreamName=stream, logEvents=events)

    def _create(self, stream: str) -> None:
        exists = self._client.exceptions.ResourceAlreadyExistsException
        try:
            self._client.create_log_group(logGroupName=GROUP)
        except exists:
            pass  # Another job's.
        try:
            self._client.create_log_stream(logGroupName=GROUP, logStreamName=stream)
        except exists:
            pass  # Ours, after a failed delivery.


def _size(message: str) -> int:
    return len(message.encode()) + 26  # As CloudWatch counts.


def _dropped_line(count: int) -> str:
    return f"{count} lines are missing here: they came faster than the log takes them"
