import asyncio
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import transform_engine
from transform_engine.spec import JobSpec
from transform_engine.storage import (
    LOCAL,
    FolderStorage,
    LocalFiles,
    Storage,
    StorageFailed,
    open_storage,
    split_uri,
    uri_of,
    write_object,
)


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(transform_engine.__file__).parents[1])}


async def _read(storage: Storage, key: str, bucket: str = "bkt") -> bytes:
    return b"".join([piece async for piece in storage.chunks(bucket, key)])


async def _write(storage: Storage, key: str, content: bytes) -> None:
    await write_object(storage, "bkt", key, content)


@given(st.lists(st.text(min_size=1, max_size=300), max_size=5, unique=True))
def test_a_folder_keeps_every_key_inside_its_bucket(
    tmp_path_factory: pytest.TempPathFactory, keys: list[str]
) -> None:
    keys = [key for key in keys if key.isprintable() and len(key.encode()) <= 1024]
    root = tmp_path_factory.mktemp("s3")
    storage = FolderStorage(root)
    for key in keys:
        asyncio.run(_write(storage, key, key.encode()))
    assert [found.key for found in storage.list("bkt", "")] == sorted(keys, key=str.encode)
    for key in keys:
        assert asyncio.run(_read(storage, key)) == key.encode()
        assert storage.path("bkt", key).resolve().is_relative_to(root / "bkt")


@pytest.mark.parametrize("key", ["../../escape", "/etc/passwd", "..", ".hidden", "a/../../b"])
def test_a_key_cannot_leave_its_bucket(tmp_path: Path, key: str) -> None:
    storage = FolderStorage(tmp_path / "s3")
    asyncio.run(_write(storage, key, b"x"))
    assert storage.path("bkt", key).resolve().is_relative_to(tmp_path / "s3" / "bkt")
    assert [found.key for found in storage.list("bkt", "")] == [key]


def test_fails_when_a_bucket_is_a_path(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed, match="letters, digits, dots and hyphens"):
        FolderStorage(tmp_path).path("..", "key")


def test_fails_when_a_uri_is_not_s3s() -> None:
    with pytest.raises(ValueError, match="must start with s3://"):
        split_uri("https://bucket/key")


@pytest.fixture
def files() -> LocalFiles:
    return LocalFiles(".transform-test-")


def _key(path: Path) -> str:
    return str(path)[1:]


def test_local_files_are_listed_as_s3_would(files: LocalFiles, tmp_path: Path) -> None:
    names = [
        "in/b",
        "in/a/z",
        "in/a.csv",
        "in/a/.hidden",
        "in-more/x",
        "other",
        "in/é",
        "in/sub/d/e",
    ]
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    (tmp_path / "in" / "empty").mkdir()
    (tmp_path / "in" / ".transform-left-over").touch()
    found = [*files.list(LOCAL, _key(tmp_path / "in"))]
    wanted = sorted((name for name in names if name != "other"), key=str.encode)
    assert [each.key for each in found] == [_key(tmp_path / name) for name in wanted]
    assert [each.size for each in found] == [len(name.encode()) for name in wanted]
    assert [*files.list(LOCAL, _key(tmp_path / "in" / "nothing"))] == []
    assert [*files.list(LOCAL, _key(tmp_path / "in" / "b") + "/")] == []


def test_links_are_followed_but_not_in_circles(files: LocalFiles, tmp_path: Path) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a").write_bytes(b"1")
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "sub" / "up").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "itself").symlink_to("itself")
    (tmp_path / "in" / "nowhere").symlink_to("nothing")
    os.mkfifo(tmp_path / "in" / "pipe")
    found = [*files.list(LOCAL, _key(tmp_path / "in") + "/")]
    assert [(each.key.rpartition("/in/")[2], each.size) for each in found] == [
        ("itself", None),
        ("linked/a", 1),
        ("nowhere", None),
    ]
    for broken in found[0], found[2]:
        with pytest.raises(StorageFailed, match=r"must be readable, got .*check what is there"):
            asyncio.run(_read(files, broken.key, LOCAL))


def test_a_file_appears_whole_or_not_at_all(files: LocalFiles, tmp_path: Path) -> None:
    place = tmp_path / "out" / "a"
    output = files.outputs(LOCAL)(_key(place))
    output.discard()
    assert not place.parent.exists()
    for size in (0, 10, 300_000, 3_000_000):
        output = files.outputs(LOCAL)(_key(place))
        for _ in range(3):
            output.write(bytes([size % 251]) * size)
            output.write(b"1.0\n")
        assert not place.exists()
        output.commit()
        output.discard()
        assert place.read_bytes() == (bytes([size % 251]) * size + b"1.0\n") * 3
        place.unlink()
    output = files.outputs(LOCAL)(_key(place))
    output.write(b"x" * 1_000_000)
    assert len([*place.parent.iterdir()]) == 1
    output.discard()
    assert [*place.parent.iterdir()] == []


