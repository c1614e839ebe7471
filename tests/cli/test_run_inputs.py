import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batch_transform_cli.errors import JobRefused
from batch_transform_cli.job.inputs import Inputs, find_inputs, one_file_only, place
from batch_transform_cli.job.request import request_from
from transform_engine.spec import JobSpec
from transform_engine.storage import open_storage


def found(tmp_path: Path, **flags: Any) -> Inputs:
    request = request_from(None, {"output": str(tmp_path / "out"), **flags})
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    request_of_one = one_file_only(request, scratch)
    spec = JobSpec(job_name="job", request=request_of_one, containers=(), work_dir=str(scratch))
    return find_inputs(spec, open_storage(spec))


def test_a_folder_is_all_that_is_below_it_and_nothing_beside_it(
    folder: Callable[..., Path], tmp_path: Path
) -> None:
    home = folder(b_csv="22", a_csv="1")
    (home / "sub").mkdir()
    (home / "sub" / "c.csv").write_text("333")
    folder("in-2", d_csv="4")

    inputs = found(tmp_path, input=str(home))

    assert [*inputs.names.values()] == ["a.csv", "b.csv", "sub/c.csv"]
    assert inputs.size_bytes == 6
    assert len(inputs.outputs) == 3


def test_a_file_is_that_file_and_not_all_that_starts_with_its_name(
    folder: Callable[..., Path], tmp_path: Path
) -> None:
    home = folder("100% in", a_csv="1", a_csv_bak="22")

    inputs = found(tmp_path, input=str(home / "a.csv"), output=str(home))

    assert [*inputs.names.values()] == ["a.csv"]
    assert inputs.size_bytes == 1
    assert inputs.outputs == {f"{home}/a.csv.out"[1:]}


def test_the_start_of_names_is_all_that_starts_so(
    folder: Callable[..., Path], tmp_path: Path
) -> None:
    home = folder(part1_csv="1", part2_csv="2", other_csv="3")
    inputs = found(tmp_path, input=str(home / "part"))
    assert [*inputs.names.values()] == ["part1.csv", "part2.csv"]


def test_a_manifest_names_objects_and_the_size_of_one_that_is_missing_is_not_known(
    folder: Callable[..., Path], tmp_path: Path
) -> None:
    home = folder(a_csv="1")
    manifest = tmp_path / "list.json"
    manifest.write_text(json.dumps([{"prefix": f"file://{home}/"}, "a.csv", "gone.csv"]))
    inputs = found(tmp_path, input=str(manifest), s3_data_type="ManifestFile")
    assert [*inputs.names.values()] == ["a.csv", "gone.csv"]
    assert inputs.size_bytes is None


@pytest.mark.parametrize("output", ["in", "in/out"])
def test_fails_when_outputs_would_be_inputs_of_the_next_run(
    output: str, folder: Callable[..., Path], tmp_path: Path
) -> None:
    home = folder(a_csv="1")
    with pytest.raises(JobRefused, match="outputs must not be inputs of the next run"):
        found(tmp_path, input=str(home), output=str(tmp_path / output))


def test_fails_when_there_is_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(JobRefused, match=f"got none whose name starts with {tmp_path}/none; check"):
        found(tmp_path, input=str(tmp_path / "none"))


def test_fails_when_the_output_is_a_file(folder: Callable[..., Path], tmp_path: Path) -> None:
    home = folder(a_csv="1")
    with pytest.raises(JobRefused, match="--output must be a folder, got the file"):
        found(tmp_path, input=str(home), output=str(home / "a.csv"))


def test_fails_when_the_manifest_is_none(folder: Callable[..., Path], tmp_path: Path) -> None:
    home = folder(a_csv="1")
    with pytest.raises(JobRefused, match="the manifest must be a JSON array like"):
        found(tmp_path, input=str(home / "a.csv"), s3_data_type="ManifestFile")


def test_a_place_is_shown_as_its_user_would_write_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert place(f"file://{tmp_path}/a%20b/") == "a b/"
    assert place(f"file://{tmp_path}/") == "./"
    assert place("file:///elsewhere/") == "/elsewhere/"
    assert place("s3://bkt/in/") == "s3://bkt/in/"
