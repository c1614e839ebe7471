import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from transform_engine import file_writer
from transform_engine import small_files as small_files_module
from transform_engine.small_files import ON_THEIR_WAY, SMALL_BYTES, SmallFiles
from transform_engine.spec import JobSpec
from transform_engine.storage import LOCAL, Storage, StorageFailed, open_storage, small_files

_MANY = 4
_Put = Callable[..., "asyncio.Future[None] | None"]


@pytest.fixture(autouse=True)
def _few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_files_module, "_MANY", _MANY)
    monkeypatch.setattr(small_files_module, "_MANY_S", 60)


def _begin(storage: Storage, path: Path, content: bytes) -> "asyncio.Future[None] | None":
    output = storage.outputs(LOCAL)(str(path)[1:])
    output.write(content)
    return output.commit()


@asynccontextmanager
async def _writing(folder: Path) -> AsyncIterator[tuple[SmallFiles, _Put]]:
    """Give what writes a file below a folder, once a process does it."""
    spec = JobSpec(job_name="j", request={}, containers=(), work_dir="/w")
    small = small_files(spec)
    storage = open_storage(spec, small)

    def put(name: str, content: bytes = b"new") -> "asyncio.Future[None] | None":
        return _begin(storage, folder / name, content)

    try:
        for number in range(_MANY):
            assert put(f"first-{number}") is None
        assert small._connecting is not None
        await asyncio.wait_for(small._connecting, 10)
        yield small, put
    finally:
        await small.close()
    assert small._process is not None
    assert small._process.returncode is not None


def _files(folder: Path) -> dict[str, bytes]:
    """All files of a folder but those that were there before there were many."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith("first-")
    }


def test_many_small_files_are_made_by_a_process(tmp_path: Path) -> None:
    async def write() -> None:
        async with _writing(tmp_path) as (_, put):
            made = [put(f"{number}", b"%d" % number) for number in range(ON_THEIR_WAY)]
            assert all(each is not None for each in made)
            assert put("one more than fit") is None
            await asyncio.wait_for(asyncio.gather(*filter(None, made)), 10)
            later = put("later", b"x" * SMALL_BYTES)
            assert later is not None
            assert put("large", b"x" * (SMALL_BYTES + 1)) is None
            await later

    uvloop.run(write())
    assert _files(tmp_path) == {
        **{f"{number}": b"%d" % number for number in range(ON_THEIR_WAY)},
        "one more than fit": b"new",
        "later": b"x" * SMALL_BYTES,
        "large": b"x" * (SMALL_BYTES + 1),
    }


@pytest.mark.parametrize("unnamed", [True, False], ids=["without names", "with names"])
def test_a_file_takes_the_place_of_an_older_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, unnamed: bool
) -> None:
    if not unnamed:
        monkeypatch.setattr(file_writer, "_UNNAMED", 0)
    (tmp_path / "old").write_bytes(b"old")
    for name in "old", "free":
        assert file_writer._make(f"{tmp_path}/{name}", f"{tmp_path}/.temporary", b"new")
    assert _files(tmp_path) == {"old": b"new", "free": b"new"}


def test_what_the_process_cannot_make_the_agent_makes_or_says_why(tmp_path: Path) -> None:
    async def write() -> None:
        async with _writing(tmp_path) as (_, put):
            (tmp_path / "file").touch()
            folder, nowhere = put("new folder/a"), put("file/a")
            assert folder is not None
            assert nowhere is not None
            await asyncio.wait_for(folder, 10)
            with pytest.raises(StorageFailed, match="file/a must be writable, got not a directory"):
                await asyncio.wait_for(nowhere, 10)

    uvloop.run(write())
    assert _files(tmp_path) == {"new folder/a": b"new", "file": b""}


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
def test_no_file_is_lost_with_the_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, end: signal.Signals
) -> None:
    monkeypatch.setattr(small_files_module, "_ANSWER_S", 0.2)

    async def write() -> None:
        async with _writing(tmp_path) as (small, put):
            assert small._process is not None
            first = put("before")
            assert first is not None
            await first
            os.kill(small._process.pid, end)
            made = [put(f"{number}", b"%d" % number) for number in range(20)]
            await asyncio.wait_for(asyncio.gather(*filter(None, made)), 10)
            assert put("after") is None

    uvloop.run(write())
    assert _files(tmp_path) == {
        "before": b"new",
        **{f"{number}": b"%d" % number for number in range(20)},
        "after": b"new",
    }


@pytest.mark.parametrize("is_lost", [False, True])
def test_nothing_stays_of_files_that_are_given_up(tmp_path: Path, *, is_lost: bool) -> None:
    async def write() -> None:
        async with _writing(tmp_path) as (small, put):
            made = [put(f"{number}") for number in range(20)]
            await asyncio.sleep(0)
            for each in made:
                assert each is not None
                each.cancel()
            if is_lost:
                assert small._process is not None
                small._process.kill()

    uvloop.run(write())
    assert _files(tmp_path) == {}


def test_few_files_in_a_time_need_no_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(small_files_module, "_MANY_S", 0)

    async def write() -> None:
        small = small_files(JobSpec(job_name="j", request={}, containers=(), work_dir="/w"))
        for number in range(3 * _MANY):
            assert small.make(f"{tmp_path}/{number}", b"") is None
        assert small._process is None
        await small.close()

    uvloop.run(write())
