import asyncio
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvloop

from transform_engine import keeper
from transform_engine.data_log import MemoryLog
from transform_engine.errors import NO_PING, InstanceFailed
from transform_engine.model_archive import unpack_model
from transform_engine.ports import SERVICE_PORT
from transform_engine.servers import ModelServers
from transform_engine.spec import Container, JobSpec
from transform_engine.storage import FolderStorage, write_object

_JobFor = Callable[..., JobSpec]


def _python(tmp_path: Path, program: str) -> Container:
    return Container(command=(sys.executable, "-c", program), cwd=str(tmp_path))


def _start(job: JobSpec, bucket: FolderStorage, tmp_path: Path) -> MemoryLog:
    """Start the servers, wait until they are ready, and end them."""
    log = MemoryLog()

    async def scenario() -> None:
        servers = ModelServers(job, log)
        try:
            await servers.start(bucket, tmp_path)
        finally:
            await servers.stop()

    asyncio.run(scenario())
    return log


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def _until(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "must come true in time"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("command", "detail"),
    [
        pytest.param(
            ("./serve", "serve"),
            "must be a program, got exit code 127 from './serve'; its last log lines:\n"
            "cannot run ./serve: No such file or directory",
            id="no serve",
        ),
        pytest.param(
            (sys.executable, "-c", "raise SystemExit('no model here')"),
            "got exit code 1; its last log lines:\nno model here",
            id="exits at once",
        ),
        pytest.param(
            (sys.executable, "-c", "print('loading', flush=True); import time; time.sleep(60)"),
            "must answer GET /ping with 200 in time, got",
            id="never answers",
        ),
    ],
)
def test_fails_when_a_server_does_not_come_up(
    command: tuple[str, ...],
    detail: str,
    request_for: Callable[..., Any],
    job_for: _JobFor,
    bucket: FolderStorage,
    tmp_path: Path,
) -> None:
    container = Container(command=command, cwd=str(tmp_path))
    job = job_for(request_for(), [container], ping_timeout_s=0.8)
    with pytest.raises(InstanceFailed) as failure:
        _start(job, bucket, tmp_path)
    assert failure.value.failure_reason == NO_PING
    assert detail in failure.value.detail


def test_a_server_gets_its_environment_model_and_a_low_port(
    request_for: Callable[..., Any],
    container: Callable[..., Container],
    job_for: _JobFor,
    bucket: FolderStorage,
    tmp_path: Path,
) -> None:
    server = container("echo")
    _start(job_for(request_for(), [server]), bucket, tmp_path)
    line = Path(server.cwd, "calls.jsonl").read_text().splitlines()[0]
    environment = json.loads(line)["env"]
    assert environment["SAGEMAKER_BATCH"] == "true"
    assert environment["BIND_HOST"] == "127.0.0.1"
    base = Path(environment["SAGEMAKER_BASE_DIR"])
    assert Path(environment["SM_MODEL_DIR"]) == base / "model"
    assert not base.exists(), "nothing stays once the server has ended"
    port = int(environment["SAGEMAKER_BIND_TO_PORT"])
    low, high = map(int, environment["SAGEMAKER_SAFE_PORT_RANGE"].split("-"))
    assert port < low < high < 32767
    assert "AWS_SECRET_ACCESS_KEY" not in environment


_ANSWERING = """
import http.server, json, os, sys
answers = json.loads(sys.argv[1])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        status, headers, body = answers.get(self.path, [404, {}, "<html>no</html>"])
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body.encode("latin-1"))
address = os.environ["BIND_HOST"], int(os.environ["SAGEMAKER_BIND_TO_PORT"])
http.server.ThreadingHTTPServer(address, Handler).serve_forever()
"""


def _parameters(
    answers: dict[str, Any], job_for: _JobFor, request: Any, bucket: FolderStorage, tmp_path: Path
) -> Mapping[str, Any]:
    """Start a server that answers so, and return what it offers."""
    command = (sys.executable, "-c", _ANSWERING, json.dumps(answers))
    container = Container(command=command, cwd=str(tmp_path))

    async def scenario() -> Mapping[str, Any]:
        servers = ModelServers(job_for(request, [container], ping_timeout_s=1.5), MemoryLog())
        try:
            await servers.start(bucket, tmp_path)
            return await servers.servers[0].parameters()
        finally:
            await servers.stop()

    return asyncio.run(scenario())


@pytest.mark.parametrize("body", ["", "\n", '"\\n"', '{"status": "Unhealthy"}', "\xff" * 9])
def test_what_a_ping_says_beside_200_does_not_matter(
    body: str,
    request_for: Callable[..., Any],
    job_for: _JobFor,
    bucket: FolderStorage,
    tmp_path: Path,
) -> None:
    answers = {"/ping": [200, {"Content-Type": "text/html"}, body]}
    assert _parameters(answers, job_for, request_for(), bucket, tmp_path) == {}


