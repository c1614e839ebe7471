import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from transform_engine.capture import write_manifests
from transform_engine.job import TransformJob
from transform_engine.objects import Task, enumerate_tasks
from transform_engine.s3 import S3Storage
from transform_engine.spec import Container, JobSpec
from transform_engine.storage import (
    LOCAL,
    FolderStorage,
    LocalFiles,
    Places,
    Storage,
    split_uri,
    uri_of,
    write_object,
)

_Request = Callable[..., dict[str, Any]]
_STARTED = 1661820555.9  # 2022-08-30T00:49:15Z


def _request(output: str, destination: str, **capture: Any) -> dict[str, Any]:
    return {
        "TransformOutput": {"S3OutputPath": output},
        "DataCaptureConfig": {"DestinationS3Uri": destination, **capture},
    }


def _captured(storage: Storage, destination: str) -> dict[str, list[str]]:
    """Return the keys of the manifests by what is before their own name, below the destination."""
    bucket, prefix = split_uri(destination)
    found: dict[str, list[str]] = {}
    for each in storage.list(bucket, prefix):
        folder, _, _ = each.key.removeprefix(prefix).rpartition("/")
        found.setdefault(folder.removeprefix("/"), []).append(uri_of(bucket, each.key))
    return found


def _named(storage: Storage, manifest: str) -> list[str]:
    """Return the URIs that a manifest names, as a job reads it."""
    source = {"S3DataType": "ManifestFile", "S3Uri": manifest}
    return [uri_of(task.bucket, task.key) for task in enumerate_tasks(storage, source)]


@pytest.fixture
def places(bucket: FolderStorage) -> Places:
    return Places(LocalFiles(), lambda: bucket)


@pytest.mark.parametrize("destination", ["s3://bkt/cap", "s3://bkt/cap/", "s3://bkt", "FILES"])
def test_manifests_lie_under_the_hour_in_which_the_job_started(
    places: Places, tmp_path: Path, destination: str
) -> None:
    destination = destination.replace("FILES", (tmp_path / "cap a#1").as_uri())
    done = [Task("bkt", f"in/{name}", name, 1) for name in ("b/x.csv", "a.csv")]
    request = _request("s3://bkt/out/", destination)
    asyncio.run(write_manifests(places, request, done, _STARTED))
    captured = _captured(places, destination)
    assert {*captured} == {"input/2022/08/30/00", "output/2022/08/30/00"}
    ((read,), (written,)) = captured["input/2022/08/30/00"], captured["output/2022/08/30/00"]
    assert _named(places, read) == ["s3://bkt/in/a.csv", "s3://bkt/in/b/x.csv"]
    assert _named(places, written) == ["s3://bkt/out/a.csv.out", "s3://bkt/out/b/x.csv.out"]
    path = places.file_path(*split_uri(read))
    assert path is not None
    assert json.loads(Path(path).read_text()) == [{"prefix": "s3://bkt/in/"}, "a.csv", "b/x.csv"]


@pytest.mark.parametrize(
    ("tasks", "entries"),
    [
        pytest.param(
            [("in//x.csv", "x.csv"), ("in/a.csv", "a.csv")],
            [{"prefix": "s3://bkt/in/"}, "/x.csv", "a.csv"],
            id="a name that leaves out a slash",
        ),
        pytest.param(
            [("/x.csv", "x.csv"), ("a.csv", "a.csv")],
            [{"prefix": "s3://bkt/"}, "/x.csv", "a.csv"],
            id="nothing in common",
        ),
        pytest.param(
            [("in/x-a", "a"), ("in/x-b", "b")],
            [{"prefix": "s3://bkt/in/x-"}, "a", "b"],
            id="a manifest's prefix inside a name",
        ),
    ],
)
def test_a_manifest_of_inputs_names_the_very_keys(
    places: Places, tasks: list[tuple[str, str]], entries: list[Any]
) -> None:
    done = [Task("bkt", key, relative, None) for key, relative in tasks]
    asyncio.run(write_manifests(places, _request("s3://bkt/out", "s3://bkt/cap"), done, _STARTED))
    (manifest,) = _captured(places, "s3://bkt/cap")["input/2022/08/30/00"]
    path = places.file_path(*split_uri(manifest))
    assert path is not None
    assert json.loads(Path(path).read_text()) == entries
    assert _named(places, manifest) == [f"s3://bkt/{key}" for key, _ in tasks]


