"""A model's servers: processes, containers of an image, or servers that run already.

Each answers on a port of its own of this machine, is pinged until it is ready, and what was started
is ended: SIGTERM, time, SIGKILL.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import time
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from transform_engine.data_log import LogSink, agent_line
from transform_engine.engines import BINDS_LABEL, find_image
from transform_engine.errors import NO_PING, InstanceFailed
from transform_engine.http_client import HttpClient, NoReply, TimedOut
from transform_engine.model_archive import lay_model
from transform_engine.ports import SERVICE_PORT, claim_service_port, free_ports, listens
from transform_engine.settings import container_environment
from transform_engine.spec import Container, JobSpec
from transform_engine.storage import Storage

_KEEPER = Path(__file__).with_name("keeper.py")
_PING_TIMEOUT_S = 2.0
_READY = "status 200"
_PARAMETERS_TIMEOUT_S = 10.0
_LAST_LINES = 40
_LAST_OUTPUT_S = 5.0
_LINE_BYTES = 64 * 1024
_FINISH_S = 60
_CLAIM_PAUSE_S = 0.2
_ENGINE_FAILED, _NO_PROGRAM = 125, 127  # exit codes of `docker run`; the latter also a shell's


class ModelServer:
    """One container of a model as the agent sees it: where it answers, and whether it is ready.

    `host`, `port` and `http` hold from `wait_ready` on: before, a server may still move.
    """

    title = "the model server"
    """What a message calls it."""
    is_started_here = False
    """Whether it is ours to start and end, so that its end can be seen."""

    def __init__(self, host: str, port: int) -> None:
        self._move(host, port)

    def _move(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self.http = HttpClient(port, host)

    async def start(self, storage: Storage, base: Path) -> None:
        """Start what has to be started; it is not ready yet.

        :param base: a folder of its own, which need not exist; its model will be at `model` there.
        """

    async def stop(self) -> None:
        """End all that was started."""
        self.http.close()

    async def wait_ready(self, deadline: float) -> None:
        """Ping until 200.

        :raises InstanceFailed: the server ended, or it did not answer by `deadline` (monotonic).
        """
        pause = 0.02
        while True:
            if (ended := self.ended()) is not None:
                raise self._not_ready(ended)
            answer = await self._ping(self.http, deadline)
            if answer == _READY:
                return
            await self._look_elsewhere(deadline)
            if time.monotonic() + pause > deadline:
                raise self._not_ready(
                    f"{self.title} must answer GET /ping with 200 in time, got {answer}"
                )
            await self.wait_ended(pause)
            pause = min(1.0, pause * 1.5)

    async def _ping(self, http: HttpClient, deadline: float) -> str:
        """Return what a ping is answered with."""
        timeout_s = max(0.05, min(_PING_TIMEOUT_S, deadline - time.monotonic()))
        try:
            # Not kept: a first invocation that is lost must count as an attempt, and on a used
            # connection it would look like a stale one.
            reply = await http.call("GET", "/ping", timeout_s=timeout_s, keep=False)
        except (NoReply, TimedOut) as error:
            return str(error)
        return f"status {reply.status}"

    def ended(self) -> str | None:
        """Say how the server ended before it was told to, such as by a signal; None if it runs.

        The text is a whole clause for a person, which `last_words` may follow. A connection is
        lost some milliseconds before the end is known: see `wait_ended`.
        """
        return None

    async def wait_ended(self, timeout_s: float) -> None:
        """Wait until the server ends, and at most `timeout_s`."""
        await asyncio.sleep(timeout_s)

    async def _look_elsewhere(self, deadline: float) -> None:
        """Move to where it is ready, if that is not where it should be."""

    def _not_ready(self, why: str) -> InstanceFailed:
        return InstanceFailed(NO_PING, "; ".join((why, *self._advice(), self.last_words)))

    def _advice(self) -> Sequence[str]:
        """Say what to do about what its log shows."""
        return ()

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


class _KeptServer(ModelServer):
    """A server that a program runs, which `keeper.py` keeps and ends."""

    is_started_here = True

    def __init__(self, job: JobSpec, container: Container, stream: str | None, log: LogSink):
        self._ports = free_ports()
        super().__init__("127.0.0.1", self._ports[0])
        if stream is not None:
            self.title = f"the model server {stream}"
        self._job = job
        self._container = container
        self._pipeline = stream is not None
        self._stream = stream
        self._log = log
        self._lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._finish: Sequence[str] = ()  # The command that ends what outlives the program.
        self._process: asyncio.subprocess.Process | None = None
        self._output: FileIO | None = None
        self._output_ended = asyncio.Event()
        self._line = b""  # What has come of the last one.

    async def _model(self, storage: Storage, base: Path) -> Path:
        folder = base / "model"
        await asyncio.to_thread(
            lay_model,
            storage,
            self._container.model_data_url,
            folder,
            limit_bytes=self._job.model_size_limit_bytes,
        )
        return folder.resolve()  # Some servers refuse a model behind a link.

    def _environment(self, *, bind: bool) -> dict[str, str]:
        """Return the variables of reference §4, and the ports if it is to `bind` to its own."""
        environment = container_environment(self._job.request, self._container.environment)
        if bind:
            _, *others = self._ports
            environment["SAGEMAKER_BIND_TO_PORT"] = str(self.port)
            environment["SAGEMAKER_SAFE_PORT_RANGE"] = f"{others[0]}-{others[-1]}"
        return environment

    async def _run(self, command: Sequence[str], *, env: dict[str, str], cwd: str) -> None:
        # A pipe of our own: asyncio would wait for the end of one that it made, and what outlives
        # a killed keeper may hold it open. Read by ourselves: uvloop closes the descriptor of a
        # pipe that it is given twice, and by then it may be another thread's (its issue 763).
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        self._output = FileIO(reading)
        asyncio.get_running_loop().add_reader(reading, self._read)
        keeper = (sys.executable, "-IS", str(_KEEPER), str(self._job.server_stop_timeout_s))
        with open(writing, "wb") as end:
            self._process = await asyncio.create_subprocess_exec(
                *(*keeper, *self._finish, "--", *command),
                cwd=cwd,
                env=env,
                stdin=asyncio.subprocess.PIPE,
                stdout=end,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )

    def _read(self) -> None:
        assert self._output is not None
        data = self._output.read(_LINE_BYTES)
        if data is None:
            return  # Nothing is there after all.
        *lines, self._line = (self._line + data).split(b"\n")
        if self._line and (not data or len(self._line) >= _LINE_BYTES):
            lines, self._line = [*lines, self._line], b""
        for line in lines:
            self._say(line)
        if not data:
            self._close_output()

    def _close_output(self) -> None:
        if self._output is not None:
            asyncio.get_running_loop().remove_reader(self._output.fileno())
            self._output.close()
            self._output = None
            self._output_ended.set()

    def _say(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip("\r")
        self._lines.append(text)
        self._log.container(self._stream, text)

    def ended(self) -> str | None:
        """Say how the server ended before it was told to; None if it runs."""
        code = None if self._process is None else self._process.returncode
        if code is None:
            return None
        if self._container.image is not None and code == _ENGINE_FAILED:
            image = self._container.image
            return f"{self.title} must be a container that can run, got {_exit(code)} from {image}"
        if code == _NO_PROGRAM:
            program = "serve" if self._container.image else self._container.command[0]
            return f"{self.title} must be a program, got {_exit(code)} from {program!r}"
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
        """End the program and all it started."""
        self.http.close()
        code = -1
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            code = await self._process.wait()
        if self._finish and code < 0:
            await self._finish_ourselves()
        if self._output is not None:
            # What the server started may hold its output open, if its keeper was killed.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._output_ended.wait(), _LAST_OUTPUT_S)
            self._close_output()

    async def _finish_ourselves(self) -> None:
        """Do what the keeper would have done, had it not been killed or never come up."""
        silent = asyncio.subprocess.DEVNULL
        try:
            finishing = await asyncio.create_subprocess_exec(
                *self._finish, stdin=silent, stdout=silent, stderr=silent
            )
        except OSError:
            return  # The engine is not there any more.
        try:
            await asyncio.wait_for(finishing.wait(), _FINISH_S)
        except TimeoutError:
            finishing.kill()  # The engine does not answer any more.


class ProcessServer(_KeptServer):
    """A container's program as a process, with its model where `SM_MODEL_DIR` says."""

    async def start(self, storage: Storage, base: Path) -> None:
        """Start the process; it is not ready yet."""
        if not Path(self._container.cwd).is_dir():
            raise InstanceFailed(
                NO_PING,
                f"the model server's folder must exist, got {self._container.cwd}; "
                "register the image again",
            )
        model = await self._model(storage, base)
        environment = {
            **{name: value for name, value in os.environ.items() if name in _INHERITED},
            **self._environment(bind=True),
            "SM_MODEL_DIR": str(model),
            # AWS's toolkits for containers look for `model` in it; it is /opt/ml in a container.
            "SAGEMAKER_BASE_DIR": str(base),
            "BIND_HOST": "127.0.0.1",
        }
        await self._run(self._container.command, env=environment, cwd=self._container.cwd)

    async def _look_elsewhere(self, deadline: float) -> None:
        """Move to port 8080 if this very server is ready there, as one that knows no other is."""
        assert self._process is not None
        if not await asyncio.to_thread(listens, self._process.pid, SERVICE_PORT):
            return
        there = HttpClient(SERVICE_PORT, self.host)
        answer = await self._ping(there, deadline)
        there.close()
        if answer != _READY:
            return
        if self._pipeline:
            raise self._not_ready(
                f"{self.title} must listen where SAGEMAKER_BIND_TO_PORT says, since it shares the "
                f"machine with the others, got port {SERVICE_PORT}"
            )
        self.http.close()
        self._move(self.host, SERVICE_PORT)

    def _advice(self) -> Sequence[str]:
        said = "\n".join(self._lines).lower()
        return [advice for sign, advice in _ADVICE.items() if sign in said]


