import asyncio
import json
from pathlib import Path

import pytest

from transform_engine.errors import InstanceFailed
from transform_engine.objects import Task, enumerate_tasks, output_key, relative_name
from transform_engine.storage import (
    LOCAL,
    FolderStorage,
    LocalFiles,
    Places,
    StorageFailed,
    write_object,
)


def _write(bucket: FolderStorage, key: str, content: str = "1") -> None:
    asyncio.run(write_object(bucket, "bkt", key, content.encode()))


@pytest.mark.parametrize(
    ("prefix", "key", "relative"),
    [
        pytest.param("in/", "in/a.csv", "a.csv", id="folder"),
        pytest.param("in/", "in/d1/x.csv", "d1/x.csv", id="sub-folder"),
        pytest.param("in", "in/a.csv", "a.csv", id="folder without its slash"),
        pytest.param("in", "in_more/y.csv", "in_more/y.csv", id="prefix inside a segment"),
        pytest.param(
            "a/in", "a/in_more/y.csv", "in_more/y.csv", id="prefix inside a segment below"
        ),
        pytest.param("in/data.csv", "in/data.csv", "data.csv", id="one object"),
        pytest.param("data.csv", "data.csv", "data.csv", id="one object at the top"),
        pytest.param("", "d/x.csv", "d/x.csv", id="whole bucket"),
        pytest.param("in/", "in//x.csv", "x.csv", id="empty segment"),
    ],
)
def test_an_output_is_named_by_what_is_below_the_prefix(
    prefix: str, key: str, relative: str
) -> None:
    assert relative_name(prefix, key) == relative


@pytest.mark.parametrize(
    ("prefix", "key"), [("out", "out/a.out"), ("out/", "out/a.out"), ("", "a.out")]
)
def test_an_output_lies_below_the_output_path(prefix: str, key: str) -> None:
    assert output_key(prefix, "a") == key


def test_a_prefix_is_a_string_and_folder_markers_are_no_input(bucket: FolderStorage) -> None:
    for key in ("in", "in/a.csv", "in_more/b.csv", "other"):
        _write(bucket, key)
    _write(bucket, "in/", "")
    _write(bucket, "in/empty", "")
    source = {"S3DataType": "S3Prefix", "S3Uri": "s3://bkt/in"}
    keys = [task.key for task in enumerate_tasks(bucket, source)]
    assert keys == ["in", "in/a.csv", "in/empty", "in_more/b.csv"]


def test_a_manifest_names_objects_by_plain_concatenation(bucket: FolderStorage) -> None:
    _write(bucket, "m.json", json.dumps([{"prefix": "s3://bkt/in/x-"}, "a.csv", "d/b.csv"]))
    source = {"S3DataType": "ManifestFile", "S3Uri": "s3://bkt/m.json"}
    assert [*enumerate_tasks(bucket, source)] == [
        Task("bkt", "in/x-a.csv", "a.csv", None),
        Task("bkt", "in/x-d/b.csv", "d/b.csv", None),
    ]


def test_a_manifests_names_follow_its_prefix_as_they_are(bucket: FolderStorage) -> None:
    _write(bucket, "m.json", json.dumps([{"prefix": "s3://bkt"}, "/in/a", "-2/in/b"]))
    source = {"S3DataType": "ManifestFile", "S3Uri": "s3://bkt/m.json"}
    assert [*enumerate_tasks(bucket, source)] == [
        Task("bkt", "in/a", "in/a", None),
        Task("bkt-2", "in/b", "-2/in/b", None),
    ]


def test_a_manifest_of_files_may_name_what_is_in_s3_and_not_the_other_way_round(
    bucket: FolderStorage, tmp_path: Path
) -> None:
    places = Places(LocalFiles(), lambda: bucket)
    manifest = tmp_path / "a manifest.json"
    manifest.write_text(json.dumps([{"prefix": f"{tmp_path.as_uri()}/a%20b/"}, "c%20d", "e f"]))
    source = {"S3DataType": "ManifestFile", "S3Uri": manifest.as_uri()}
    tasks = [*enumerate_tasks(places, source)]
    assert [task.bucket for task in tasks] == [LOCAL, LOCAL]
    assert [f"/{task.key}" for task in tasks] == [f"{tmp_path}/a b/{n}" for n in ("c%20d", "e f")]
    manifest.write_text(json.dumps([{"prefix": "s3://bkt/in/"}, "a"]))
    assert [*enumerate_tasks(places, source)] == [Task("bkt", "in/a", "a", None)]
    _write(bucket, "m.json", json.dumps([{"prefix": "file:///etc/"}, "passwd"]))
    with pytest.raises(InstanceFailed, match="the prefix file:///etc/ is not in S3"):
        [*enumerate_tasks(places, {"S3DataType": "ManifestFile", "S3Uri": "s3://bkt/m.json"})]


@pytest.mark.parametrize("name", ["../secret", "/secret", "a/../../secret", "a\0b", "."])
def test_a_manifest_of_files_cannot_leave_its_prefix(tmp_path: Path, name: str) -> None:
    (tmp_path / "in" / "a").mkdir(parents=True)
    (tmp_path / "secret").write_text("1")
    files = LocalFiles()
    manifest = tmp_path / "m.json"
    manifest.write_text(json.dumps([{"prefix": f"{tmp_path.as_uri()}/in/"}, name]))
    source = {"S3DataType": "ManifestFile", "S3Uri": manifest.as_uri()}
    (task,) = enumerate_tasks(files, source)
    with pytest.raises(StorageFailed, match="must have only names between its slashes"):
        files.path(task.bucket, task.key)
    with pytest.raises(StorageFailed, match="must have only names between its slashes"):
        files.outputs(LOCAL)(output_key("tmp/out", f"../{task.relative}")).write(b"1")


def test_fails_when_a_manifest_is_missing(bucket: FolderStorage) -> None:
    source = {"S3DataType": "ManifestFile", "S3Uri": "s3://bkt/m.json"}
    with pytest.raises(StorageFailed, match=r"m\.json must be readable, got no such file"):
        list(enumerate_tasks(bucket, source))


@pytest.mark.parametrize("manifest", ["", "{}", "[]", '["a"]', '[{"prefix":"s3://b/"},1]'])
def test_fails_when_a_manifest_is_malformed(bucket: FolderStorage, manifest: str) -> None:
    _write(bucket, "m.json", manifest)
    source = {"S3DataType": "ManifestFile", "S3Uri": "s3://bkt/m.json"}
    with pytest.raises(InstanceFailed, match="manifest must be a JSON array"):
        list(enumerate_tasks(bucket, source))


def test_a_line_break_in_a_key_cannot_forge_a_log_line() -> None:
    assert "\n" not in Task("bkt", "a\nb", "a", None).name
