import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transform_engine.storage import FolderStorage, S3Storage, Storage, split_uri, write_object

_KEYS = [
    "in/a.csv",
    "in//b.csv",
    "/leading",
    "in/a%2Fb+c d",
    "in/é/ü.csv",
    "in/../up",
    "in/./here",
    "in/q?x=1#h",
    "in/a\\b",
    "in/new\nline",
    "trailing/",
    "in/" + "long" * 200,
]


async def _read(storage: Storage, key: str) -> bytes:
    return b"".join([piece async for piece in storage.chunks("bkt", key)])


async def _write(storage: Storage, key: str, content: bytes) -> None:
    await write_object(storage, "bkt", key, content)


@pytest.mark.parametrize("key", _KEYS, ids=ascii)
def test_s3_takes_every_key_as_it_is(aws: str, s3: Any, tmp_path: Path, key: str) -> None:
    storage = S3Storage(endpoint=aws, region="us-east-1")
    asyncio.run(_write(storage, key, key.encode()))
    assert s3.get_object(Bucket="bkt", Key=key)["Body"].read() == key.encode()
    assert asyncio.run(_read(storage, key)) == key.encode()
    assert [found.key for found in storage.list("bkt", key)] == [key]
    storage.download("bkt", key, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == key.encode()
    storage.delete("bkt", key)
    assert not [*storage.list("bkt", key)]


@pytest.mark.parametrize("key", ["large", "//large"])
def test_s3_takes_outputs_that_are_larger_than_memory_is_spent_on(
    aws: str, s3: Any, key: str
) -> None:
    storage = S3Storage(endpoint=aws, region="us-east-1")
    content = b"0123456789abcdef" * (1 << 20)
    asyncio.run(_write(storage, key, content))
    assert s3.head_object(Bucket="bkt", Key=key)["ContentLength"] == len(content)
    assert asyncio.run(_read(storage, key)) == content


def test_s3_lists_a_prefix_as_a_string_and_not_as_a_folder(aws: str, s3: Any) -> None:
    storage = S3Storage(endpoint=aws, region="us-east-1")
    for key in ("test_output/a", "test_output_pose/b", "other"):
        s3.put_object(Bucket="bkt", Key=key, Body=b"")
    found = [each.key for each in storage.list("bkt", "test_output")]
    assert found == ["test_output/a", "test_output_pose/b"]


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
    with pytest.raises(ValueError, match="letters, digits, dots and hyphens"):
        FolderStorage(tmp_path).path("..", "key")


def test_fails_when_a_uri_is_not_s3s() -> None:
    with pytest.raises(ValueError, match="must start with s3://"):
        split_uri("https://bucket/key")