def test_fails_when_a_ping_only_redirects(
    request_for: Callable[..., Any], job_for: _JobFor, bucket: FolderStorage, tmp_path: Path
) -> None:
    answers = {"/ping": [302, {"Location": "/health"}, ""], "/health": [200, {}, ""]}
    with pytest.raises(InstanceFailed, match="got status 302"):
        _parameters(answers, job_for, request_for(), bucket, tmp_path)


@pytest.mark.parametrize(
    ("status", "headers", "body", "offered"),
    [
        pytest.param(
            200, {}, '{"BatchStrategy": "MultiRecord"}', {"BatchStrategy": "MultiRecord"}, id="JSON"
        ),
        pytest.param(404, {}, '{"BatchStrategy": "MULTI_RECORD"}', {}, id="404 with JSON"),
        pytest.param(404, {"Content-Type": "text/plain"}, "Not Found", {}, id="404 with text"),
        pytest.param(200, {"Content-Type": "text/html"}, "<html>", {}, id="200 with HTML"),
        pytest.param(200, {}, "[1]", {}, id="200 with a list"),
        pytest.param(200, {}, "\xff", {}, id="200 with bytes"),
        pytest.param(200, {}, "[" * 100_000, {}, id="200 with depth"),
        pytest.param(200, {"Content-Length": "99"}, "{", {}, id="200 cut off"),
    ],
)
def test_execution_parameters_are_taken_only_where_they_are_some(
    status: int,
    headers: dict[str, str],
    body: str,
    offered: dict[str, Any],
    request_for: Callable[..., Any],
    job_for: _JobFor,
    bucket: FolderStorage,
    tmp_path: Path,
) -> None:
    answers = {"/ping": [200, {}, ""], "/execution-parameters": [status, headers, body]}
    assert _parameters(answers, job_for, request_for(), bucket, tmp_path) == offered


_SAYS_ITS_PID = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
address = os.environ["BIND_HOST"], int(os.environ["SAGEMAKER_BIND_TO_PORT"])
server = http.server.HTTPServer(address, Handler)
open("pid", "w").write(str(os.getpid()))
server.serve_forever()
"""


@pytest.mark.parametrize("name", [None, "second"])
def test_a_server_that_is_killed_says_which_and_how(
    name: str | None,
    request_for: Callable[..., Any],
    job_for: _JobFor,
    bucket: FolderStorage,
    tmp_path: Path,
) -> None:
    one = Container(
        command=(sys.executable, "-c", _SAYS_ITS_PID), cwd=str(tmp_path), name=name or "only"
    )
    job = job_for(request_for(), [one] if name is None else [Container(url="http://a:1"), one])

    async def scenario() -> str | None:
        server = ModelServers(job, MemoryLog()).servers[-1]
        await server.start(bucket, Path(tempfile.mkdtemp(dir=tmp_path)))
        try:
            await server.wait_ready(time.monotonic() + 10)
            assert server.ended() is None
            os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
            await server.wait_ended(10)
            return server.ended()
        finally:
            await server.stop()

    title = "the model server" if name is None else "the model server second"
    expected = f"{title} must run until the job ends, got exit code 137 (SIGKILL)"
    assert asyncio.run(scenario()) == uvloop.run(scenario()) == expected


_KNOWS_NO_PORT = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
if os.fork():
    os.wait()
print("/opt/ml/model is not read here", flush=True)
http.server.HTTPServer(("127.0.0.1", 8080), Handler).serve_forever()
"""


@pytest.fixture
def service_port() -> None:
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", SERVICE_PORT)) == 0:
            pytest.skip(f"port {SERVICE_PORT} is in use on this machine")


def test_a_process_that_knows_no_other_port_is_found_on_8080(
    service_port: None,
    request_for: Callable[..., Any],
    job_for: _JobFor,
    bucket: FolderStorage,
    tmp_path: Path,
) -> None:
    job = job_for(request_for(), [_python(tmp_path, _KNOWS_NO_PORT)])

    async def scenario() -> int:
        servers = ModelServers(job, MemoryLog())
        try:
            await servers.start(bucket, tmp_path)
            return servers.servers[0].port
        finally:
            await servers.stop()

    assert asyncio.run(scenario()) == SERVICE_PORT


def test_fails_when_a_process_cannot_have_the_only_port_that_it_knows(
    service_port: None,
    request_for: Callable[..., Any],
    job_for: _JobFor,
    bucket: FolderStorage,
    tmp_path: Path,
) -> None:
    job = job_for(request_for(), [_python(tmp_path, _KNOWS_NO_PORT)])
    with (
        socket.create_server(("127.0.0.1", SERVICE_PORT)),
        pytest.raises(InstanceFailed, match="InstanceCount") as failure,
    ):
        _start(job, bucket, tmp_path)
    assert "exit code 1; a process finds its model where SM_MODEL_DIR says" in failure.value.detail