def test_nothing_is_captured_of_a_job_that_does_not_ask_for_it_or_has_done_nothing(
    places: Places,
) -> None:
    task = Task("bkt", "in/a", "a", 1)
    request = _request("s3://bkt/out", "s3://bkt/cap")
    asyncio.run(write_manifests(places, request, [], _STARTED))
    del request["DataCaptureConfig"]
    asyncio.run(write_manifests(places, request, [task], _STARTED))
    assert [*places.list("bkt", "")] == []


def test_manifests_are_encrypted_with_the_key_of_the_capture(aws: str, s3: Any) -> None:
    storage = S3Storage(endpoint=aws, region="us-east-1")
    request = _request("s3://bkt/out", "s3://bkt/cap", KmsKeyId="alias/captures")
    asyncio.run(write_manifests(storage, request, [Task("bkt", "in/a", "a", 1)], _STARTED))
    captured = _captured(storage, "s3://bkt/cap")
    for (manifest,) in captured.values():
        bucket, key = split_uri(manifest)
        assert s3.head_object(Bucket=bucket, Key=key)["SSEKMSKeyId"] == "alias/captures"
    assert len(captured) == 2


def test_a_job_of_files_captures_what_each_instance_has_done(
    request_for: _Request,
    container: Callable[..., Container],
    job_for: Callable[..., JobSpec],
    tmp_path: Path,
) -> None:
    (tmp_path / "in put").mkdir()
    for name in "abcd":
        (tmp_path / "in put" / f"{name} é.csv").write_text("1\n" if name != "c" else "x\n")
    where = {name: (tmp_path / name).as_uri() for name in ("in put", "out", "capture")}
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"{where['in put']}/"}}
    request = request_for(
        TransformInput={"DataSource": source},
        TransformOutput={"S3OutputPath": where["out"]},
        TransformResources={"InstanceCount": 2},
        DataCaptureConfig={"DestinationS3Uri": where["capture"]},
    )
    job = TransformJob(job_for(request, [container("csv_sum")], max_instances=2))
    job.start()
    assert job.wait(30).done == 3
    files = LocalFiles()
    captured = _captured(files, where["capture"])
    inputs, outputs = (
        sorted(
            str(files.path(LOCAL, split_uri(uri)[1]).relative_to(tmp_path))
            for folder, manifests in captured.items()
            if folder.startswith(side)
            for manifest in manifests
            for uri in _named(files, manifest)
        )
        for side in ("input/", "output/")
    )
    assert inputs == [f"in put/{name} é.csv" for name in "abd"]
    assert outputs == [f"out/{name} é.csv.out" for name in "abd"]
    assert all((tmp_path / each).is_file() for each in outputs)
    assert len(captured) == 2
    assert all(len(manifests) == 2 for manifests in captured.values())


def test_a_manifest_is_whole_or_not_there(places: Places, tmp_path: Path) -> None:
    (tmp_path / "cap").write_text("a file where the folder should be")
    request = _request("s3://bkt/out", (tmp_path / "cap").as_uri())
    with pytest.raises(Exception, match="must be writable, got not a directory"):
        asyncio.run(write_manifests(places, request, [Task("bkt", "in/a", "a", 1)], _STARTED))
    asyncio.run(write_object(places, "bkt", "in/a", b"1"))
    assert [each.key for each in places.list("bkt", "")] == ["in/a"]
