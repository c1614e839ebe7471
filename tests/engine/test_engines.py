"""Images through a real container engine: podman, and an image built from scratch."""

import asyncio
import contextlib
import io
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

from transform_engine.data_log import MemoryLog
from transform_engine.engines import BINDS_LABEL, Engine, find_image
from transform_engine.errors import InstanceFailed
from transform_engine.job import TransformJob
from transform_engine.ports import SERVICE_PORT, claim_service_port, free_port
from transform_engine.servers import ModelServers
from transform_engine.spec import Container, JobSpec
from transform_engine.storage import FolderStorage, write_object

_Request = Callable[..., dict[str, Any]]
_Job = Callable[..., JobSpec]

_SERVER = Path(__file__).parent / "image" / "server.c"
_BINDS, _PLAIN, _EMPTY = "tiny-binds", "tiny-plain", "tiny-empty"
# What it takes where neither cgroups nor limits can be changed, as in many sandboxes.
_GLOBAL = ("--runtime", "runc", "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs")
_RUN = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")


def _impossible(reason: str) -> NoReturn:
    """Skip what this machine cannot do; CI's must."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def _do(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)
    if done.returncode:
        _impossible(f"{' '.join(command)}: {done.stderr[-2000:]}")
    return done.stdout


@dataclass(frozen=True, kw_only=True)
class _Podman:
    """An engine with storage of its own; `program` is what its images run."""

    command: tuple[str, ...]
    program: str

    def engine(self, network: str) -> tuple[str, ...]:
        return (*self.command, "run", "--network", network, *_RUN)

    def processes(self) -> dict[int, list[str]]:
        """Return the words of each process that has to do with this engine's containers."""
        home = str(Path(self.program).parent).encode()
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    command = (entry / "cmdline").read_bytes()
                    environment = (entry / "environ").read_bytes()
                except OSError:
                    continue  # It has just ended.
                if home in command or home in environment:
                    found[int(entry.name)] = command.decode(errors="replace").split("\0")
        return found

    def containers(self) -> list[str]:
        """Return what containers there are, running or not."""
        return _do(*self.command, "ps", "--all", "--quiet").split()

    def left(self) -> list[Any]:
        """Return what is left of containers: themselves, and processes."""
        return [*self.containers(), *self.processes().values()]


