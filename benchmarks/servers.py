"""Model servers to measure against: nginx, as a native one that does nothing, and gunicorn."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.errors import BenchmarkError, Missing
from benchmarks.program import PROJECT

_SERVE = PROJECT / "examples" / "breast_cancer" / "image" / "serve"
_READY_S = 30.0
_STOP_S = 10.0
_ECHO_MODULE = "ngx_http_echo_module.so"
_APT = "apt-get install nginx-light libnginx-mod-http-echo wrk"

_NGINX = """
load_module {echo_module};
{user}
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  keepalive_requests 100000000;
  tcp_nodelay on;
  client_max_body_size 200m;
  client_body_buffer_size 8m;
  client_body_in_single_buffer on;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  default_type text/csv;
  map $content_length $reply {{ default none; {reply_of_length} }}
  map $request_id $unlucky {{ default 0; ~^00 1; }}
  # One of ten connections, or all could be stuck at once and so would be what is sent again.
  map "$connection:$connection_requests" $stuck {{ default 0; "~0:{stall_at}$" 1; }}
{servers}
  server {{ listen 127.0.0.1:{status_port}; location / {{ stub_status; }} }}
}}
"""
_SERVER = """
  server {{
    listen 127.0.0.1:{port};
    {options}
    location = /invocations {{ {invocations} }}
    location /replies/ {{ internal; root {folder}; }}
    location = /refuse {{ internal; access_log {folder}/others.log; return 503; }}
    # Not with a map, which would hash the whole body.
    location = /head {{
      internal; set $first none; if ($request_body ~ "^(.{{10}})") {{ set $first $1; }}
      echo -n $first;
    }}
    location = /stall {{ internal; echo_read_request_body; echo_sleep 600; }}
    location / {{ access_log {folder}/others.log; return 404; }}
    location = /ping {{ access_log {folder}/others.log; return 200; }}
  }}
"""
# The body is read whole before the reply, as model servers do.
_READ = "echo_read_request_body;"
_REPEAT = f"{_READ} echo_request_body;"
_SERVERS = {
    "identity": ("", _REPEAT),
    "head": ("", f"{_READ} echo_exec /head;"),
    "by_length": ("", f"{_READ} echo_location /replies/$reply;"),
    "closing": ("keepalive_timeout 0;", _REPEAT),
    "failing": ("", f"if ($unlucky) {{ rewrite ^ /refuse last; }} {_REPEAT}"),
    "stalling": ("", f"if ($stuck) {{ rewrite ^ /stall last; }} {_REPEAT}"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Tools:
    """The programs of the system's packages."""

    nginx: str
    wrk: str
    echo_module: str


def find_tools() -> Tools:
    """Find nginx with its echo module, and wrk.

    :raises Missing: one of them is not installed.
    """
    folders = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
    nginx, wrk = (shutil.which(name, path=folders) for name in ("nginx", "wrk"))
    if nginx is None or wrk is None:
        missing = " and ".join(n for n, p in (("nginx", nginx), ("wrk", wrk)) if p is None)
        raise Missing(f"nginx and wrk must be installed, got no {missing}; {_APT}")
    options = subprocess.run([nginx, "-V"], capture_output=True, text=True, timeout=10).stderr
    modules = next(
        (o.partition("=")[2] for o in options.split() if o.startswith("--modules-path=")), ""
    )
    echo_module = Path(modules, _ECHO_MODULE)
    if not echo_module.is_file():
        raise Missing(f"nginx must have its echo module, got no {echo_module}; {_APT}")
    return Tools(nginx=nginx, wrk=wrk, echo_module=str(echo_module))


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """A model server that runs.

    :param answered: tells how many requests for /invocations it has had and not refused.
    """

    url: str
    answered: Callable[[], int]


class Nginx:
    """nginx with one worker and a server for each way to reply."""

    def __init__(self, servers: Mapping[str, Server]) -> None:
        self._servers = servers

    def __getitem__(self, kind: str) -> Server:
        """Return one of its servers.

        identity    replies with the request's body
        head        replies with the first ten bytes of the body
        by_length   replies as the `replies` tell for the length of the body
        closing     as identity, and closes the connection
        failing     replies 503 to one of 256 requests, at random; else as identity
        stalling    never replies to the request of a connection that `stall_at` tells, on one of
                    ten connections; else as identity
        """
        return self._servers[kind]