class ContainerServer(_KeptServer):
    """A container of an image, with its model at `/opt/ml/model`."""

    _claim: socket.socket | None = None

    async def start(self, storage: Storage, base: Path) -> None:
        """Start the container; it is not ready yet."""
        assert self._container.image is not None
        image = await asyncio.to_thread(
            find_image, self._job.container_engine, self._container.image
        )
        model = None if self._container.model_data_url is None else await self._model(storage, base)
        engine = image.engine
        if self._pipeline and not image.binds:
            self._tell(f"{self.title}'s image lacks the label {BINDS_LABEL}=true; {_ADD_LABEL}")
        bind = image.binds and (engine.shares_network or self._pipeline)
        if engine.shares_network and not image.binds:
            await self._take_service_port()
        environment = self._environment(bind=bind)
        if engine.shares_network:
            environment["BIND_HOST"] = "127.0.0.1"
        name = f"transform-{uuid.uuid4().hex}"
        self._finish = engine.remove(name)
        command = engine.run(
            self._container.image,
            name,
            port=self.port,
            inside=self.port if bind else SERVICE_PORT,
            model_dir=model,
            environment=environment,
        )
        await self._run(command, env=dict(os.environ), cwd="/")

    async def _take_service_port(self) -> None:
        """Wait until port 8080 is this server's: its image knows no other."""
        if self._pipeline:
            raise InstanceFailed(
                NO_PING,
                f"{self.title} must listen where SAGEMAKER_BIND_TO_PORT says, since it shares the "
                f"machine's ports with the others, got an image without the label {BINDS_LABEL}="
                f"true; {_ADD_LABEL}",
            )
        deadline = time.monotonic() + self._job.ping_timeout_s
        if (claim := claim_service_port()) is None:
            self._tell(f"{self.title} waits for port {SERVICE_PORT}, which another instance has")
        while claim is None:
            if time.monotonic() > deadline:
                raise InstanceFailed(
                    NO_PING,
                    f"port {SERVICE_PORT} must become free for an image without the label "
                    f"{BINDS_LABEL}=true, got another instance on it for "
                    f"{self._job.ping_timeout_s:g} s; let jobs run one after the other, with one "
                    "instance each",
                )
            await asyncio.sleep(_CLAIM_PAUSE_S)
            claim = claim_service_port()
        self._claim = claim
        self._move(self.host, SERVICE_PORT)

    def _tell(self, text: str) -> None:
        self._log.agent(agent_line(text))

    async def stop(self) -> None:
        """End the container and leave nothing of it."""
        await super().stop()
        if self._claim is not None:
            self._claim.close()


