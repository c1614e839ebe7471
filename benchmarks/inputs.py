"""Makes input files: every record is different, all of a file have the same length."""

import random
from collections.abc import Iterable, Iterator
from pathlib import Path

CSV_BYTES = 100  # a line with its line feed
JSON_BYTES = 250
OBJECT_BYTES = 1024
_BLOCK = 20_000
_TAILS = 997  # prime, so that no payload looks like the one before it


def csv_lines(count: int) -> Iterator[bytes]:
    """Return lines of numbers whose first column counts, in blocks of many."""
    random_numbers = random.Random(0)
    tails = []
    for _ in range(_TAILS):
        columns = [f"{random_numbers.uniform(-9, 9):+.4f}" for _ in range(11)]
        tail = "," + ",".join(columns)
        tails.append(tail.ljust(CSV_BYTES - 11, "7").encode() + b"\n")
    yield from _blocks(count, b"%010d", tails)


def json_lines(count: int) -> Iterator[bytes]:
    """Return compact JSON objects with sorted members, in blocks of many."""
    random_numbers = random.Random(0)
    tails = []
    for _ in range(_TAILS):
        # No trailing zeros: what parses a number and writes it again must write the same.
        features = [f"{random_numbers.randint(10**4, 10**5 - 1) / 1e5:.5f}3" for _ in range(18)]
        tail = f'","values":[{",".join(features)}],"word":"'
        tails.append(tail.ljust(JSON_BYTES - 20, "w").encode() + b'"}\n')
    yield from _blocks(count, b'{"id":"%010d', tails)


def _blocks(count: int, head: bytes, tails: list[bytes]) -> Iterator[bytes]:
    for first in range(0, count, _BLOCK):
        numbers = range(first, min(first + _BLOCK, count))
        yield b"".join([head % number + tails[number % _TAILS] for number in numbers])


def write(path: Path, blocks: Iterable[bytes]) -> Path:
    """Write a file, make its folder if need be, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for block in blocks:
            file.write(block)
    return path


def write_objects(folder: Path, count: int) -> None:
    """Write `count` files of a kilobyte."""
    folder.mkdir(parents=True, exist_ok=True)
    filler = random.Random(0).randbytes(OBJECT_BYTES)
    for number in range(count):
        (folder / f"{number:08}.bin").write_bytes((b"%08d" % number + filler)[:OBJECT_BYTES])
