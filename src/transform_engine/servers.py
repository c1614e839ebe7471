"""A model's containers: processes on loopback, or servers that run already; ports, ping, end."""

import asyncio
import json
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from transform_engine.data_log import LogSink
from transform_engine.errors import NO_PING, InstanceFailed
from transform_engine.http_client import HttpClient, NoReply, TimedOut
from transform_engine.model_archive import model_folder
from transform_engine.ports import SAFE_PORTS, free_port
from transform_engine.settings import container_environment
from transform_engine.spec import Container, JobSpec
from transform_engine.storage import Storage

_KEEPER = Path(__file__).with_name("keeper.py")
_PING_TIMEOUT_S = 2.0
_PARAMETERS_TIMEOUT_S = 10.0
_LAST_LINES = 40
_LAST_OUTPUT_S = 5.0
_LINE_BYTES = 64 * 1024


class ModelServer:
    """One container of a model as the agent sees it: where it answers, and whether it is ready."""

    title = "the model server"
    """What a message calls it."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self.http = HttpClient(port, host)

    async def start(self, job: JobSpec, model_dir: Path) -> None:
        """Start what has to be started; it is not ready yet."""

    async def stop(self) -> None:
        """End all that was started."""
        self.http.close()

    async def wait_ready(self, deadline: float) -> None:
        """Ping until 200.

        :raises InstanceFailed: the server ended, or it did not answer by `deadline` (monotonic).
        """
        pause, last = 0.02, "no answer yet"
        while True:
            if (ended := self.ended()) is not None:
                raise self._not_ready(ended)
            try:
                timeout_s = max(0.05, min(_PING_TIMEOUT_S, deadline - time.monotonic()))
                # Not kept: a first invocation that is lost must count as an attempt, and on a
                # used connection it would look like a stale one.
                reply = await self.http.call("GET", "/ping", timeout_s=timeout_s, keep=False)
                if reply.status == 200:
                    return
                last = f"status {reply.status}"
            except (NoReply, TimedOut) as error:
                last = str(error)
            if time.monotonic() + pause > deadline:
                raise self._not_ready(
                    f"{self.title} must answer GET /ping with 200 in time, got {last}"
                )
            await self.wait_ended(pause)
            pause = min(1.0, pause * 1.5)

    def ended(self) -> str | None:
        """Say how the server ended before it was told to, such as by a signal; None if it runs.

        The text is a whole clause for a person, which `last_words` may follow. A connection is
        lost some milliseconds before the end is known: see `wait_ended`.
        """
        return None

    async def wait_ended(self, timeout_s: float) -> None:
        """Wait until the server ends, and at most `timeout_s`."""
        await asyncio.sleep(timeout_s)

    def _not_ready(self, why: str) -> InstanceFailed:
        return InstanceFailed(NO_PING, f"{why}; {self.last_words}")

    @property
    def last_words(self) -> str:
        """The last lines of the server's log, for a person."""
        return "its log is its own"

    async def parameters(self) -> Mapping[str, Any]:
        """Return what `/execution-parameters` offers; nothing when it offers nothing usable."""
        try:
            reply = await self.http.call(
                "GET", "/execution-parameters", timeout_s=_PARAMETERS_TIMEOUT_S, keep=False
            )
            offered = json.loads(reply.body) if reply.status == 200 else {}
        except (NoReply, TimedOut, ValueError, RecursionError):
            return {}  # Optional, and servers answer it in many ways.
        return offered if isinstance(offered, dict) else {}


