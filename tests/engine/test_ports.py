import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import transform_engine
from transform_engine.ports import SERVICE_PORT, claim_service_port, free_ports, listens


def test_every_block_of_ports_is_another_and_low() -> None:
    blocks = [free_ports() for _ in range(5)]
    assert len({port for block in blocks for port in block}) == sum(map(len, blocks))
    assert all(18000 <= port < 32000 for block in blocks for port in block)


def test_a_block_with_a_port_that_is_in_use_is_left_out() -> None:
    first = free_ports()
    following = range(first.stop, first.stop + len(first))
    with socket.create_server(("127.0.0.1", following[3])):
        assert not set(free_ports()) & set(following)


def test_the_service_port_is_one_claimants_at_a_time_and_its_servers() -> None:
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", SERVICE_PORT)) == 0:
            pytest.skip(f"port {SERVICE_PORT} is in use on this machine")
    claim = claim_service_port()
    assert claim is not None
    with claim, socket.create_server(("127.0.0.1", SERVICE_PORT)):
        assert claim_service_port() is None
    again = claim_service_port()
    assert again is not None
    again.close()


@pytest.mark.skipif(sys.platform != "linux", reason="told by /proc")
def test_who_listens_is_told_from_who_does_not() -> None:
    grandchild = (
        "import socket, sys\n"
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "print(server.getsockname()[1], flush=True)\n"
        "sys.stdin.read()\n"
    )
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}])"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", child], stdin=pipe, stdout=pipe) as listening:
        assert listening.stdout is not None
        port = int(listening.stdout.readline())
        with subprocess.Popen(["sleep", "60"]) as other:
            assert listens(listening.pid, port)
            assert listens(os.getpid(), port)
            assert not listens(other.pid, port)
            assert not listens(listening.pid, port + 1)
            other.kill()


_ASK = """
import itertools, sys
from transform_engine import ports
ports._TURNS = itertools.count(7)
print(ports.free_port(), ports.free_port(), flush=True)
sys.stdin.read()
"""


def test_processes_that_look_at_the_same_time_get_ports_of_their_own() -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(transform_engine.__file__).parents[1])}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _ASK],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        for _ in range(3)
    ]
    given: list[str] = []
    for process in processes:
        assert process.stdout is not None
        given += process.stdout.readline().split()
    for process in processes:
        process.communicate(timeout=10)
    # Nothing listens on any of them yet.
    assert len(given) == len({*given}) == 6