def _exit(code: int) -> str:
    """Say an exit code; the keeper and container engines add 128 to a signal's number."""
    try:
        return f"exit code {code} ({signal.Signals(code - 128).name})"
    except ValueError:
        return f"exit code {code}"


_INHERITED = frozenset(
    {"PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "USER", "LD_LIBRARY_PATH"}
)
_ADD_LABEL = (
    "the service asks for it in a pipeline: let it listen where SAGEMAKER_BIND_TO_PORT says, and "
    "add the label"
)
_ADVICE = {
    "/opt/ml/model": "a process finds its model where SM_MODEL_DIR says, and not in /opt/ml/model: "
    "let it look there, or run its image with a container engine",
    "address already in use": "a server must listen where SAGEMAKER_BIND_TO_PORT says, or be the "
    f"only one on this machine that listens on port {SERVICE_PORT}: set InstanceCount to 1",
}


class ModelServers:
    """All containers of a model: one, or a pipeline."""

    def __init__(self, job: JobSpec, log: LogSink) -> None:
        self._job = job
        pipeline = len(job.containers) > 1
        self.servers: Sequence[ModelServer] = [
            _server(
                job,
                container,
                stream=(container.name or f"container-{number}") if pipeline else None,
                log=log,
            )
            for number, container in enumerate(job.containers, 1)
        ]
        self._folders: list[Path] = []

    async def start(self, storage: Storage, work_dir: Path) -> None:
        """Unpack the models, start the servers and wait until all are ready.

        :raises InstanceFailed: with one reason.
        """
        for number, server in enumerate(self.servers, 1):
            self._folders.append(work_dir / f"container-{number}")
            await server.start(storage, self._folders[-1])
        deadline = time.monotonic() + self._job.ping_timeout_s
        waiting = [asyncio.create_task(server.wait_ready(deadline)) for server in self.servers]
        try:
            await asyncio.gather(*waiting)
        finally:
            for late in waiting:
                late.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def stop(self) -> None:
        """End all that was started, and remove the models that were unpacked."""
        await asyncio.gather(*(server.stop() for server in self.servers))
        for folder in self._folders:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def _server(job: JobSpec, container: Container, *, stream: str | None, log: LogSink) -> ModelServer:
    if container.url is not None:
        return RunningServer(container.url)
    kind = ProcessServer if container.image is None else ContainerServer
    return kind(job, container, stream, log)
