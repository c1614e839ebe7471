"""The command as a whole, with real instances and model servers."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from batch_transform_cli.job.run import stop_signals
from local_cloud import LocalCloud

LIMIT_S = 60
CSV = ("--content-type", "text/csv", "--split-type", "Line", "--assemble-with", "Line")

Command = Callable[..., Any]
Make = Callable[..., Path]


def test_a_job_that_works_writes_its_outputs_says_so_and_leaves_nothing_else(
    batch_transform: Command,
    folder: Make,
    image: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home = folder(a_csv="1,2\n3,4\n", b_csv="5,6\n")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.chdir(tmp_path)

    ended = batch_transform("run", "--image", image(), "--input", home, "--output", "out", *CSV)

    assert ended.code == 0, ended.err
    assert (tmp_path / "out" / "a.csv.out").read_bytes() == b"3\n7\n"
    assert (tmp_path / "out" / "b.csv.out").read_bytes() == b"11\n"
    assert re.search(r"^Completed  2 of 2 objects done, 3 records, 12 B in ", ended.out)
    assert "outputs in out/" in ended.out
    assert ended.err == ""
    assert [*(tmp_path / "tmp").iterdir()] == []


def test_objects_that_fail_stand_in_a_table_and_the_others_have_their_outputs(
    batch_transform: Command,
    folder: Make,
    image: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    bad = {f"bad{number:02}_csv": "x\n" for number in range(23)}
    home = folder(good_csv="1\n", **bad)

    ended = batch_transform(
        "run", "--image", image(), "--input", home, "--output", tmp_path / "out", *CSV
    )

    assert ended.code == 1
    assert ended.out.startswith("Failed  1 of 24 objects done, ")
    assert "ClientError: See job logs for more information" in ended.out
    assert "bad00.csv   record 0: ClientError: 400 Message: could not convert" in ended.out
    assert "bad19.csv" in ended.out
    assert "bad20.csv" not in ended.out
    assert "and 3 more" in ended.out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good.csv.out"]


def test_programs_get_one_document_and_all_that_is_in_it_is_counted(
    batch_transform: Command, folder: Make, image: Make, tmp_path: Path
) -> None:
    home = folder(good_csv="1\n2\n", bad_csv="x\n")

    ended = batch_transform(
        *("run", "--json", "--image", image(), "--input", home, "--output", tmp_path / "out"),
        *CSV,
    )

    assert (ended.code, ended.err) == (1, "")
    told = ended.document
    assert told["status"] == "Failed"
    assert told["failure_reason"] == "ClientError: See job logs for more information"
    assert told["objects"] == {"total": 2, "done": 1, "failed": 1}
    assert (told["records"], told["records_estimated"], told["bytes"]) == (2, False, 6)
    (failure,) = told["failures"]
    assert failure["name"] == "bad.csv"
    assert "could not convert" in failure["reason"]
    assert told["failures_left_out"] == 0
    assert told["settings"]["MaxPayloadInMB"] == 6
    assert 0 < told["seconds"]["transforming"] <= told["seconds"]["total"] < LIMIT_S
    assert told["per_second"]["bytes"] > 0
    assert told["output"] == f"{tmp_path}/out/"


def test_a_model_server_that_never_starts_is_told_in_its_own_words(
    batch_transform: Command, folder: Make, image: Make, tmp_path: Path
) -> None:
    home = image()
    (home / "serve").write_text("#!/bin/sh\necho no module named model >&2\nexit 3\n")

    ended = batch_transform(
        "run", "--image", home, "--input", folder(a_csv="1\n"), "--output", tmp_path / "out"
    )

    assert ended.code == 1
    assert "AlgorithmError: Model container failed to respond to ping" in " ".join(
        ended.out.split()
    )
    assert "no module named model" in ended.out
    assert "--log-dir DIR keeps the logs" in ended.out


def test_a_pipeline_hands_the_reply_of_one_container_to_the_next(
    batch_transform: Command, folder: Make, image: Make, tmp_path: Path
) -> None:
    ended = batch_transform(
        *("run", "--image", image(name="first"), "--image", image("csv_count", name="second")),
        *("--input", folder(a_csv="1,2\n3,4\n"), "--output", tmp_path / "out", *CSV),
    )
    assert ended.code == 0, ended.out
    assert (tmp_path / "out" / "a.csv.out").read_bytes() == b"1\n1\n"


def test_logs_are_kept_in_the_folder_that_is_named(
    batch_transform: Command, folder: Make, image: Make, tmp_path: Path
) -> None:
    home = image()
    serve = home / "serve"
    serve.write_text(serve.read_text().replace("exec", "echo model is loading\nexec"))
    logs = tmp_path / "new" / "logs"

    ended = batch_transform(
        *("run", "--image", home, "--input", folder(a_csv="x\n"), "--log-dir", logs),
        *("--output", tmp_path / "out", *CSV),
    )

    assert f"logs in {logs}" in ended.out
    kept = "".join(path.read_text() for path in logs.rglob("*") if path.is_file())
    assert "model is loading" in kept
    assert "a.csv: ClientError: 400" in kept


def test_a_request_file_runs_as_it_would_on_aws_and_flags_win(
    batch_transform: Command, folder: Make, image: Make, emulator: LocalCloud, tmp_path: Path
) -> None:
    s3 = emulator.client("s3")
    s3.create_bucket(Bucket="request")
    s3.put_object(Bucket="request", Key="in/a.csv", Body=b"7,1,2\n8,3,4\n")
    s3.put_object(Bucket="request", Key="in/b.csv", Body=b"9,5,6\n")
    source = {"S3DataType": "S3Prefix", "S3Uri": "s3://request/in/"}
    request = {
        "TransformJobName": "nightly",
        "ModelName": "churn",
        "TransformInput": {
            "DataSource": {"S3DataSource": source},
            "ContentType": "text/csv",
            "SplitType": "Line",
        },
        "TransformOutput": {
            "S3OutputPath": "s3://request/out/",
            "Accept": "text/csv",
            "AssembleWith": "Line",
        },
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 2},
        "DataProcessing": {"InputFilter": "$[1:]", "OutputFilter": "$[0,-1]"},
    }
    path = tmp_path / "job.json"
    path.write_text(json.dumps(request))

    ended = batch_transform(
        *("run", "--request", path, "--join-source", "Input", "--image", image(), "--json"),
        *("--endpoint", emulator.endpoint),
    )

    assert ended.code == 0, ended.err
    assert ended.document["job_name"] == "nightly"
    assert ended.document["output"] == "s3://request/out/"
    found = s3.get_object(Bucket="request", Key="out/a.csv.out")
    assert found["Body"].read() == b"7,3\n8,7\n"


def test_the_endpoint_may_stand_in_the_environment(
    batch_transform: Command,
    emulator: LocalCloud,
    folder: Make,
    image: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", emulator.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "")  # so that what the command sets is taken back
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    emulator.client("s3").create_bucket(Bucket="endpoint")
    home = folder(a_csv="1\n")

    ended = batch_transform(
        "run", "--image", image(), "--input", home, "--output", "s3://endpoint/out", *CSV
    )

    assert ended.code == 0, ended.out + ended.err
    listed = emulator.client("s3").list_objects_v2(Bucket="endpoint")["Contents"]
    assert [each["Key"] for each in listed] == ["out/a.csv.out"]


class _Echo(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/ping" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_server_that_runs_already_scores_one_file(
    batch_transform: Command, folder: Make, tmp_path: Path
) -> None:
    home = folder(a_csv="1\n2\n", a_csv_bak="3\n")
    with ThreadingHTTPServer(("127.0.0.1", 0), _Echo) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            ended = batch_transform(
                *("run", "--model-url", f"http://127.0.0.1:{server.server_port}"),
                *("--input", home / "a.csv", "--output", tmp_path / "out"),
            )
        finally:
            server.shutdown()
    assert ended.code == 0, ended.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.csv.out"]
    assert (tmp_path / "out" / "a.csv.out").read_bytes() == b"1\n2\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(
            ["--input", "in", "--output", "in/out"],
            "outputs must not be inputs of the next run",
            id="output in input",
        ),
        pytest.param(
            ["--input", "in", "--output", "out", "--split-type", "line"],
            "TransformInput.SplitType must be one of None, Line",
            id="rule of the API",
        ),
        pytest.param(
            ["--input", "none", "--output", "out"], "the input must have an object", id="no input"
        ),
        pytest.param(["--output", "out"], "--input must say where objects are", id="no flag"),
        pytest.param(
            ["--input", "in", "--output", "out", "--model-url", "http://127.0.0.1:9"],
            "got both",
            id="two servers",
        ),
        pytest.param(
            ["--input", "in", "--output", "serve/out"], "--output must be a folder", id="file above"
        ),
        pytest.param(
            ["--input", "in", "--output", "out", "--log-dir", "serve"],
            "--log-dir must be a folder that can be written",
            id="log file",
        ),
        pytest.param(
            ["--input", "in", "--output", "out", "--container-engine", "'podman"],
            "--container-engine must be a command as in a shell",
            id="quote",
        ),
        pytest.param(
            ["--input", "in", "--output", "out", "--reading", "retry_5xx=maybe"],
            "--reading retry_5xx must be true or false",
            id="reading",
        ),
        pytest.param(
            ["--input", "s3://none/in", "--output", "out", "--endpoint", "9"],
            "the endpoint must be a URL",
            id="endpoint",
        ),
        pytest.param(
            ["--input", "s3://none/in", "--output", "out", "--endpoint", "http://127.0.0.1:9"],
            "S3 must answer at http://127.0.0.1:9, got [Errno 111]",
            id="no S3",
        ),
        pytest.param(
            ["--input", "https://bkt/in", "--output", "out"], "a path or an s3:// URI", id="scheme"
        ),
    ],
)
def test_what_cannot_work_is_refused_in_one_line_before_anything_starts(
    arguments: list[str],
    message: str,
    batch_transform: Command,
    folder: Make,
    image: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    folder(a_csv="1\n")
    home = image()
    (tmp_path / "serve").touch()

    ended = batch_transform("run", "--image", home, *arguments)

    (line,) = ended.err.splitlines()
    assert message in line
    assert line.startswith("batch-transform: ")
    assert (ended.code, ended.out) == (2, "")
    assert not (home / "calls.jsonl").exists()


def test_a_profile_that_is_not_there_is_refused_in_one_line(
    batch_transform: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    ended = batch_transform("run", "--input", "s3://bkt/in/", "--output", "s3://bkt/out/")
    (line,) = ended.err.splitlines()
    assert "The config profile (nobody) could not be found; correct AWS_PROFILE" in line
    assert ended.code == 2


def test_each_broken_rule_has_a_line_of_its_own(
    batch_transform: Command, folder: Make, tmp_path: Path
) -> None:
    ended = batch_transform(
        *("run", "--input", folder(a_csv="1\n"), "--output", tmp_path / "out"),
        *("--split-type", "x", "--invocations-max-retries", "9"),
    )
    assert ended.code == 2
    assert [line.split(" must ")[0] for line in ended.err.splitlines()] == [
        "batch-transform: TransformInput.SplitType",
        "batch-transform: ModelClientConfig.InvocationsMaxRetries",
    ]


def test_a_dry_run_shows_what_would_be_sent_and_starts_nothing(
    batch_transform: Command,
    folder: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)
    folder(a_csv="1\n2\n", b_csv="3\n")

    ended = batch_transform(
        *("run", "--dry-run", "--input", "in", "--output", "out", "--instance-count", "4"), *CSV
    )

    assert (ended.code, ended.err) == (0, "")
    assert "reads    in/: 2 objects, 3 records, 6 B" in ended.out
    assert "sends    2 requests of about 3 B" in ended.out
    assert re.search(r"a\.csv +4 B +2 +1 B +1\n", ended.out)
    assert re.search(r"instance +objects +size +requests", ended.out)
    assert "wasteful   InstanceCount should be at most the number of objects" in ended.out
    assert "--instance-count 2" in ended.out
    assert not (tmp_path / "out").exists()


def test_a_dry_run_of_objects_that_would_fail_says_which_and_exits_with_1(
    batch_transform: Command, folder: Make, tmp_path: Path
) -> None:
    home = folder(a_csv="1,2\n", b_csv="3\n")
    arguments = ("run", "--dry-run", "--input", home, "--output", tmp_path / "out", *CSV)

    for_people = batch_transform(*arguments, "--input-filter", "$[1]")
    for_programs = batch_transform(*arguments, "--input-filter", "$[1]", "--json")

    assert (for_people.code, for_programs.code) == (1, 1)
    assert "Failed to apply InputFilter" in " ".join(for_people.out.split())
    told = for_programs.document
    assert told["objects"] == {"total": 2, "would_fail": 1}
    assert told["failing"][0]["name"] == "b.csv"
    assert told["listed"][0]["requests"] == 1
    assert told["advice"][0]["kind"] == "wrong"
    assert told["settings"] == {
        "MaxConcurrentTransforms": 1,
        "MaxPayloadInMB": 6,
        "BatchStrategy": "MULTI_RECORD",
    }


def test_help_waits_for_no_engine_and_no_client_of_aws() -> None:
    program = (
        "import sys; from batch_transform_cli import main; "
        "print([name for name in ('boto3', 'uvloop', 'httptools', 'ministack', 'aws_cdk') "
        "if name in sys.modules])"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=LIMIT_S
    )
    assert said.stdout == "[]\n"


def test_fails_in_one_line_when_the_engine_is_not_installed() -> None:
    program = (
        "import sys; sys.modules |= dict.fromkeys(('httptools', 'uvloop', 'orjson', 'obstore')); "
        "sys.argv = ['batch-transform', 'run']; from batch_transform_cli.entry import app; app()"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=LIMIT_S
    )
    (line,) = said.stderr.splitlines()
    assert said.returncode == 1
    assert line.startswith("batch-transform: the engine must be installed, got no module ")
    assert line.endswith("; pip install 'batch-transform[local]'")


class Terminal:
    """A command on a pseudo-terminal, whose processes carry a mark."""

    def __init__(self, *arguments: object, columns: int = 80) -> None:
        self.mark = f"run-{uuid.uuid4().hex}"
        self.screen = ""
        self._near, far = pty.openpty()
        path = os.pathsep.join([os.environ["PATH"], f"/{self.mark}"])
        self.process = subprocess.Popen(
            # setsid makes the terminal the one whose Ctrl-C the command gets.
            ["setsid", "--ctty", sys.executable, "-m", "batch_transform_cli", "run"]
            + [str(each) for each in arguments],
            stdin=far,
            stdout=far,
            stderr=far,
            env={**os.environ, "PATH": path, "TERM": "xterm", "COLUMNS": str(columns)},
        )
        os.close(far)

    def press(self, text: str) -> None:
        os.write(self._near, text.encode())

    def see(self, pattern: str) -> None:
        """Read until something stands on the screen."""
        deadline = time.monotonic() + LIMIT_S
        while not re.search(pattern, self.screen):
            assert time.monotonic() < deadline, self.screen
            self._read()

    def end(self) -> int:
        """Read all, and return the exit code."""
        deadline = time.monotonic() + LIMIT_S
        while self._read():
            assert time.monotonic() < deadline, self.screen
        os.close(self._near)
        return self.process.wait(LIMIT_S)

    def _read(self) -> bool:
        if not select.select([self._near], [], [], 0.5)[0]:
            return self.process.poll() is None
        try:
            data = os.read(self._near, 65536)
        except OSError:
            return False  # A terminal whose other side is closed.
        self.screen += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data.decode(errors="replace"))
        return bool(data)

    def left_running(self) -> list[str]:
        found = []
        for folder in Path("/proc").iterdir():
            try:
                marked = (folder / "environ").read_bytes() if folder.name.isdecimal() else b""
                if self.mark.encode() in marked and (folder / "cmdline").read_bytes():
                    found.append((folder / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue  # It ended while we looked, or is not ours.
        return found


def test_a_terminal_shows_a_bar_and_then_how_it_ended(
    folder: Make, image: Make, tmp_path: Path
) -> None:
    home = image(None, script=[{"body": "1", "delay_ms": 600}])
    objects = folder(a_csv="1\n", b_csv="2\n", c_csv="3\n")
    terminal = Terminal("--image", home, "--input", objects, "--output", tmp_path / "out", *CSV)
    terminal.see("starting the model server ━")
    terminal.see(r"transforming ━+.* 33%\s+1 of 3 objects, .*B/s, 0:0\d left")
    assert terminal.end() == 0
    assert "Completed  3 of 3 objects done" in terminal.screen


@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM"])
def test_a_job_that_is_stopped_leaves_no_output_and_nothing_running(
    how: str, folder: Make, image: Make, tmp_path: Path
) -> None:
    script = [{"match_body": "1", "body": "1"}, {"body": "1", "delay_ms": 60_000}]
    home = image(None, script=script)
    objects = folder(a_csv="1\n", b_csv="2\n")
    out = tmp_path / "out"
    terminal = Terminal("--image", home, "--input", objects, "--output", out, *CSV)
    terminal.see("1 of 2 objects")
    assert [path.name for path in out.iterdir() if path.suffix == ".out"] == ["a.csv.out"]

    if how == "Ctrl-C":
        terminal.press("\x03")
    else:
        terminal.process.send_signal(signal.SIGTERM)

    assert terminal.end() == 130
    assert "stopping, and removing the outputs" in terminal.screen
    assert re.search(r"Stopped  1 of 2 objects done", terminal.screen)
    assert [*out.iterdir()] == []
    assert terminal.left_running() == []


def test_a_signal_that_was_to_be_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_signals() as stopping:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stopping.is_set()
            os.kill(os.getpid(), signal.SIGTERM)
            assert stopping.wait(5)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_ctrl_c_before_the_job_has_started_says_that_nothing_has(
    folder: Make, tmp_path: Path
) -> None:
    engine = tmp_path / "engine"
    engine.write_text(f"#!/bin/sh\ntouch {tmp_path}/asked\nexec sleep 60\n")
    engine.chmod(0o755)
    terminal = Terminal(
        *("--image", "churn:7", "--container-engine", engine),
        *("--input", folder(a_csv="1\n"), "--output", tmp_path / "out"),
    )
    deadline = time.monotonic() + LIMIT_S
    while not (tmp_path / "asked").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    terminal.press("\x03")
    assert terminal.end() == 130
    assert "batch-transform: stopped; nothing had started" in terminal.screen
    assert "Traceback" not in terminal.screen
    assert terminal.left_running() == []
