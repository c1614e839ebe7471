"""What is wrong ends in one clear line; nothing hangs, and nothing is left running."""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Pipeline, Trace

COMMAND = Path(sys.executable).with_name("batch-transform")
LIMIT_S = 60


def test_files_that_are_empty_or_no_csv_fail_with_a_reason_and_hold_nothing_up(
    pipeline: Pipeline, rows: dict[str, list[str]]
) -> None:
    faults = {
        "words.csv": (b"this is no table\n", "row 1 must have 30 columns, got"),
        "picture.csv": (random.Random(1).randbytes(5000), "ClientError: 400"),
        "quote.csv": (b'P1,"1,2\n', "ClientError: 400"),
    }
    faulty = {pipeline.drop(name, body): fault for name, (body, fault) in faults.items()}
    empty = pipeline.drop("empty.csv", b"")
    good = pipeline.drop("beside.csv", ",".join(["E1", *rows["P0001"]]).encode())

    drops = {drop.key: drop for drop in pipeline.wait(*faulty, empty, good)}

    for key, fault in faulty.items():
        assert drops[key].status == "failed"
        assert drops[key].reason.startswith(f"{key}: ")
        assert fault in drops[key].reason
        assert "\n" not in drops[key].reason
    assert drops[good].status == "done"
    assert drops[empty].status == "failed"
    assert drops[empty].reason == (
        "a drop must hold at least one record, got an empty object; "
        "drop it again with its records, or name it as the batch's marker if it is one"
    )


def test_a_server_that_never_answers_ping_is_given_up_and_its_last_words_are_shown(
    never_ready: Pipeline,
) -> None:
    key = never_ready.drop("a.csv", b"1,2\n")

    (drop,) = never_ready.wait(key)

    assert drop.status == "failed"
    assert "Model container failed to respond to ping" in drop.reason
    said = never_ready.client.log_lines(drop.run_id, newest=20)
    assert any("loading a model that never ends to load" in line.message for line in said)


def test_a_file_of_which_the_server_leaves_rows_out_is_not_done_and_the_others_are(
    lossy: Pipeline,
) -> None:
    bodies = {"short.csv": b"1,2\n3,nan\n5,nan\n7,8", "whole.csv": b"1,2\n3,4\n", "one.csv": b"9,9"}
    keys = {name: lossy.drop(name, body) for name, body in bodies.items()}

    drops = {drop.key: drop for drop in lossy.wait(*keys.values())}

    short = drops[keys["short.csv"]]
    assert short.status == "failed"
    assert short.reason.startswith(
        f"{short.key}: 4 records went in, 2 predictions came out, so some are missing"
    )
    with pytest.raises(lossy.s3.exceptions.NoSuchKey):
        lossy.output(short.key)
    assert drops[keys["whole.csv"]].status == drops[keys["one.csv"]].status == "done"
    assert lossy.output(keys["whole.csv"]) == b"1,2\n3,4\n"


def test_a_pipeline_that_does_not_check_its_records_takes_what_comes(lenient: Pipeline) -> None:
    key = lenient.drop("short.csv", b"1,2\n3,nan\n")

    (drop,) = lenient.wait(key)

    assert (drop.status, lenient.output(key)) == ("done", b"1,2\n")


def test_a_batch_that_loses_more_than_its_budget_is_not_tried_again(thrifty: Pipeline) -> None:
    lost = [thrifty.drop(f"lost-{number}.csv", b"crash\n") for number in range(3)]
    good = [thrifty.drop(f"good-{number}.csv", b"1,2\n") for number in range(7)]

    drops = {drop.key: drop for drop in thrifty.wait(*lost, *good)}

    assert {drops[key].status for key in good} == {"done"}
    for key in lost:
        assert drops[key].status == "failed"
        assert "algorithm: 500 (3 of the 10 drops of its run came out without" in drops[key].reason
    (run,) = thrifty.client.status().runs
    assert (run.done, run.failed, run.waiting) == (7, 3, 0)


def test_fails_when_an_image_has_no_serve(
    faulty_assembly: Path, tmp_path: Path, trace: Trace
) -> None:
    assembly = tmp_path / "cdk.out"
    shutil.copytree(faulty_assembly, assembly)
    for serve in assembly.glob("asset.*/serve"):
        serve.unlink()

    ended = command(trace, tmp_path, "up", "--assembly", str(assembly))

    assert ended.returncode == 1
    assert "must hold a program `serve`" in one_line(ended.stderr)
    assert trace.nothing_is_left(), trace.processes()


def test_fails_when_the_port_is_in_use(assembly: Path, tmp_path: Path, trace: Trace) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        ended = command(trace, tmp_path, "up", "--assembly", str(assembly), "--port", port)

    assert ended.returncode == 1
    assert f"port {port} must be free" in one_line(ended.stderr)
    assert trace.nothing_is_left(), trace.processes()


def test_a_cloud_that_is_killed_is_noticed_and_leaves_nothing(
    assembly: Path, tmp_path: Path, trace: Trace
) -> None:
    with subprocess.Popen(
        [COMMAND, "up", "--assembly", assembly],
        cwd=tmp_path,
        env=trace.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as up:
        assert up.stdout is not None
        assert any("local cloud at http://127.0.0.1:" in line for line in up.stdout)
        (server,) = [line for line in trace.processes() if "local_cloud.server" in line]
        os.kill(int(server.split(":")[0]), signal.SIGKILL)
        _, said = up.communicate(timeout=LIMIT_S)

    assert up.returncode == 1
    assert "the local cloud's server must keep running, got end by SIGKILL" in said.splitlines()[0]
    assert "Traceback" not in said
    assert trace.nothing_is_left(), trace.processes()


@pytest.mark.parametrize("line", ["local cloud is up", "trained", "synthesized", "drop "])
def test_ctrl_c_at_any_stage_of_the_demo_leaves_nothing(trace: Trace, line: str) -> None:
    demo = Path(__file__).parents[2] / "examples" / "breast_cancer" / "demo.py"
    with subprocess.Popen(
        [sys.executable, demo],
        env=trace.environment(PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        seen = iter(process.stdout.readline, "")
        assert any(line in text for text in seen), "the stage never came"
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: all of the foreground
        _, said = process.communicate(timeout=LIMIT_S)

    assert process.returncode == 130
    assert said == "demo: stopped; nothing is left running\n"
    assert trace.nothing_is_left(), trace.processes()


def command(trace: Trace, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *arguments],
        cwd=cwd,  # of its own: a folder has one `up`
        env=trace.environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )


def one_line(said: str) -> str:
    (line,) = said.splitlines()
    assert line.startswith("batch-transform: ")
    return line