@pytest.mark.parametrize(
    "name", ["a b", "50%", "q?x=1", "h#1", "é", "a%20b", "new\nline", "+", "a;b&c", b"\xff\xfe"]
)
def test_a_file_uri_means_the_very_file(tmp_path: Path, name: str | bytes) -> None:
    path = tmp_path / os.fsdecode(name)
    assert split_uri(path.as_uri()) == (LOCAL, _key(path))
    assert split_uri(f"{path.as_uri()}/") == (LOCAL, f"{_key(path)}/")
    assert uri_of(LOCAL, _key(path)) == path.as_uri()
    files = LocalFiles()
    asyncio.run(write_object(files, *split_uri(path.as_uri()), b"1"))
    assert path.read_bytes() == b"1"
    assert [each.key for each in files.list(*split_uri(tmp_path.as_uri()))] == [_key(path)]


def test_slashes_more_than_one_mean_one_in_a_file_uri() -> None:
    assert split_uri("file:////data//in//") == (LOCAL, "data/in/")
    assert split_uri("s3://bkt//data//in//") == ("bkt", "/data//in//")


@pytest.mark.parametrize("uri", ["file://data/in", "file:/data", "/data", "data", "s3:///a", ""])
def test_fails_when_a_uri_says_no_place(uri: str) -> None:
    with pytest.raises(ValueError, match="must start with s3:// or file:///"):
        split_uri(uri)


def test_fails_when_a_file_changes_while_it_is_read(files: LocalFiles, tmp_path: Path) -> None:
    path = tmp_path / "a"

    async def read(change: Callable[[], object]) -> bytes:
        path.write_bytes(b"1" * 5_000_000)
        os.utime(path, (1, 1))
        content = b""
        async for piece in files.chunks(LOCAL, _key(path)):
            content += piece
            change()
        return content

    assert len(asyncio.run(read(lambda: None))) == 5_000_000
    changes: list[Callable[[], object]] = [
        lambda: os.truncate(path, 3_000_000),
        lambda: os.truncate(path, 6_000_000),
        lambda: path.write_bytes(b"2" * 5_000_000),
    ]
    for change in changes:
        with pytest.raises(StorageFailed, match=f"{path} must not change while it is read"):
            asyncio.run(read(change))