def test_fails_when_a_process_of_a_pipeline_listens_where_it_is_not_told_to(
    service_port: None,
    request_for: Callable[..., Any],
    container: Callable[..., Container],
    job_for: _JobFor,
    bucket: FolderStorage,
    tmp_path: Path,
) -> None:
    job = job_for(request_for(), [container("echo"), _python(tmp_path, _KNOWS_NO_PORT)])
    expected = "container-2 must listen where SAGEMAKER_BIND_TO_PORT says, .*, got port 8080"
    with pytest.raises(InstanceFailed, match=expected):
        _start(job, bucket, tmp_path)


_STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
deaf = "import signal, time\\nsignal.signal(15, signal.SIG_IGN)\\ntime.sleep(99)"
worker = subprocess.Popen([sys.executable, "-c", deaf])
daemon = subprocess.Popen([sys.executable, "-c", deaf], start_new_session=True)
open(sys.argv[1] + ".tmp", "w").write(f"{os.getpid()} {worker.pid} {daemon.pid}")
os.rename(sys.argv[1] + ".tmp", sys.argv[1])
time.sleep(99)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="daemons are adopted on Linux only")
def test_a_server_that_is_ended_as_soon_as_it_is_begun_holds_nothing_up() -> None:
    for _ in range(10):
        kept = subprocess.Popen(
            [sys.executable, "-IS", keeper.__file__, "60", "--", "sleep", "60"],
            stdin=subprocess.PIPE,
        )
        assert kept.stdin is not None
        kept.stdin.close()
        kept.wait(10)  # A signal sent before the server leads its group would reach nobody.


