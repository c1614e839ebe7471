import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.bench import consists_of, same
from benchmarks.errors import BenchmarkError, Missing
from benchmarks.servers import find_tools
from benchmarks.works import WORKS

ROOT = Path(__file__).parents[2]


def test_an_output_that_lacks_a_record_is_told_with_its_place(tmp_path: Path) -> None:
    output = tmp_path / "output"
    output.write_bytes(b"1\n3\n")

    with pytest.raises(BenchmarkError, match="at byte 2, got b'3"):
        consists_of(output, [b"1\n", b"2\n", b"3\n"])


def test_an_output_with_too_much_is_told_with_its_place(tmp_path: Path) -> None:
    output = tmp_path / "output"
    output.write_bytes(b"1\n1\n")

    with pytest.raises(BenchmarkError, match="must end at byte 2"):
        consists_of(output, [b"1\n"])


def test_an_output_whose_records_changed_places_is_told(tmp_path: Path) -> None:
    output, expected = tmp_path / "output", tmp_path / "expected"
    output.write_bytes(b"2\n1\n")
    expected.write_bytes(b"1\n2\n")

    with pytest.raises(BenchmarkError, match="out of order"):
        same(output, expected)


def test_all_of_it_runs_and_the_outputs_are_as_they_must_be(tmp_path: Path) -> None:
    try:
        find_tools()
    except Missing as missing:
        pytest.skip(str(missing))

    # Two differ only in their sizes from others, and one waits minutes for batches to be due. And
    # local-mode needs an environment of its own, with the whole of sagemaker.
    left_out = ("multi-record-1mb", "memory", "load-on-cloud")
    works = [name for name in WORKS if name not in left_out]
    run = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks", *works),
            *("--quick", "--without", "local-mode", "--folder", tmp_path),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )

    assert run.returncode == 0, run.stderr
    machine, *figures = [json.loads(line) for line in run.stdout.splitlines()]
    assert machine["machine"]["cpus"]
    assert {figure["figure"].partition("/")[0] for figure in figures} == {*works}
    assert all(figure.get("engine", 1) > 0 for figure in figures)
    assert not [*tmp_path.iterdir()]
