"""Start, use and stop a local cloud."""

import errno
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from local_cloud import cdk_cli, processes
from local_cloud.deploy import Deployer
from local_cloud.emulator import TEMPORARY, check_version
from local_cloud.errors import CloudUnavailable, PortInUse
from local_cloud.images import Images

ACCOUNT = "000000000000"
"""The account of whoever does not ask for another one."""

REGION = "us-east-1"
"""The region of whoever does not ask for another one."""

_HEALTH_PATH = "/_ministack/health"
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "USER", "SSL_CERT_FILE")
# Where a container engine finds its daemon, its settings and its images.
_OF_CONTAINER_ENGINES = ("DOCKER_", "CONTAINER_", "CONTAINERS_", "XDG_")
_LOG_LINES = 15
_PORT_FILE = "port"
_OWN = ".local-cloud"
"""The file that says of a folder that it is a local cloud's."""


class LocalCloud:
    """A cloud on this machine: the emulator with SageMaker, in a process of its own on 127.0.0.1.

    Use it as a context manager. It keeps its data in `state_dir`, and finds it there again at the
    next start; without one the data goes when it stops. A folder with something else in it is none
    of a cloud's and refused, for a cloud removes what it needs no more.

    :param port: the port to listen on; unless given a free one, or the one of the `state_dir`.
    :param start_limit_s: how long the server may take to answer.
    :param ping_timeout_s: how long a model server may take to answer its first ping; on AWS it is
        half an hour.
    :param instance_quota: how many instances of a type transform jobs may use at once, as a new
        account's quota; no limit unless given.
    :param no_capacity: instance types that are never to be had, so that jobs of theirs fail as on
        AWS.
    :param container_engine: the command of docker or podman, with its options, for model images
        that are not registered as directories; the first one that has the image unless given.
    :param wait_scale: by what to multiply the waits of state machines (Wait, Retry).
    """

    def __init__(
        self,
        *,
        port: int | None = None,
        state_dir: str | os.PathLike[str] | None = None,
        region: str = REGION,
        start_limit_s: float = 60.0,
        ping_timeout_s: float = 120.0,
        instance_quota: int | None = None,
        no_capacity: Sequence[str] = (),
        container_engine: Sequence[str] = (),
        wait_scale: float = 1.0,
    ) -> None:
        self.region = region
        self._asked_port = port
        self._asked_state_dir = state_dir
        self._start_limit_s = start_limit_s
        self._ping_timeout_s = ping_timeout_s
        self._instance_quota = instance_quota
        self._no_capacity = no_capacity
        self._container_engine = container_engine
        self._wait_scale = wait_scale
        self._marker = uuid.uuid4().hex
        self._port = 0
        self._state_dir = Path()
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def endpoint(self) -> str:
        """The URL that every AWS client of this cloud talks to."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def state_dir(self) -> Path:
        """Where this cloud keeps its data, its images and its log."""
        return self._state_dir

    @property
    def marker(self) -> str:
        """What `LOCAL_CLOUD_ID` is in the environment of every process of this cloud."""
        return self._marker

    @property
    def server_pid(self) -> int:
        """The server's process id.

        :raises CloudUnavailable: it is not running.
        """
        self.check()
        assert self._server is not None
        return self._server.pid

    @property
    def log_file(self) -> Path:
        """The server's log."""
        return self._state_dir / "server.log"

    @property
    def images(self) -> Images:
        """The model images that this cloud knows."""
        return Images(self._state_dir / "images")

    def start(self) -> Self:
        """Start the server and wait until it answers.

        :raises PortInUse: another program listens on the port that was asked for.
        :raises CloudUnavailable: it does not answer in time.
        :raises EmulatorMismatch: the emulator is not the version that we extend.
        """
        check_version()
        with _listen(self._wanted_port()) as listener, self._open_log() as log:
            self._port = listener.getsockname()[1]
            if self._asked_state_dir is not None:
                (self._state_dir / _PORT_FILE).write_text(str(self._port))
            arguments = [
                *("--port", str(self._port)),
                *("--listen-fd", str(listener.fileno())),
                *("--state-dir", str(self._state_dir)),
                *("--parent", str(os.getpid())),
                *("--ping-timeout-s", str(self._ping_timeout_s)),
                *(
                    ["--instance-quota", str(self._instance_quota)]
                    if self._instance_quota is not None
                    else []
                ),
                *("--no-capacity", *self._no_capacity),
                *("--container-engine", shlex.join(self._container_engine)),
                *(["--forget"] if self._asked_state_dir is None else []),
            ]
            self._server = subprocess.Popen(
                [sys.executable, "-m", "local_cloud.server", *arguments],
                env=self._server_environment(),
                pass_fds=[listener.fileno()],  # So nobody can take the port in between.
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us; we then stop the server in order.
            )
        try:
            self._wait_until_healthy()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End the server and all that it started; nothing of it is left when this returns."""
        server, self._server = self._server, None
        if server is not None:
            server.terminate()
            try:
                server.wait(timeout=5)
            except subprocess.TimeoutExpired:
                pass  # It can outlive a TERM; what comes now it cannot.
            processes.end(self._marker, server.pid, grace_s=0.5)
            server.wait()
        if self._state_dir != Path():
            forget = self._asked_state_dir is None
            gone = self._state_dir if forget else self._state_dir / TEMPORARY
            shutil.rmtree(gone, ignore_errors=True)

    def check(self) -> None:
        """Make sure that the server is still there.

        :raises CloudUnavailable: it was not started, or has died; shows its last log lines.
        """
        if self._server is None:
            raise CloudUnavailable(
                "the local cloud must be running, got one that was not started or was stopped; "
                "start it first: with LocalCloud() as cloud"
            )
        code = self._server.poll()
        if code is not None:
            raise CloudUnavailable(
                f"the local cloud's server must keep running, got {_ending(code)}; start it again."
                f"{self._last_log_lines()}"
            )

    def environment(self, *, account: str = ACCOUNT) -> dict[str, str]:
        """Return the variables that turn an AWS program to this cloud, and to nothing else."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": account,  # The emulator reads the account from it.
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_DEFAULT_REGION": self.region,
            "AWS_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "NO_PROXY": "127.0.0.1,localhost",
        }

    def cdk_environment(self, *, account: str = ACCOUNT) -> dict[str, str]:
        """Return the variables for the CDK CLI: `cdk bootstrap` and `cdk deploy` then come here.

        Image assets go to this cloud's images, with no container engine.
        """
        return {
            **self.environment(account=account),
            "CDK_DEFAULT_ACCOUNT": account,
            "CDK_DEFAULT_REGION": self.region,
            "CDK_DOCKER": str(cdk_cli.write_docker(self._state_dir)),
        }

    def client(self, service: str, *, account: str = ACCOUNT, region: str | None = None) -> Any:
        """Make a boto3 client of this cloud, whatever the user's own AWS configuration is."""
        self.check()
        session = botocore.session.Session(
            {
                "profile": (None, None, None, None),
                "config_file": (None, None, os.devnull, None),
                "credentials_file": (None, None, os.devnull, None),
            }
        )
        return boto3.Session(botocore_session=session).client(
            service,
            endpoint_url=self.endpoint,
            region_name=region or self.region,
            aws_access_key_id=account,
            aws_secret_access_key="local",
            config=Config(proxies={}, retries={"mode": "standard", "max_attempts": 2}),
        )

    def deploy(
        self,
        assembly_dir: str | os.PathLike[str],
        *,
        parameters: Mapping[str, Mapping[str, str]] | None = None,
        limit_s: float = 300.0,
    ) -> dict[str, dict[str, str]]:
        """Deploy a synthesized cloud assembly as it is; returns the outputs by stack name.

        :param assembly_dir: the directory that `cdk synth` or `app.synth()` wrote.
        :param parameters: template parameters by stack name.
        :param limit_s: how long one stack may take.
        :raises DeployFailed: names the resource that failed, and its reason.
        :raises CloudUnavailable: the server has died.
        """
        self.check()
        deployer = Deployer(
            client=lambda service, account, region: self.client(
                service, account=account, region=region
            ),
            images=self.images,
            default_account=ACCOUNT,
            default_region=self.region,
            check=self.check,
        )
        try:
            return deployer.deploy(Path(assembly_dir), parameters=parameters or {}, limit_s=limit_s)
        except BotoCoreError:
            self.check()  # Names the cause when the server has died.
            raise

    def _wanted_port(self) -> int:
        """Return the port to listen on, 0 for any: a kept state has one in the URLs of queues.

        :raises CloudUnavailable: another one is asked for.
        """
        asked = self._asked_port or 0
        if self._asked_state_dir is None:
            return asked
        try:
            kept = int((Path(self._asked_state_dir) / _PORT_FILE).read_text())
        except (FileNotFoundError, NotADirectoryError):
            return asked
        if asked not in (0, kept):
            raise CloudUnavailable(
                f"the port must be {kept}, which the data in {self._asked_state_dir} names, got "
                f"{asked}; name that one or none, or another state_dir"
            )
        return kept

    def _server_environment(self) -> dict[str, str]:
        """Nothing of the user's AWS set-up goes in: every Lambda worker inherits all of it."""
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name in _INHERITED or name.startswith(_OF_CONTAINER_ENGINES)
        }
        own_modules = str(Path(__file__).parent.parent)
        return {
            **inherited,
            "PYTHONPATH": own_modules,  # For when we run from a checkout that is not installed.
            "PYTHONUNBUFFERED": "1",
            "MINISTACK_REGION": self.region,
            # The engine's, for jobs; a Lambda worker gets its role's instead.
            **self.environment(),
            "SFN_WAIT_SCALE": str(self._wait_scale),
            processes.MARKER: self._marker,
        }

    def _open_log(self) -> BinaryIO:
        try:
            if self._asked_state_dir is None:
                self._state_dir = Path(tempfile.mkdtemp(prefix="local-cloud-"))
            else:
                self._state_dir = _own_folder(Path(self._asked_state_dir).absolute())
            return self.log_file.open("ab")
        except OSError as error:
            place = error.filename or self._state_dir
            raise CloudUnavailable(
                f"the local cloud must be able to write its state, got {error.strerror} at "
                f"{place}; make room there, or name another state_dir"
            ) from error

    def _wait_until_healthy(self) -> None:
        deadline = time.monotonic() + self._start_limit_s
        while not self._answers(within_s=min(2.0, max(0.01, deadline - time.monotonic()))):
            if self._server is not None and self._server.poll() is not None:
                raise CloudUnavailable(
                    f"the local cloud's server must start, got {_ending(self._server.returncode)};"
                    f" see its last lines.{self._last_log_lines()}"
                )
            if time.monotonic() > deadline:
                raise CloudUnavailable(
                    f"the local cloud's server must answer within {self._start_limit_s:g} s, got "
                    "no answer; free the machine or raise start_limit_s."
                    f"{self._last_log_lines()}"
                )
            time.sleep(0.05)

    def _answers(self, *, within_s: float) -> bool:
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(self.endpoint + _HEALTH_PATH, timeout=within_s) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _last_log_lines(self) -> str:
        try:
            lines = self.log_file.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        except FileNotFoundError:
            return ""
        return "".join(f"\n  | {line}" for line in lines)


def _listen(port: int) -> socket.socket:
    """Bind the port, 0 for any free one, so that it is the server's from now on."""
    listener = socket.socket()
    try:
        # As servers do: a port that only waits for its last connections to fade is free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(port) from error
        raise CloudUnavailable(
            f"the port must be one that you may listen on, got {port} ({error.strerror}); "
            "name one above 1023, or name none to get a free one"
        ) from error
    return listener


def _ending(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"end by {signal.Signals(-code).name}"


def _own_folder(folder: Path) -> Path:
    """Make a folder for a cloud's data, or find one that is.

    :raises CloudUnavailable: it has something else in it.
    :raises OSError: it cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / _OWN).exists():
        strange = next(folder.iterdir(), None)
        if strange is not None:
            raise CloudUnavailable(
                "the state's folder must be a new one, an empty one, or a local cloud's, got "
                f"{folder}, which has {strange.name}; name another"
            )
        (folder / _OWN).touch()
    return folder
