import asyncio
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transform_engine.storage import (
    LOCAL,
    FolderStorage,
    LocalFiles,
    Storage,
    StorageFailed,
    split_uri,
    write_object,
)


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
    output = files.output(LOCAL, _key(place))
    output.discard()
    assert not place.parent.exists()
    for size in (0, 10, 300_000, 3_000_000):
        output = files.output(LOCAL, _key(place))
        for _ in range(3):
            output.write(bytes([size % 251]) * size)
            output.write(b"1.0\n")
        assert not place.exists()
        output.commit()
        output.discard()
        assert place.read_bytes() == (bytes([size % 251]) * size + b"1.0\n") * 3
        place.unlink()
    output = files.output(LOCAL, _key(place))
    output.write(b"x" * 1_000_000)
    assert len([*place.parent.iterdir()]) == 1
    output.discard()
    assert [*place.parent.iterdir()] == []
