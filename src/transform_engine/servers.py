"""A model's containers as processes on loopback: archive, environment, ports, ping, end."""

import asyncio
import itertools
import json
import os
import shutil
import socket
import sys
import tarfile
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transform_engine.data_log import LogSink
from transform_engine.errors import INTERNAL_ERROR, NO_PING, SEE_LOGS, InstanceFailed
from transform_engine.http_client import HttpClient, NoReply, TimedOut
from transform_engine.settings import container_environment
from transform_engine.spec import Container, JobSpec
from transform_engine.storage import Storage, split_uri

_KEEPER = Path(__file__).with_name("keeper.py")
_PING_TIMEOUT_S = 2.0
_PARAMETERS_TIMEOUT_S = 10.0
_LAST_LINES = 40
_LAST_OUTPUT_S = 5.0
_LINE_BYTES = 64 * 1024
# Some servers refuse 32767 and above, and the kernel hands out the ports above 32768.
_PORTS = range(18000, 32000)


# Processes that start at the same time look in different places.
_TURNS = itertools.count(os.getpid() % 875 * 16)


def free_port() -> int:
    """Return a low port that nothing listens on, another at every call."""
    for turn in itertools.islice(_TURNS, len(_PORTS)):
        port = _PORTS[turn % len(_PORTS)]
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise InstanceFailed(INTERNAL_ERROR, "a port between 18000 and 32000 must be free, got none")


def unpack_model(storage: Storage, url: str, folder: Path, *, limit_bytes: int) -> None:
    """Unpack a model archive, without letting it write elsewhere or without bounds.

    :raises InstanceFailed: it is missing, no archive, too large, or unsafe.
    """
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder.with_suffix(".tar.gz")
    try:
        storage.download(*split_uri(url), archive)
    except Exception as error:
        raise InstanceFailed(
            SEE_LOGS, f"the model archive must be readable, got {error!r} for {url}; check the URL"
        ) from error
    size = 0
    try:
        with tarfile.open(archive, "r:*") as tar:
            for member in tar:
                size += member.size
                if size > limit_bytes:
                    raise InstanceFailed(
                        INTERNAL_ERROR,
                        f"the model must unpack to at most {limit_bytes} bytes, got more from "
                        f"{url}; remove what the server does not need",
                    )
                _unpack_member(tar, member, folder.resolve())
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InstanceFailed(
            SEE_LOGS,
            f"the model archive must be a safe tar.gz, got {error!r} for {url}; pack it again",
        ) from error
    finally:
        archive.unlink(missing_ok=True)


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    """Unpack a file, a folder or a link that stays inside (tarfile filters need 3.11.4)."""
    # Resolved against what is unpacked already: a link must not lead the next member out.
    parent = _inside(folder, folder / Path(member.name).parent)
    target = parent / Path(member.name).name
    if member.isdir():
        _inside(folder, target).mkdir(parents=True, exist_ok=True)
        return
    parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)  # The later of two members with one name stays.
    content = tar.extractfile(member) if member.isfile() else None
    if content is not None:
        with content, target.open("xb") as file:
            shutil.copyfileobj(content, file)
        target.chmod(0o755 if member.mode & 0o100 else 0o644)
    elif member.issym():
        _inside(folder, parent / member.linkname)
        target.symlink_to(member.linkname)
    elif member.islnk():
        target.hardlink_to(_inside(folder, folder / member.linkname))
    else:
        raise tarfile.TarError(f"{member.name} is a device")


def _inside(folder: Path, path: Path) -> Path:
    resolved = path.resolve()
    if not resolved.is_relative_to(folder):
        raise tarfile.TarError(f"{path} leads outside the model's folder")
    return resolved


class ModelServer:
    """One container's process, kept by `keeper.py`."""

    def __init__(self, container: Container, *, stream: str | None, log: LogSink) -> None:
        self._container = container
        self._stream = stream
        self._log = log
        self._lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._process: asyncio.subprocess.Process | None = None
        self._output: asyncio.ReadTransport | None = None
        self._reader: asyncio.Task[None] | None = None
        self.port = free_port()
        self.http = HttpClient(self.port)

    async def start(self, job: JobSpec, model_dir: Path) -> None:
        """Start the process; it is not ready yet."""
        environment = {
            **{name: value for name, value in os.environ.items() if name in _INHERITED},
            **container_environment(job.request, self._container.environment),
            "SM_MODEL_DIR": str(model_dir),
            "SAGEMAKER_BIND_TO_PORT": str(self.port),
            "SAGEMAKER_SAFE_PORT_RANGE": f"{_PORTS.start}-{_PORTS.stop - 1}",
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

    async def wait_ready(self, deadline: float) -> None:
        """Ping until 200.

        :raises InstanceFailed: the server ended, or it did not answer by `deadline` (monotonic).
        """
        assert self._process is not None
        pause, last = 0.02, "no answer yet"
        while True:
            if self._process.returncode is not None:
                raise self._not_ready(self._ended())
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
                raise self._not_ready(f"must answer GET /ping with 200 in time, got {last}")
            try:
                await asyncio.wait_for(self._process.wait(), pause)
            except TimeoutError:
                pause = min(1.0, pause * 1.5)

    def _ended(self) -> str:
        assert self._process is not None
        code = self._process.returncode
        if code == 127:
            return f"must be a program, got exit code 127 from {self._container.command[0]!r}"
        return f"must stay and answer GET /ping, got exit code {code}"

    def _not_ready(self, why: str) -> InstanceFailed:
        return InstanceFailed(NO_PING, f"the model server {why}; {self.last_words}")

    @property
    def last_words(self) -> str:
        """The last lines of the server's log, for a person."""
        said = "\n".join(self._lines).strip()
        return f"its last log lines:\n{said}" if said else "it logged nothing"

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


_INHERITED = frozenset(
    {"PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "USER", "LD_LIBRARY_PATH"}
)


class ModelServers:
    """All containers of a model: one, or a pipeline."""

    def __init__(self, job: JobSpec, log: LogSink) -> None:
        self._job = job
        pipeline = len(job.containers) > 1
        self.servers: Sequence[ModelServer] = [
            ModelServer(
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
            folder = work_dir / f"model-{number}"
            folder.mkdir(parents=True, exist_ok=True)
            url = self._job.containers[number - 1].model_data_url
            if url is not None:
                limit = self._job.model_size_limit_bytes
                await asyncio.to_thread(unpack_model, storage, url, folder, limit_bytes=limit)
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


def remove_folder(folder: Path) -> None:
    """Remove a work folder and the models in it."""
    shutil.rmtree(folder, ignore_errors=True)