class RunningServer(ModelServer):
    """A server that runs already, neither started nor ended here."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        try:
            host, port = parts.hostname, parts.port or 80
        except ValueError:
            host, port = None, 0
        if parts.scheme != "http" or not host or parts.path.strip("/") or parts.query:
            raise InstanceFailed(
                NO_PING,
                f"a model server's URL must be http://HOST:PORT, got {url!r}; write it so",
            )
        super().__init__(host, port)


class ProcessServer(ModelServer):
    """One container's process, kept by `keeper.py`."""

    def __init__(self, container: Container, *, stream: str | None, log: LogSink) -> None:
        super().__init__("127.0.0.1", free_port())
        self._container = container
        self._stream = stream
        if stream is not None:
            self.title = f"the model server {stream}"
        self._log = log
        self._lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._process: asyncio.subprocess.Process | None = None
        self._output: asyncio.ReadTransport | None = None
        self._reader: asyncio.Task[None] | None = None

    async def start(self, job: JobSpec, model_dir: Path) -> None:
        """Start the process; it is not ready yet."""
        environment = {
            **{name: value for name, value in os.environ.items() if name in _INHERITED},
            **container_environment(job.request, self._container.environment),
            "SM_MODEL_DIR": str(model_dir),
            "SAGEMAKER_BIND_TO_PORT": str(self.port),
            "SAGEMAKER_SAFE_PORT_RANGE": f"{SAFE_PORTS.start}-{SAFE_PORTS.stop - 1}",
            "BIND_HOST": "127.0.0.1",
        }
        if not Path(self._container.cwd).is_dir():
            raise InstanceFailed(
                NO_PING,
                f"the model server's folder must exist, got {self._container.cwd}; "
                "register the image again",
            )
        # A pipe of our own: asyncio would wait for the end of one that it made, and what outlives
        # a killed keeper may hold it open.
        reading, writing = os.pipe()
        stream = asyncio.StreamReader()
        output = open(reading, "rb", buffering=0)  # noqa: SIM115 - the transport closes it
        self._output, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), output
        )
        self._reader = asyncio.create_task(self._read(stream))
        with open(writing, "wb") as end:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-IS",
                str(_KEEPER),
                str(job.server_stop_timeout_s),
                *self._container.command,
                cwd=self._container.cwd,
                env=environment,
                stdin=asyncio.subprocess.PIPE,
                stdout=end,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )

    async def _read(self, stream: asyncio.StreamReader) -> None:
        rest = b""
        while data := await stream.read(_LINE_BYTES):
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) >= _LINE_BYTES:
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._say(line)
        if rest:
            self._say(rest)

    def _say(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip("\r")
        self._lines.append(text)
        self._log.container(self._stream, text)

    def ended(self) -> str | None:
        """Say how the server ended before it was told to; None if it runs."""
        code = None if self._process is None else self._process.returncode
        if code is None:
            return None
        if code == 127:
            command = self._container.command[0]
            return f"{self.title} must be a program, got exit code 127 from {command!r}"
        return f"{self.title} must run until the job ends, got {_exit(code)}"

    async def wait_ended(self, timeout_s: float) -> None:
        """Wait until the server ends, and at most `timeout_s`."""
        if self._process is None:
            return
        try:
            await asyncio.wait_for(self._process.wait(), timeout_s)
        except TimeoutError:
            pass  # It still runs.

    @property
    def last_words(self) -> str:
        """The last lines of the server's log, for a person."""
        said = "\n".join(self._lines).strip()
        return f"its last log lines:\n{said}" if said else "it logged nothing"

    async def stop(self) -> None:
        """End the process and all it started."""
        self.http.close()
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            await self._process.wait()
        if self._reader is not None:
            # What the server started may hold its output open, if its keeper was killed.
            await asyncio.wait((self._reader,), timeout=_LAST_OUTPUT_S)
            self._reader.cancel()
        if self._output is not None:
            self._output.close()


def _exit(code: int) -> str:
    """Say an exit code; the keeper and container engines add 128 to a signal's number."""
    try:
        return f"exit code {code} ({signal.Signals(code - 128).name})"
    except ValueError:
        return f"exit code {code}"


_INHERITED = frozenset(
    {"PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "USER", "LD_LIBRARY_PATH"}
)


class ModelServers:
    """All containers of a model: one, or a pipeline."""

    def __init__(self, job: JobSpec, log: LogSink) -> None:
        self._job = job
        pipeline = len(job.containers) > 1
        self.servers: Sequence[ModelServer] = [
            _server(
                container,
                stream=(container.name or f"container-{number}") if pipeline else None,
                log=log,
            )
            for number, container in enumerate(job.containers, 1)
        ]

    async def start(self, storage: Storage, work_dir: Path) -> None:
        """Unpack the models, start the servers and wait until all are ready.

        :raises InstanceFailed: with one reason.
        """
        for number, server in enumerate(self.servers, 1):
            folder = await asyncio.to_thread(
                model_folder,
                storage,
                self._job.containers[number - 1].model_data_url,
                work_dir / f"model-{number}",
                limit_bytes=self._job.model_size_limit_bytes,
            )
            await server.start(self._job, folder)
        deadline = time.monotonic() + self._job.ping_timeout_s
        waiting = [asyncio.create_task(server.wait_ready(deadline)) for server in self.servers]
        try:
            await asyncio.gather(*waiting)
        finally:
            for late in waiting:
                late.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def stop(self) -> None:
        """End all processes."""
        await asyncio.gather(*(server.stop() for server in self.servers))


def _server(container: Container, *, stream: str | None, log: LogSink) -> ModelServer:
    if container.url is not None:
        return RunningServer(container.url)
    return ProcessServer(container, stream=stream, log=log)