@contextmanager
def nginx(
    tools: Tools, folder: Path, *, replies: Mapping[int, bytes], stall_at: int
) -> Iterator[Nginx]:
    """Run nginx with its files in a folder.

    :param replies: the reply of the server `by_length` for each length of a body.
    :param stall_at: which request of a connection to `stalling` gets no reply.
    """
    (folder / "replies").mkdir(parents=True)
    for length, reply in replies.items():
        (folder / "replies" / str(length)).write_bytes(reply)
    ports = _free_ports(len(_SERVERS) + 1)
    servers = "".join(
        _SERVER.format(port=port, folder=folder, options=options, invocations=invocations)
        for port, (options, invocations) in zip(ports, _SERVERS.values(), strict=False)
    )
    configuration = _NGINX.format(
        echo_module=tools.echo_module,
        # Started by root its worker would be another user, who may not read our folder.
        user="user root;" if os.geteuid() == 0 else "",
        folder=folder,
        reply_of_length=" ".join(f"{length} {length};" for length in replies),
        stall_at=stall_at,
        servers=servers,
        status_port=ports[-1],
    )
    (folder / "nginx.conf").write_text(configuration)
    command = [
        *(tools.nginx, "-e", f"{folder}/error.log", "-p", f"{folder}"),
        *("-c", f"{folder}/nginx.conf"),
    ]
    with _running(command, f"http://127.0.0.1:{ports[0]}/ping", {}):
        looks = 0

        def answered() -> int:
            nonlocal looks
            looks += 1
            status_url = f"http://127.0.0.1:{ports[-1]}/"
            with urllib.request.urlopen(status_url, timeout=10) as answer:
                requests = int(answer.read().splitlines()[2].split()[2])
            others = (folder / "others.log").read_bytes().count(b"\n")
            return requests - looks - others

        yield Nginx(
            {
                kind: Server(
                    url=f"http://127.0.0.1:{port}",
                    answered=answered,
                )
                for kind, port in zip(_SERVERS, ports, strict=False)
            }
        )


_COUNT_EACH = """
import os
_file = os.open({path!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def pre_request(worker, request):
    if request.path == "/invocations":
        os.write(_file, b".")
"""


@contextmanager
def example_model(model: Path, folder: Path) -> Iterator[Server]:
    """Run the example's `serve`: gunicorn, flask, a regression in numpy."""
    with _gunicorn(_SERVE, folder, {"SM_MODEL_DIR": str(model)}) as server:
        yield server


@contextmanager
def sklearn_model(folder: Path) -> Iterator[Server]:
    """Run a model that scikit-learn asks in the place of the example's, by the same `serve`."""
    image = folder / "image"
    image.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("sklearn_server.py"), image / "model_server.py")
    with _gunicorn(Path(shutil.copy(_SERVE, image)), folder / "counts", {}) as server:
        yield server


@contextmanager
def _gunicorn(serve: Path, folder: Path, environment: Mapping[str, str]) -> Iterator[Server]:
    folder.mkdir(parents=True)
    (port,) = _free_ports(1)
    count, configuration = folder / "invocations", folder / "gunicorn.py"
    configuration.write_text(_COUNT_EACH.format(path=str(count)))
    environment = {
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
        "BIND_HOST": "127.0.0.1",
        "SAGEMAKER_BIND_TO_PORT": str(port),
        "GUNICORN_CMD_ARGS": f"--config {configuration}",
        **environment,
    }
    url = f"http://127.0.0.1:{port}"
    with _running([str(serve)], f"{url}/ping", environment):
        yield Server(
            url=url,
            answered=lambda: count.stat().st_size,
        )


@contextmanager
def interim_server(folder: Path, *, plain: bool) -> Iterator[Server]:
    """Run the server that says `100 Continue` before each reply, or the same without that."""
    folder.mkdir(parents=True)
    (port,) = _free_ports(1)
    count = folder / "invocations"
    url = f"http://127.0.0.1:{port}"
    script = Path(__file__).with_name("interim_server.py")
    command = [sys.executable, str(script), str(port), str(count), *(["--plain"] if plain else [])]
    with _running(command, f"{url}/ping", {}):
        yield Server(
            url=url,
            answered=lambda: count.stat().st_size,
        )


@contextmanager
def _running(
    command: Sequence[str], ping: str, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            deadline = time.monotonic() + _READY_S
            while not _answers(ping):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise BenchmarkError(
                        f"{command[0]} must answer {ping} within {_READY_S:g} s, got no answer; "
                        "see what it printed"
                    )
                time.sleep(0.05)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                pass  # Then the kill below ends it.
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # Nothing is left of it.


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