@pytest.mark.parametrize("how", ["asked", "agent killed", "keeper killed"])
def test_nothing_of_a_server_is_left_behind(how: str, tmp_path: Path) -> None:
    said = tmp_path / "pids"
    # The agent stands between us and the keeper, as in a job.
    agent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import subprocess, sys\n"
            "pipe = subprocess.PIPE\n"
            "keeper = subprocess.Popen(sys.argv[1:], stdin=pipe, start_new_session=True)\n"
            "print(keeper.pid, flush=True)\n"
            "sys.stdin.read()\n"
            "keeper.stdin.close()\n"
            "keeper.wait()\n",
            *(sys.executable, "-IS", keeper.__file__, "0.3", "--"),
            *(sys.executable, "-c", _STUBBORN, str(said)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert agent.stdin is not None
    assert agent.stdout is not None
    with agent.stdin, agent.stdout:
        keeper_pid = int(agent.stdout.readline())
        _until(said.exists)
        server, worker, daemon = (int(pid) for pid in said.read_text().split())
        if how == "asked":
            agent.stdin.close()
        elif how == "agent killed":
            agent.kill()
        else:
            os.kill(keeper_pid, signal.SIGKILL)
        if how == "keeper killed":
            # The kernel ends the server; nobody is left to look for what it started.
            _until(lambda: not _alive(server))
            for pid in (worker, daemon):
                os.kill(pid, signal.SIGKILL)
            agent.kill()
        else:
            _until(lambda: not any(map(_alive, (server, worker, daemon, keeper_pid))))
        agent.wait(10)


_LEAVES_A_DAEMON = """
import http.server, os, subprocess, sys
wait = "import time; time.sleep(99)"
daemon = subprocess.Popen([sys.executable, "-c", wait], start_new_session=True)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
address = os.environ["BIND_HOST"], int(os.environ["SAGEMAKER_BIND_TO_PORT"])
server = http.server.HTTPServer(address, Handler)
open("pids", "w").write(f"{os.getppid()} {daemon.pid}")
server.serve_forever()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends the server on Linux only")
def test_a_server_whose_keeper_was_killed_holds_up_nobody(
    request_for: Callable[..., Any],
    job_for: _JobFor,
    bucket: FolderStorage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("transform_engine.servers._LAST_OUTPUT_S", 0.2)
    job = job_for(request_for(), [_python(tmp_path, _LEAVES_A_DAEMON)])

    async def scenario() -> None:
        servers = ModelServers(job, MemoryLog())
        await servers.start(bucket, tmp_path)
        keeper_pid, daemon = map(int, (tmp_path / "pids").read_text().split())
        try:
            os.kill(keeper_pid, signal.SIGKILL)
            await asyncio.wait_for(servers.stop(), 5)
        finally:
            os.kill(daemon, signal.SIGKILL)

    asyncio.run(scenario())
    uvloop.run(scenario())


def _archive(bucket: FolderStorage, *members: tuple[tarfile.TarInfo, bytes]) -> str:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    asyncio.run(write_object(bucket, "bkt", "model.tar.gz", packed.getvalue()))
    return "s3://bkt/model.tar.gz"


_TELLS_ITS_MODEL = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
address = os.environ["BIND_HOST"], int(os.environ["SAGEMAKER_BIND_TO_PORT"])
server = http.server.HTTPServer(address, Handler)
print(open(os.environ["SM_MODEL_DIR"] + "/a.txt").read(), flush=True)
server.serve_forever()
"""


@pytest.mark.parametrize("kind", ["archive", "local archive", "folder"])
def test_a_server_finds_its_model_whatever_it_is_kept_in(
    kind: str,
    request_for: Callable[..., Any],
    job_for: _JobFor,
    bucket: FolderStorage,
    tmp_path: Path,
) -> None:
    place = tmp_path / "a model"
    place.mkdir()
    (place / "a.txt").write_text("weights")
    packed = tmp_path / "model.tar.gz"
    with tarfile.open(packed, "w:gz") as tar:
        tar.add(place / "a.txt", "a.txt")
    if kind == "archive":
        asyncio.run(write_object(bucket, "bkt", "m.tar.gz", packed.read_bytes()))
    url = {
        "archive": "s3://bkt/m.tar.gz",
        "local archive": packed.as_uri(),
        "folder": f"{place.as_uri()}/",
    }[kind]
    server = replace(_python(tmp_path, _TELLS_ITS_MODEL), model_data_url=url)
    log = _start(job_for(request_for(), [server]), bucket, tmp_path / "work")
    assert log.container_lines[0] == (None, "weights")
    assert [*(tmp_path / "work").iterdir()] == []
    assert (place / "a.txt").read_text() == "weights"


def test_a_model_archive_is_unpacked(bucket: FolderStorage, tmp_path: Path) -> None:
    program = tarfile.TarInfo("code/run")
    program.mode = 0o4777
    url = _archive(
        bucket,
        (tarfile.TarInfo("./a.txt"), b"overwritten"),
        (tarfile.TarInfo("a.txt"), b"model"),
        (program, b"#!"),
        (_link("code/soft", "../a.txt"), b""),
        (_link("hard", "code/run", tarfile.LNKTYPE), b""),
    )
    folder = tmp_path / "model"
    unpack_model(bucket, url, folder, limit_bytes=1000)
    assert (folder / "a.txt").read_bytes() == (folder / "code" / "soft").read_bytes() == b"model"
    assert (folder / "hard").read_bytes() == b"#!"
    assert (folder / "code" / "run").stat().st_mode & 0o7777 == 0o755


def _link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    link = tarfile.TarInfo(name)
    link.type, link.linkname = kind, target
    return link


def _device() -> tarfile.TarInfo:
    device = tarfile.TarInfo("null")
    device.type = tarfile.CHRTYPE
    return device


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        pytest.param([(tarfile.TarInfo("../escape"), b"x")], "safe tar.gz", id="climbs out"),
        pytest.param([(tarfile.TarInfo("/etc/escape"), b"x")], "safe tar.gz", id="starts outside"),
        pytest.param([(_link("l", "/etc"), b"")], "safe tar.gz", id="links out"),
        pytest.param([(_link("a/l", "../.."), b"")], "safe tar.gz", id="links up and out"),
        pytest.param(
            [(_link("l", "../escape", tarfile.LNKTYPE), b"")], "safe tar.gz", id="hard link out"
        ),
        pytest.param([(_device(), b"")], "safe tar.gz", id="a device"),
        pytest.param([(tarfile.TarInfo("big"), b"x" * 101)], "at most 100 bytes", id="too large"),
    ],
)
def test_fails_when_a_model_archive_is_not_safe(
    members: list[tuple[tarfile.TarInfo, bytes]],
    problem: str,
    bucket: FolderStorage,
    tmp_path: Path,
) -> None:
    url = _archive(bucket, *members)
    with pytest.raises(InstanceFailed, match=problem):
        unpack_model(bucket, url, tmp_path / "model", limit_bytes=100)
    assert not (tmp_path / "escape").exists()


@pytest.mark.parametrize("content", [None, b"no archive"])
def test_fails_when_a_model_archive_is_missing_or_none(
    content: bytes | None, bucket: FolderStorage, tmp_path: Path
) -> None:
    if content is not None:
        asyncio.run(write_object(bucket, "bkt", "model.tar.gz", content))
    with pytest.raises(InstanceFailed, match="the model archive must be"):
        unpack_model(bucket, "s3://bkt/model.tar.gz", tmp_path / "model", limit_bytes=100)
