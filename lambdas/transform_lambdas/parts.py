"""Cuts objects into parts of about equal bytes, and an object's bytes into lines."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def cut(
    objects: Iterable[tuple[T, int]],
    *,
    part_bytes: int,
    most_parts: int,
    most_ranges: int,
    whole: bool = False,
) -> list[list[tuple[T, int, int]]]:
    """Pack small objects together and cut big ones; return parts of (object, start, end) in bytes.

    :param objects: each with its bytes.
    :param part_bytes: that a part has, or as many more as it takes to have at most `most_parts` of
        them by bytes.
    :param most_ranges: of a part, however small they are.
    :param whole: no object is cut, so a part may be longer by one of them.
    """
    objects = list(objects)
    part_bytes = max(part_bytes, -(-sum(size for _, size in objects) // most_parts))
    done: list[list[tuple[T, int, int]]] = []
    part: list[tuple[T, int, int]] = []
    room = part_bytes
    for each, size in objects:
        start = 0
        while start < size:
            end = size if whole else min(start + room, size)
            part.append((each, start, end))
            room -= end - start
            start = end
            if room <= 0 or len(part) == most_ranges:
                done.append(part)
                part, room = [], part_bytes
    if part:
        done.append(part)
    return done


def lines_in(chunks: Iterable[bytes], *, start: int, end: int, longest: int) -> Iterator[bytes]:
    """Yield the lines whose first byte lies in [start, end), without their line ends.

    :param chunks: the object's bytes from `max(start - 1, 0)` on, read no further than needed.
    :param longest: of a longer line something longer than this comes, not all of it, so that no
        line needs more memory than that and a chunk.
    """
    position = max(start - 1, 0)
    # The byte before a range tells whether a line begins with it, or further on.
    skipping = start > 0
    rest = b""
    left_out = 0  # bytes of the line that `rest` begins
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if not skipping:
                if position >= end:
                    return
                yield line.removesuffix(b"\r")
            skipping = False
            position += left_out + len(line) + 1
            left_out = 0
        if not skipping and position >= end:
            return
        if len(rest) > longest + 2:  # one that a line end may take off, and one too many
            left_out += len(rest) - longest - 2
            rest = rest[: longest + 2]
    if rest and not skipping and position < end:
        yield rest.removesuffix(b"\r")