@pytest.fixture(scope="module")
def podman() -> Iterator[_Podman]:
    for program, package in (("podman", "podman"), ("runc", "runc"), ("gcc", "gcc")):
        if shutil.which(program) is None:
            _impossible(f"needs {program}; on Debian: apt install {package}")
    # Podman takes no runroot that is longer than 50 characters, as pytest's folders may be.
    with tempfile.TemporaryDirectory(prefix="podman-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        folders = [f"--{kind}={home / kind}" for kind in ("root", "runroot", "tmpdir")]
        podman = _Podman(command=("podman", *folders, *_GLOBAL), program=str(home / "serve"))
        _do("gcc", "-static", "-O1", "-Wall", "-Werror", "-o", podman.program, str(_SERVER))
        (home / "Dockerfile").write_text(
            f'FROM scratch\nENV HOME_OF_TEST={home}\nCOPY serve /serve\nENTRYPOINT ["/serve"]\n'
        )
        (home / "Empty").write_text("FROM scratch\nCOPY Empty /\n")
        build = (*podman.command, "build", "--quiet", "--tag")
        _do(*build, _PLAIN, ".", cwd=home)
        _do(*build, _BINDS, "--label", f"{BINDS_LABEL}=true", ".", cwd=home)
        _do(*build, _EMPTY, "--file", "Empty", ".", cwd=home)
        yield podman


@pytest.fixture(scope="module", params=["host", "bridge"])
def network(request: pytest.FixtureRequest, podman: _Podman) -> str:
    """A network that containers can have here."""
    kind: str = request.param
    published = () if kind == "host" else ("--publish", "127.0.0.1::8080")
    probe = (*podman.engine(kind), "--rm", *published, _PLAIN, "try")
    done = subprocess.run(probe, capture_output=True, text=True, timeout=60)
    if done.returncode:
        pytest.skip(f"podman cannot use the network {kind} here: {done.stderr[-500:]}")
    return kind


@pytest.fixture
def service_port() -> None:
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", SERVICE_PORT)) == 0:
            pytest.skip(f"port {SERVICE_PORT} is in use on this machine")


def _write(bucket: FolderStorage, key: str, content: bytes) -> None:
    asyncio.run(write_object(bucket, "bkt", key, content))


def _read(bucket: FolderStorage, key: str) -> bytes:
    async def read() -> bytes:
        return b"".join([piece async for piece in bucket.chunks("bkt", key)])

    return asyncio.run(read())


def _until(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "must come true in time"
        time.sleep(0.05)


def _archive(mark: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        member = tarfile.TarInfo("mark")
        member.size = len(mark)
        tar.addfile(member, io.BytesIO(mark))
    return packed.getvalue()


@pytest.mark.parametrize("image", [_BINDS, _PLAIN])
def test_a_job_runs_an_image_as_the_service_does(
    image: str,
    network: str,
    podman: _Podman,
    service_port: None,
    request_for: _Request,
    job_for: _Job,
    bucket: FolderStorage,
    tmp_path: Path,
) -> None:
    _write(bucket, "in/a", b"1\n2")
    _write(bucket, "models/m.tar.gz", _archive(b",model"))
    container = Container(
        image=image,
        model_data_url="s3://bkt/models/m.tar.gz",
        environment={"MARK": ",mo del", "NOTE": "two\nlines=1"},
    )
    request = request_for(
        Environment={"MARK": ",job"}, MaxPayloadInMB=2, BatchStrategy="MultiRecord"
    )
    spec = job_for(
        request,
        [container],
        container_engine=podman.engine(network),
        log_dir=str(tmp_path / "logs"),
    )
    job = TransformJob(spec)
    job.start()
    result = job.wait(60)
    assert result.status == "Completed", result
    assert _read(bucket, "out/a.out") == b"1,model,job\n2,model,job\n"
    (stream,) = (tmp_path / "logs" / "job").glob("i-*.log")
    said = stream.read_text().splitlines()
    assert said[:2] == ["argument /serve", "argument serve"]
    assert said[-1] == "terminated", "gently, and only when the job ended"
    for line in (
        "SAGEMAKER_BATCH=true",
        "SAGEMAKER_MAX_PAYLOAD_IN_MB=2",
        "SAGEMAKER_BATCH_STRATEGY=MULTI_RECORD",
        "MARK=,job",
        "NOTE=two",
        "lines=1",
    ):
        assert line in said
    told = any(line.startswith("SAGEMAKER_BIND_TO_PORT=") for line in said)
    assert told == (network == "host" and image == _BINDS)
    assert ("listens on 8080" in said) != told
    assert podman.left() == []
    assert [*Path(spec.work_dir).iterdir()] == []


@pytest.fixture
def running(podman: _Podman) -> Iterator[str]:
    """The URL of a server that runs already, and marks its lines with `,0`."""
    port = free_port()
    told = {"BIND_HOST": "127.0.0.1", "SAGEMAKER_BIND_TO_PORT": str(port), "MARK": ",0"}
    with subprocess.Popen([podman.program, "serve"], env=told, stdout=subprocess.DEVNULL) as server:
        yield f"http://127.0.0.1:{port}"
        server.kill()


@pytest.mark.parametrize("size", [2, 15])
def test_a_pipeline_may_mix_images_processes_and_servers_that_run(
    size: int,
    network: str,
    podman: _Podman,
    running: str,
    request_for: _Request,
    job_for: _Job,
    bucket: FolderStorage,
    tmp_path: Path,
) -> None:
    _write(bucket, "in/a", b"1\n2")
    marks = [f",{number}" for number in range(size)]
    containers = [
        Container(command=(podman.program, "serve"), environment={"MARK": mark}) for mark in marks
    ]
    containers[0] = Container(url=running)
    for number in {1, size - 1}:
        containers[number] = Container(image=_BINDS, environment={"MARK": marks[number]})
    job = TransformJob(
        job_for(
            request_for(),
            containers,
            container_engine=podman.engine(network),
            ping_timeout_s=30,
            log_dir=str(tmp_path / "logs"),
        )
    )
    job.start()
    result = job.wait(90)
    assert result.status == "Completed", result
    marked = "".join(marks).encode()
    assert _read(bucket, "out/a.out") == b"1%s\n2%s\n" % (marked, marked)
    streams = {path.stem: path.read_text() for path in (tmp_path / "logs").glob("*/*/c*.log")}
    assert set(streams) == {f"container-{number}" for number in range(2, size + 1)}
    ports = [said.partition("listens on ")[2].split()[0] for said in streams.values()]
    assert len(set(ports)) == size - 1
    for port, said in zip(ports, streams.values(), strict=True):
        assert f"SAGEMAKER_BIND_TO_PORT={port}\n" in said
    assert podman.containers() == []


def _pids(podman: _Podman, of: str) -> list[int]:
    signs: dict[str, Callable[[list[str]], bool]] = {
        "keeper": lambda words: any(word.endswith("keeper.py") for word in words),
        "client": lambda words: words[0] == "podman" and "run" in words,
        "server": lambda words: words[0] == "/serve",
    }
    found = [pid for pid, words in podman.processes().items() if signs[of](words)]
    assert found
    return found


def _instance(spec: JobSpec) -> int:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue  # It has just ended.
            if spec.work_dir.encode() in command and b"transform_engine.instance" in command:
                return int(entry.name)
    raise AssertionError("an instance must run")


@pytest.mark.parametrize("killed", [None, "instance", "keeper", "client", "server"])
def test_nothing_of_a_container_is_left_however_its_job_ends(
    killed: str | None,
    podman: _Podman,
    request_for: _Request,
    job_for: _Job,
    bucket: FolderStorage,
) -> None:
    _write(bucket, "in/a", b"1")
    container = Container(image=_BINDS, environment={"HANG": "1", "IGNORE_TERM": "1"})
    spec = job_for(
        request_for(),
        [container],
        container_engine=podman.engine("host"),
        server_stop_timeout_s=0.5,
        ping_timeout_s=30,
    )
    events: list[Any] = []
    job = TransformJob(spec, on_event=lambda event: events.append(event["event"]))
    job.start()
    _until(lambda: "started" in events)
    if killed is not None:
        for pid in [_instance(spec)] if killed == "instance" else _pids(podman, killed):
            with contextlib.suppress(ProcessLookupError):  # A container ends with its first one.
                os.kill(pid, signal.SIGKILL)
    if killed in (None, "keeper"):
        job.stop()
    result = job.wait(60)
    assert result.status == ("Stopped" if killed in (None, "keeper") else "Failed"), result
    _until(lambda: podman.left() == [])
    assert [*Path(spec.work_dir).iterdir()] == []


def _start(job: JobSpec, bucket: FolderStorage, base: Path) -> MemoryLog:
    log = MemoryLog()

    async def scenario() -> None:
        servers = ModelServers(job, log)
        try:
            await servers.start(bucket, base)
        finally:
            await servers.stop()

    asyncio.run(scenario())
    return log


def test_fails_when_an_image_has_no_program_to_serve_with(
    network: str,
    podman: _Podman,
    request_for: _Request,
    job_for: _Job,
    bucket: FolderStorage,
    tmp_path: Path,
) -> None:
    job = job_for(request_for(), [Container(image=_EMPTY)], container_engine=podman.engine("host"))
    with pytest.raises(InstanceFailed, match="must be a program, got exit code 127 from 'serve'"):
        _start(job, bucket, tmp_path)


def test_fails_when_an_engine_cannot_run_an_image(
    podman: _Podman, request_for: _Request, job_for: _Job, bucket: FolderStorage, tmp_path: Path
) -> None:
    engine = (*podman.command, "run", "--network", "none", "--memory", "nonsense")
    job = job_for(request_for(), [Container(image=_BINDS)], container_engine=engine)
    with pytest.raises(InstanceFailed, match=f"exit code 125 from {_BINDS}; its last log lines:\n"):
        _start(job, bucket, tmp_path)
    assert podman.left() == []


def test_fails_when_an_image_of_a_pipeline_would_take_the_port_of_another(
    podman: _Podman, request_for: _Request, job_for: _Job, bucket: FolderStorage, tmp_path: Path
) -> None:
    pipeline = [Container(image=_BINDS), Container(image=_PLAIN, name="second")]
    job = job_for(request_for(), pipeline, container_engine=podman.engine("host"))
    with pytest.raises(InstanceFailed, match=rf"server second must listen .*{BINDS_LABEL}=true"):
        _start(job, bucket, tmp_path)
    assert podman.left() == []


@pytest.mark.parametrize("network", ["bridge"], indirect=True)
def test_an_image_with_a_network_of_its_own_may_lack_the_label_of_a_pipeline(
    network: str,
    podman: _Podman,
    request_for: _Request,
    job_for: _Job,
    bucket: FolderStorage,
    tmp_path: Path,
) -> None:
    job = job_for(
        request_for(),
        [Container(image=_PLAIN), Container(image=_PLAIN, name="second")],
        container_engine=podman.engine(network),
    )
    log = _start(job, bucket, tmp_path)
    listening = {name for name, line in log.container_lines if line == "listens on 8080"}
    assert listening == {"container-1", "second"}
    assert f"second's image lacks the label {BINDS_LABEL}=true; the s" in log.agent_lines[1]
    assert podman.left() == []


def test_instances_whose_image_knows_only_one_port_wait_for_each_other(
    podman: _Podman,
    service_port: None,
    request_for: _Request,
    job_for: _Job,
    bucket: FolderStorage,
) -> None:
    for key in ("in/a", "in/b"):
        _write(bucket, key, b"1")
    spec = job_for(
        request_for(TransformResources={"InstanceCount": 2}),
        [Container(image=_PLAIN, environment={"MARK": ",m"})],
        container_engine=podman.engine("host"),
        ping_timeout_s=30,
        max_instances=2,
    )
    job = TransformJob(spec)
    job.start()
    result = job.wait(60)
    assert (result.status, result.done) == ("Completed", 2), result
    assert _read(bucket, "out/b.out") == b"1,m\n"
    assert podman.left() == []


def test_fails_when_the_only_port_of_an_image_stays_another_ones(
    podman: _Podman,
    service_port: None,
    request_for: _Request,
    job_for: _Job,
    bucket: FolderStorage,
    tmp_path: Path,
) -> None:
    job = job_for(
        request_for(),
        [Container(image=_PLAIN)],
        container_engine=podman.engine("host"),
        ping_timeout_s=0.3,
    )
    claim = claim_service_port()
    assert claim is not None
    with claim, pytest.raises(InstanceFailed, match="port 8080 must become free"):
        _start(job, bucket, tmp_path)
    with (
        socket.create_server(("127.0.0.1", SERVICE_PORT)),
        pytest.raises(InstanceFailed, match="port 8080 must be free"),
    ):
        _start(job, bucket, tmp_path)


@pytest.mark.parametrize("image", ["nobody/has:this", _PLAIN])
def test_fails_when_no_engine_has_the_image(image: str, podman: _Podman, tmp_path: Path) -> None:
    elsewhere = replace(podman, command=("podman", f"--root={tmp_path}", *podman.command[2:]))
    with pytest.raises(InstanceFailed, match=f"have the image {image}, got podman: .*not known"):
        find_image(elsewhere.engine("host"), image)


def _program(folder: Path, name: str, script: str) -> None:
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_the_first_engine_that_has_an_image_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}")
    with pytest.raises(InstanceFailed, match="got no docker or podman; install one"):
        find_image((), "churn")
    _program(tmp_path, "docker", "echo Cannot connect to the daemon >&2; exit 1")
    with pytest.raises(InstanceFailed, match=r"got docker: Cannot connect to the daemon; start"):
        find_image((), "churn")
    _program(tmp_path, "podman", "echo nonsense")
    with pytest.raises(InstanceFailed, match=r"daemon; podman: an answer that is no image"):
        find_image((), "churn")
    _program(
        tmp_path, "podman", f"""echo '[{{"Config": {{"Labels": {{"{BINDS_LABEL}": "true"}}}}}}]'"""
    )
    image = find_image((), "churn")
    assert image.engine == Engine(command=("podman",))
    assert image.binds
    _program(tmp_path, "docker", """echo '[{"Config": {"Labels": null}}]'""")
    image = find_image((), "churn")
    assert image.engine == Engine(command=("docker",))
    assert not image.binds


@pytest.mark.parametrize(
    ("words", "shares"),
    [
        ("docker", False),
        ("podman --runtime runc run --network host", True),
        ("podman --log-level error run --cpus 1 --net=host", True),
        ("podman run --network=bridge", False),
        ("podman --network host", False),
    ],
)
def test_an_engine_shares_the_network_only_if_its_run_says_so(words: str, shares: bool) -> None:
    assert Engine.of(words.split()).shares_network == shares