def test_fails_when_a_name_is_no_file_rather_than_wait(files: LocalFiles, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, said in {
        tmp_path / "pipe": "must be a file, got none",
        tmp_path: "must be (a file, got none|readable, got is a directory)",
        Path("/dev/zero"): "must be a file, got none",
        tmp_path / "gone": "must be readable, got no such file or directory; check what is there",
    }.items():
        with pytest.raises(StorageFailed, match=f"^{path} {said}"):
            asyncio.run(_read(files, _key(path), LOCAL))


@pytest.fixture
def ordinary() -> Iterator[Path]:
    """A folder of a user to whom permissions matter, which the test then is."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as folder:
        if user == 0:
            os.chown(folder, 65534, -1)
            os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            os.seteuid(user)


def test_fails_when_a_file_may_not_be_read_or_written(files: LocalFiles, ordinary: Path) -> None:
    (ordinary / "secret").touch(0)
    with pytest.raises(StorageFailed, match="readable, got permission denied; check its perm"):
        asyncio.run(_read(files, _key(ordinary / "secret"), LOCAL))
    (ordinary / "closed").mkdir(0o500)
    with pytest.raises(StorageFailed, match="writable, got permission denied; check its perm"):
        asyncio.run(write_object(files, LOCAL, _key(ordinary / "closed" / "a"), b"1"))
    assert [each.key for each in files.list(LOCAL, _key(ordinary))] == [_key(ordinary / "secret")]
    (ordinary / "unlistable").mkdir(0)
    with pytest.raises(StorageFailed, match="readable, got permission denied; check its perm"):
        [*files.list(LOCAL, _key(ordinary))]


def _replace_by_a_file(path: Path) -> None:
    path.write_text("x")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.mkdir(), "writable, got is a directory; check what is there"),
        (
            lambda path: _replace_by_a_file(path.parent),
            "writable, got not a directory; check what is there",
        ),
    ],
)
def test_fails_when_something_else_lies_where_an_output_should(
    files: LocalFiles, tmp_path: Path, spoil: Callable[[Path], object], said: str
) -> None:
    path = tmp_path / "out" / "a"
    if "is a" in said:
        path.parent.mkdir()
    spoil(path)
    with pytest.raises(StorageFailed, match=f"^{path} must be {said}"):
        asyncio.run(write_object(files, LOCAL, _key(path), b"1"))
    assert not [*tmp_path.rglob(".transform-*")]


def test_fails_when_a_name_is_too_long(files: LocalFiles, tmp_path: Path) -> None:
    longest = tmp_path / ("n" * 255)
    asyncio.run(write_object(files, LOCAL, _key(longest), b"1"))
    assert [*tmp_path.iterdir()] == [longest]
    with pytest.raises(StorageFailed, match="got file name too long; shorten its name"):
        asyncio.run(write_object(files, LOCAL, _key(longest) + "n", b"1"))
    assert [*tmp_path.iterdir()] == [longest]


_FILLER = """
import resource, sys
from transform_engine.storage import LOCAL, LocalFiles, StorageFailed
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
output = LocalFiles().outputs(LOCAL)(sys.argv[1][1:])
try:
    for _ in range(3000):
        output.write(b"x" * 1000)
    output.commit()
except StorageFailed as failure:
    print(failure)
finally:
    output.discard()
"""


def test_fails_when_a_file_may_not_grow_and_leaves_nothing(tmp_path: Path) -> None:
    said = subprocess.check_output(
        [sys.executable, "-c", _FILLER, str(tmp_path / "a")], env=_environment(), text=True
    )
    assert said == f"{tmp_path}/a must be writable, got file too large; free some space\n"
    assert [*tmp_path.iterdir()] == []


def test_fails_when_the_disk_is_full_and_leaves_nothing(
    files: LocalFiles, small_disk: Path
) -> None:
    async def write(content: bytes, name: str) -> None:
        await write_object(files, LOCAL, _key(small_disk / name), content)

    asyncio.run(write(b"1" * 500_000, "fits"))
    for size in 600_000, 5_000_000:
        with pytest.raises(StorageFailed, match="no space left on device; free some space"):
            asyncio.run(write(b"2" * size, "does not"))
        with pytest.raises(StorageFailed, match="no space left on device; free some space"):
            asyncio.run(write(b"2" * size, "fits"))
    assert [*small_disk.iterdir()] == [small_disk / "fits"]
    assert (small_disk / "fits").read_bytes() == b"1" * 500_000


def test_a_folder_that_vanishes_while_it_is_listed_is_empty(
    files: LocalFiles, tmp_path: Path
) -> None:
    for name in "a", "b/c", "d/e":
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = []
    for each in files.list(LOCAL, _key(tmp_path) + "/"):
        found.append(each.key)
        shutil.rmtree(tmp_path / "b", ignore_errors=True)
    assert found == [_key(tmp_path / "a"), _key(tmp_path / "d/e")]


def test_only_what_a_killed_instance_left_is_swept_away(tmp_path: Path) -> None:
    spec = JobSpec(job_name="j", request={}, containers=(), work_dir="/work/instance-1")
    killed = open_storage(spec)
    output = killed.outputs(LOCAL)(_key(tmp_path / "out" / "sub" / "a"))
    output.write(b"x" * 1_000_000)
    other = LocalFiles().outputs(LOCAL)(_key(tmp_path / "out" / "sub" / "a"))
    other.write(b"y" * 1_000_000)
    (tmp_path / "out" / "done").touch()
    assert len([*tmp_path.rglob(".transform-*")]) == 2
    killed.sweep(LOCAL, _key(tmp_path / "out"), "/work/instance-1")
    output.discard()
    other.commit()
    assert sorted(tmp_path.rglob("*")) == [
        tmp_path / each for each in ("out", "out/done", "out/sub", "out/sub/a")
    ]
    assert (tmp_path / "out/sub/a").read_bytes() == b"y" * 1_000_000


def test_listing_ten_thousand_files_takes_no_time(files: LocalFiles, tmp_path: Path) -> None:
    for number in range(10_000):
        (tmp_path / str(number)).touch()
    began = time.process_time()
    assert sum(1 for _ in files.list(LOCAL, _key(tmp_path) + "/")) == 10_000
    assert time.process_time() - began < 0.5


def test_many_small_writes_are_few_to_the_disk(files: LocalFiles, tmp_path: Path) -> None:
    output = files.outputs(LOCAL)(_key(tmp_path / "a"))
    began = resource.getrusage(resource.RUSAGE_SELF).ru_stime
    for _ in range(300_000):
        output.write(b"1.0\n")
    output.commit()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_stime - began < 0.1
    assert (tmp_path / "a").read_bytes() == b"1.0\n" * 300_000


_FILE_JOB = """
import sys
from transform_engine.spec import JobSpec
from transform_engine.storage import open_storage, split_uri
import transform_engine.instance
storage = open_storage(JobSpec(job_name="j", request={}, containers=(), work_dir="/w"))
assert [*storage.list(*split_uri(sys.argv[1]))] == []
print([name for name in ("boto3", "botocore", "obstore") if name in sys.modules])
"""


def test_a_job_of_files_loads_no_client_of_s3(tmp_path: Path) -> None:
    said = subprocess.check_output(
        [sys.executable, "-c", _FILE_JOB, tmp_path.as_uri()], env=_environment(), text=True
    )
    assert said == "[]\n"
