"""How commands end, as processes: exit codes, one line for what went wrong, and no traceback.

docs/commands.md has the codes.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from batch_transform_cli.outside import explained
from tests.documents import PROJECT

LIMIT_S = 60
PROGRAM = Path(sys.executable).with_name("batch-transform")
ESTIMATE = ("cost", "estimate", "--bytes", "1GB", "--rate", "1", "--instance-type", "ml.m5.large")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment in which nothing of AWS is set."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("AWS_")}
    kept.pop("COLUMNS", None)
    nothing = str(tmp_path / "nothing")
    return {
        **kept,
        "HOME": str(tmp_path),
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": nothing,
        "AWS_SHARED_CREDENTIALS_FILE": nothing,
    }


@pytest.fixture
def command(tmp_path: Path, environment: dict[str, str]) -> Callable[..., Any]:
    """Runs the command as a process, in an empty folder."""

    def run(*arguments: str | bytes, **more: str) -> Any:
        return subprocess.run(
            [PROGRAM, *arguments],
            cwd=tmp_path,
            env=environment | more,
            capture_output=True,
            timeout=LIMIT_S,
        )

    return run


def one_line(ended: Any) -> str:
    """Return the one line on stderr."""
    (line,) = ended.stderr.decode().splitlines()
    return str(line)


# The classes of exit codes


def test_what_is_done_is_0(command: Callable[..., Any]) -> None:
    ended = command(*ESTIMATE, "--json")

    assert (ended.returncode, ended.stderr) == (0, b"")
    assert json.loads(ended.stdout)["job_seconds"] == 1030


@pytest.mark.parametrize(
    ("arguments", "variables", "said"),
    [
        pytest.param(
            ["status", "--endpoint", "http://127.0.0.1:9"],
            {},
            "a cloud must answer at http://127.0.0.1:9/, got no connection; is it running?",
            id="no cloud",
        ),
        pytest.param(
            ["status"], {}, "a region must be named, got none; set AWS_REGION", id="region"
        ),
        pytest.param(
            ["redrive"],
            {"AWS_REGION": "eu-west-1"},
            "AWS credentials must be there, got none; log in",
            id="credentials",
        ),
        pytest.param(
            ["cost"],
            {"AWS_REGION": "e u"},
            "the region must be one of AWS, got .*; correct AWS_REGION",
            id="no region of AWS",
        ),
        pytest.param(
            ["lookup", "P1"],
            {"AWS_PROFILE": "nobody"},
            "the profile must be in your AWS configuration, got none: .*nobody",
            id="profile",
        ),
        pytest.param(
            ["backfill"],
            {"AWS_CONFIG_FILE": __file__},
            f"the AWS configuration must be readable, got: .*{Path(__file__).name}",
            id="configuration",
        ),
        pytest.param(
            ["logs", "r1"],
            {"AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL_SSM": "ssm"},
            "the settings of AWS must be usable, got: Invalid endpoint: ssm; correct AWS_ENDPOINT",
            id="endpoint of a service",
        ),
        pytest.param([*ESTIMATE, "--prices", "."], {}, "got Is a directory; correct", id="folder"),
        pytest.param(["up"], {}, "cdk.json must stand in", id="no app"),
    ],
)
def test_what_cannot_be_done_is_1(
    arguments: Sequence[str], variables: dict[str, str], said: str, command: Callable[..., Any]
) -> None:
    ended = command(*arguments, **variables)

    assert (ended.returncode, ended.stdout) == (1, b"")
    assert re.search(said, one_line(ended)), one_line(ended)


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe\x00", b"a: [", b"a: &x [*x]", b"a: " + b"[" * 2000 + b"]" * 2000],
    ids=["bytes", "open", "of itself", "deep"],
)
def test_a_file_that_nobody_can_read_is_1(
    content: bytes, tmp_path: Path, command: Callable[..., Any]
) -> None:
    (tmp_path / "pipelines.yaml").write_bytes(content)

    ended = command("validate")

    assert (ended.returncode, len(one_line(ended)) > 0) == (1, True)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param([], id="nothing"),
        pytest.param(["nope"], id="no such command"),
        pytest.param(["status", "--nope"], id="no such option"),
        pytest.param(["status", "--newest", "none"], id="no number"),
        pytest.param(["status", "--newest", "0"], id="number out of range"),
        pytest.param(["lookup"], id="argument left out"),
        pytest.param(["completion", "tcsh"], id="no such choice"),
        pytest.param(["status", "--endpoint", "4566"], id="no URL"),
        pytest.param(["status", "--endpoint", "ftp://127.0.0.1"], id="no URL of the web"),
        pytest.param(["cost", "--month", "May"], id="no month"),
        pytest.param(["run", "--request", "nowhere.json"], id="no request"),
        pytest.param(["up", "--image", "churn:7"], id="no folder of an image"),
    ],
)
def test_what_was_asked_for_wrongly_is_2(
    arguments: Sequence[str], command: Callable[..., Any]
) -> None:
    ended = command(*arguments)

    assert (ended.returncode, ended.stdout) == (2, b"")
    assert b"Traceback" not in ended.stderr
    assert ended.stderr


# Endpoints that answer, and not as AWS does


@pytest.fixture
def answering(request: pytest.FixtureRequest) -> Iterator[str]:
    """Something that answers every connection with the bytes of the parameter; its address."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(request.param)

        threading.Thread(target=answer, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


def http(status: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.mark.parametrize(
    "answering",
    [
        pytest.param(http("200 OK", b"<html>Welcome</html>"), id="a page"),
        pytest.param(http("200 OK", b"[]"), id="a list"),
        pytest.param(http("500 Oh", b"<html>Sorry</html>"), id="an error"),
        pytest.param(http("302 Found", b""), id="a redirection"),
        pytest.param(b"\x00\x15\x03garbage", id="no HTTP"),
        pytest.param(b"", id="nothing"),
        pytest.param(
            http(
                "400 Bad", b'{"__type": "ExpiredTokenException", "message": "\\u001b[31mtoo old"}'
            ),
            id="an expired token",
        ),
    ],
    indirect=True,
)
def test_an_answer_that_is_none_of_aws_is_one_line(
    answering: str, command: Callable[..., Any]
) -> None:
    ended = command("status", "--endpoint", answering)

    assert ended.returncode == 1
    assert re.fullmatch("batch-transform: .* must .*, got.*", one_line(ended)), one_line(ended)
    assert b"\x1b" not in ended.stderr  # what steers a terminal


# Signals and pipes


@pytest.fixture
def hanging() -> Iterator[str]:
    """A cloud that takes connections and says nothing; its address."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGINT, 130, "batch-transform: stopped"),
        (signal.SIGTERM, 143, "batch-transform: ended by SIGTERM"),
        (signal.SIGHUP, 129, "batch-transform: ended by SIGHUP"),
    ],
)
def test_a_signal_ends_a_command_that_waits_with_one_line(
    number: int, code: int, said: str, hanging: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    with subprocess.Popen(
        [PROGRAM, "status", "--endpoint", hanging],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    ) as waiting:
        port = f":{int(hanging.rpartition(':')[2]):04X} "
        until(lambda: port in _connections(), waiting)
        waiting.send_signal(number)
        _, said_by_it = waiting.communicate(timeout=LIMIT_S)

    assert (waiting.returncode, said_by_it) == (code, f"{said}\n")


def _connections() -> str:
    """Return the open connections of this machine: remote addresses in hexadecimal."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return "".join(f"{line.split()[2]} " for line in lines)


def until(holds: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not holds():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_ctrl_c_while_it_loads_is_130_and_one_line(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    (tmp_path / "typer.py").write_text("import signal; signal.raise_signal(signal.SIGINT)")
    program = (
        "import sys; from batch_transform_cli.entry import app; sys.path.insert(0, '.'); app()"
    )

    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True
    )

    assert (ended.returncode, one_line(ended)) == (130, "batch-transform: stopped")


def test_what_is_not_installed_is_named(environment: dict[str, str]) -> None:
    program = (
        "import sys; sys.modules['typer'] = None\nfrom batch_transform_cli.entry import app; app()"
    )

    ended = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True)

    assert ended.returncode == 1
    assert one_line(ended).endswith("got no module typer; pip install 'batch-transform[cli]'")


@pytest.mark.parametrize("arguments", [["schema"], [*ESTIMATE], [*ESTIMATE, "--json"], ["--help"]])
def test_a_reader_who_has_enough_ends_it_quietly(
    arguments: Sequence[str], tmp_path: Path, environment: dict[str, str]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)

    ended = subprocess.run(
        [PROGRAM, *arguments], cwd=tmp_path, env=environment, stdout=writer, stderr=subprocess.PIPE
    )
    os.close(writer)

    assert (ended.returncode, ended.stderr) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is full")
def test_a_full_disk_is_1_and_one_line(tmp_path: Path, environment: dict[str, str]) -> None:
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [PROGRAM, "schema"], cwd=tmp_path, env=environment, stdout=full, stderr=subprocess.PIPE
        )

    assert ended.returncode == 1
    assert "No space left on device" in one_line(ended)


# Terminals


def test_a_terminal_without_a_character_gets_its_number(command: Callable[..., Any]) -> None:
    ended = command("cost", "--month", "Mäi", PYTHONIOENCODING="ascii")
    assert one_line(ended).startswith(
        "batch-transform: --month must be one such as 2026-10, got 'M"
    )

    ended = command(*ESTIMATE[:-1], "ml.é", PYTHONIOENCODING="ascii")
    assert (ended.returncode, b"ml.\\xe9" in ended.stdout) == (0, True)


def test_a_name_that_is_no_text_is_told(command: Callable[..., Any]) -> None:
    ended = command("validate", b"\xff.yaml")

    assert ended.returncode == 1
    assert one_line(ended).startswith("\\udcff.yaml:1: must be a file that can be read")


@pytest.mark.parametrize("columns", ["1", "10", "30"])
def test_a_narrow_terminal_is_no_reason_to_fail(columns: str, command: Callable[..., Any]) -> None:
    ended = command(*ESTIMATE, COLUMNS=columns)

    assert (ended.returncode, ended.stderr) == (0, b"")


def test_a_mistake_of_ours_keeps_its_traceback() -> None:
    assert explained(KeyError("run_id")) is None
    said = explained(PermissionError(13, "Permission denied", "prices.yaml"))
    assert said is not None
    assert "got Permission denied for 'prices.yaml'; see that" in said


# The page


def test_the_page_has_every_code_that_this_file_drives() -> None:
    page = (PROJECT / "docs" / "commands.md").read_text()
    table = page.partition("## Exit codes")[2].partition("## ")[0]

    codes = "".join(re.findall(r"^\|([ \d,]+)\|", table, re.MULTILINE))
    assert sorted(map(int, re.findall(r"\d+", codes))) == [0, 1, 2, 129, 130, 141, 143]
