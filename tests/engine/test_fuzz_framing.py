"""Bytes to records to payloads, whole and damaged, against slow and obvious models.

Whatever the stream and however it is cut into pieces: the records before a damage, then the damage.
"""

import gzip
import itertools
import struct
import zlib
from collections.abc import Callable, Iterator

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from transform_engine.errors import BadInput
from transform_engine.packing import LinePacker, Payload, RecordPacker, WholePacker
from transform_engine.records import Gunzip
from transform_engine.splitting import LineSplitter, Splitter, splitter

_fuzz = settings(derandomize=True, deadline=None)
_SPLITS = ("Line", "RecordIO", "TFRecord")
#: How a stream arrives: sizes of pieces, repeated as long as there is more.
_PIECES = st.lists(st.integers(0, 70), min_size=1, max_size=6).filter(any)


def _pieces(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    at = 0
    for size in itertools.cycle(sizes):
        if at >= len(data):
            return
        yield data[at : at + size]
        at += size


# The formats, as reference §6 tells them.


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x82F63B78 * (crc & 1)
    return crc ^ 0xFFFFFFFF


def _masked(data: bytes) -> bytes:
    crc = _crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32)


def _tfrecord(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + _masked(length) + data + _masked(data)


_MAGIC = struct.pack("<I", 0xCED7230A)


def _recordio_part(data: bytes, flag: int) -> bytes:
    return _MAGIC + struct.pack("<I", flag << 29 | len(data)) + data + bytes(-len(data) % 4)


def _recordio(data: bytes) -> bytes:
    """As MXNet writes it: cut where the data has the magic number."""
    parts = data.split(_MAGIC)
    if len(parts) == 1:
        return _recordio_part(data, 0)
    flags = [1, *[2] * (len(parts) - 2), 3]
    return b"".join(map(_recordio_part, parts, flags))


_FRAME = {"Line": lambda data: data + b"\n", "RecordIO": _recordio, "TFRecord": _tfrecord}


def _splitter(split: str, *, framed: bool) -> Splitter:
    return LineSplitter(framed=framed) if split == "Line" else splitter(split, framed=framed)


_Read = tuple[list[tuple[bytes, bytes]], bool]


def _read(split: str, stream: bytes) -> _Read:
    """Each record's bytes in the stream and its data, and whether the stream is whole."""
    match split:
        case "Line":
            lines = stream.split(b"\n")
            last = [(lines[-1], lines[-1])] if lines[-1] else []
            return [(line + b"\n", line) for line in lines[:-1]] + last, True
        case "RecordIO":
            return _read_recordio(stream)
        case _:
            return _read_tfrecords(stream)


def _read_recordio(stream: bytes) -> _Read:
    records: list[tuple[bytes, bytes]] = []
    start = at = 0
    parts: list[bytes] = []
    while at < len(stream):
        if stream[at : at + 4] != _MAGIC or len(stream) < at + 8:
            return records, False
        word = int.from_bytes(stream[at + 4 : at + 8], "little")
        flag, length = word >> 29, word & (1 << 29) - 1
        end = at + 8 + (length + 3) // 4 * 4
        if end > len(stream) or flag > 3 or (flag in (2, 3)) != bool(parts):
            return records, False
        parts.append(stream[at + 8 : at + 8 + length])
        at = end
        if flag in (0, 3):
            records.append((stream[start:at], _MAGIC.join(parts)))
            parts, start = [], at
    return records, not parts


def _read_tfrecords(stream: bytes) -> _Read:
    records: list[tuple[bytes, bytes]] = []
    at = 0
    while at < len(stream):
        length = int.from_bytes(stream[at : at + 8], "little")
        end = at + 16 + length
        data = stream[at + 12 : end - 4]
        if end > len(stream) or stream[at:end] != _tfrecord(data):
            return records, False
        records.append((stream[at:end], data))
        at = end
    return records, True


_DATA = st.binary(max_size=40) | st.lists(
    st.sampled_from([b"", b"\n", b"\r\n", _MAGIC, _MAGIC[:3], b"\x1f\x8b", b"\xff", b"abcde"]),
    max_size=5,
).map(b"".join)


@st.composite
def _damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """A stream with one damage, or none."""
    at = draw(st.integers(0, len(whole)))
    some = draw(st.binary(min_size=1, max_size=9))
    match draw(st.sampled_from(["none", "cut", "flip", "more", "inserted", "lost"])):
        case "cut":
            return whole[:at]
        case "flip" if at < len(whole):
            flipped = whole[at] ^ 1 << draw(st.integers(0, 7))
            return whole[:at] + bytes((flipped,)) + whole[at + 1 :]
        case "more":
            return whole + some
        case "inserted":
            return whole[:at] + some + whole[at:]
        case "lost":
            return whole[:at] + whole[at + len(some) :]
    return whole


@st.composite
def _streams(draw: st.DrawFn, *splits: str) -> tuple[str, bytes]:
    split = draw(st.sampled_from(splits or _SPLITS))
    records = draw(st.lists(_DATA, max_size=7))
    return split, draw(_damaged(b"".join(map(_FRAME[split], records))))


def _tried(items: Iterator[bytes]) -> tuple[list[bytes], bool]:
    """What came out, and whether it ended well."""
    got = []
    try:
        for item in items:
            got.append(item)
    except BadInput:
        return got, False
    return got, True


@_fuzz
@given(_streams(), _PIECES, st.booleans())
def test_the_records_before_a_damage_come_out_and_then_the_damage(
    stream: tuple[str, bytes], sizes: list[int], framed: bool
) -> None:
    split, data = stream
    expected, whole = _read(split, data)

    def records() -> Iterator[bytes]:
        cutter = _splitter(split, framed=framed)
        for piece in _pieces(data, sizes):
            yield from cutter.feed(piece)
        yield from cutter.end()

    assert _tried(records()) == ([each[0 if framed else 1] for each in expected], whole)


@_fuzz
@given(
    st.lists(st.sampled_from([b"", b"\r", b"a", b"a\r", b"\ra"]), max_size=6),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    _PIECES,
)
@example([b"\r"], False, True, False, [1])
@example([b"a", b"\r"], True, True, True, [2])
def test_a_last_line_without_a_line_feed_is_read_as_the_others_are(
    lines: list[bytes], framed: bool, skip: bool, strip: bool, sizes: list[int]
) -> None:
    data = b"\n".join(lines)
    cutter = LineSplitter(framed=framed, skip_blank=skip, strip_carriage_return=strip)
    got = [line for piece in _pieces(data, sizes) for line in cutter.feed(piece)]
    got += cutter.end()
    expected = []
    for framed_line, line in _read("Line", data)[0]:
        if not (skip and line in (b"", b"\r")):
            kept = line.removesuffix(b"\r") if strip else line
            expected.append(kept + framed_line[len(line) :] if framed else kept)
    assert got == expected


@_fuzz
@given(st.lists(st.binary(max_size=30), min_size=1, max_size=4), st.data())
def test_a_tfrecord_with_one_bit_wrong_is_refused_and_those_before_it_are_not(
    records: list[bytes], data: st.DataObject
) -> None:
    stream = bytearray(b"".join(map(_tfrecord, records)))
    bit = data.draw(st.integers(0, len(stream) * 8 - 1))
    stream[bit // 8] ^= 1 << bit % 8
    ends = itertools.accumulate(16 + len(record) for record in records)
    before = sum(end <= bit // 8 for end in ends)

    def cut() -> Iterator[bytes]:
        cutter = splitter("TFRecord", framed=False)
        yield from cutter.feed(bytes(stream))
        yield from cutter.end()

    assert _tried(cut()) == (records[:before], False)


_Packer = LinePacker | RecordPacker | WholePacker


def _packed(packer: _Packer, data: bytes, sizes: list[int]) -> Iterator[Payload]:
    for piece in _pieces(data, sizes):
        yield from packer.feed(piece)
    yield from packer.end()


def _greedy(records: list[bytes], limit: int) -> list[bytes]:
    payloads: list[bytes] = []
    for record in records:
        if payloads and len(payloads[-1]) + len(record) <= limit:
            payloads[-1] += record
        else:
            payloads.append(record)
    return payloads


def _bodies(payloads: Iterator[Payload]) -> Iterator[bytes]:
    return (payload.body for payload in payloads)


@_fuzz
@given(_streams(), _PIECES, st.integers(1, 90), st.booleans())
@example(("RecordIO", _recordio_part(b"12345678", 0)), [5], 16, False)
@example(("TFRecord", _tfrecord(b"12345678") * 2), [1], 24, False)
@example(("Line", b"12\n3\n"), [1], 3, True)
@example(("Line", b"123"), [1], 3, True)
def test_as_many_records_as_fit_go_together_and_one_that_never_fits_is_refused(
    stream: tuple[str, bytes], sizes: list[int], limit: int, by_line: bool
) -> None:
    split, data = stream
    records, whole = _read(split, data)
    framed = [each[0] for each in records]
    packer: _Packer = RecordPacker(
        _splitter(split, framed=True), prepare=bytes, single=False, keep=False, limit=limit
    )
    if split == "Line" and by_line:
        packer = LinePacker(limit=limit)
    got, well = _tried(_bodies(_packed(packer, data, sizes)))
    fits = all(len(record) <= limit for record in framed)
    assert well == (whole and fits)
    assert all(len(body) <= limit for body in got)
    if well:
        assert got == _greedy(framed, limit)
        assert b"".join(got) == data
    else:
        # Whether those right before the damage go is open (reference §5.4), in order they are.
        before = [*itertools.takewhile(lambda record: len(record) <= limit, framed)]
        assert got == _greedy(before, limit)[: len(got)]


@_fuzz
@given(_streams(), _PIECES, st.integers(1, 90))
def test_single_records_go_alone_without_their_frames(
    stream: tuple[str, bytes], sizes: list[int], limit: int
) -> None:
    split, data = stream
    records, whole = _read(split, data)
    packer = RecordPacker(
        _splitter(split, framed=False), prepare=bytes, single=True, keep=True, limit=limit
    )
    got, well = [], True
    try:
        for payload in _packed(packer, data, sizes):
            assert payload.kept == (payload.body,)
            got.append(payload.body)
    except BadInput:
        well = False
    before = [
        *itertools.takewhile(lambda record: len(record) <= limit, (each[1] for each in records))
    ]
    assert got == before[: len(got)]
    if len(before) == len(records):
        # A record that is said to be too long is refused before it is known to be cut short.
        assert (well, got) == (whole, before)
    else:
        assert not well


@_fuzz
@given(
    _streams("Line"),
    _PIECES,
    st.integers(1, 40),
    st.sampled_from(
        [lambda record: record[:2] + b"\n", lambda record: b"", lambda record: record * 2]
    ),
)
def test_what_a_filter_makes_of_a_record_is_what_must_fit(
    stream: tuple[str, bytes], sizes: list[int], limit: int, filter_: Callable[[bytes], bytes]
) -> None:
    _, data = stream
    made = [filter_(each[0]) for each in _read("Line", data)[0]]
    packer = RecordPacker(
        LineSplitter(framed=True),
        prepare=filter_,
        single=False,
        keep=True,
        limit=limit,
        filtered=True,
    )
    payloads = []
    try:
        for payload in _packed(packer, data, sizes):
            assert payload.body == b"".join(map(filter_, payload.kept))
            payloads.append(payload)
    except BadInput:
        assert any(len(record) > limit for record in made)
    else:
        assert [payload.body for payload in payloads] == _greedy(made, limit)
        assert b"".join(b"".join(payload.kept) for payload in payloads) == data


@_fuzz
@given(st.binary(max_size=90), _PIECES, st.integers(1, 90))
def test_an_object_that_is_not_split_goes_whole_or_not_at_all(
    data: bytes, sizes: list[int], limit: int
) -> None:
    packer = WholePacker(prepare=bytes, keep=False, limit=limit)
    expected = ([data] if data and len(data) <= limit else [], len(data) <= limit)
    assert _tried(_bodies(_packed(packer, data, sizes))) == expected


# Gzip.


def _gunzipped(data: bytes, sizes: list[int]) -> tuple[bytes, bool]:
    """What came out, and whether it ended well."""

    def unpacked() -> Iterator[bytes]:
        unpack = Gunzip()
        for packed in _pieces(data, sizes):
            for piece in unpack.feed(packed):
                assert len(piece) <= 4 << 20
                yield piece
        unpack.end()

    got, well = _tried(unpacked())
    return b"".join(got), well


_MEMBERS = st.lists(
    st.tuples(st.binary(max_size=50) | st.just(b"abc" * 9000), st.sampled_from([0, 1, 9])),
    max_size=4,
)


def _members(members: list[tuple[bytes, int]]) -> bytes:
    return b"".join(gzip.compress(data, level, mtime=0) for data, level in members)


@_fuzz
@given(_MEMBERS, _PIECES)
@example([(b"", 9)], [1])
@example([(b"", 9), (b"a", 9), (b"", 9), (b"b", 9), (b"", 9)], [1])
@example([(bytes(5 << 20), 9), (b"a", 9)], [1 << 20])
def test_all_members_of_a_gzip_are_unpacked(
    members: list[tuple[bytes, int]], sizes: list[int]
) -> None:
    assert _gunzipped(_members(members), sizes) == (b"".join(data for data, _ in members), True)


@_fuzz
@given(_MEMBERS, _PIECES, st.integers(0))
def test_a_gzip_that_is_cut_short_is_refused(
    members: list[tuple[bytes, int]], sizes: list[int], cut: int
) -> None:
    ends = [0, *itertools.accumulate(len(_members([member])) for member in members)]
    packed = _members(members)
    cut %= len(packed) + 1
    whole = b"".join(data for data, _ in members)
    got, well = _gunzipped(packed[:cut], sizes)
    # What ends with a member is whole: nothing says that there was another one.
    assert well == (cut in ends)
    assert whole.startswith(got)


@_fuzz
@given(_MEMBERS.filter(bool), _PIECES, st.binary(min_size=1, max_size=30))
@example([(b"abc", 9)], [100], b"\0")
@example([(b"abc", 9)], [1], b"\x1f")
@example([(b"abc", 9)], [100], b"a,b\n" * 20)
def test_a_gzip_with_something_else_behind_it_is_refused(
    members: list[tuple[bytes, int]], sizes: list[int], behind: bytes
) -> None:
    got, well = _gunzipped(_members(members) + behind, sizes)
    assert not well
    assert b"".join(data for data, _ in members).startswith(got)


@_fuzz
@given(_MEMBERS.filter(bool), _PIECES, st.integers(0))
def test_a_gzip_with_one_bit_wrong_never_gives_other_bytes(
    members: list[tuple[bytes, int]], sizes: list[int], bit: int
) -> None:
    packed = bytearray(_members(members))
    packed[bit // 8 % len(packed)] ^= 1 << bit % 8
    got, well = _gunzipped(bytes(packed), sizes)
    assert not well or got == b"".join(data for data, _ in members)


@_fuzz
@given(st.binary(min_size=1, max_size=60), _PIECES)
@example(zlib.compress(b"abc"), [100])
def test_what_is_no_gzip_is_refused(data: bytes, sizes: list[int]) -> None:
    assume(not data.startswith(b"\x1f\x8b"))
    assert _gunzipped(data, sizes) == (b"", False)


def test_a_gzip_bomb_is_unpacked_in_pieces() -> None:
    bomb = gzip.compress(bytes(64 << 20), 9)
    got, well = _gunzipped(bomb, [1 << 20])
    assert well
    assert len(got) == 64 << 20


@pytest.mark.parametrize("split", _SPLITS)
def test_damage_says_which_record_it_is_in(split: str) -> None:
    stream = b"".join(map(_FRAME[split], (b"a", b"bb", b"cccccc")))
    cutter = RecordPacker(
        _splitter(split, framed=False), prepare=bytes, single=True, keep=False, limit=5
    )
    with pytest.raises(BadInput, match="record 2 "):
        [*_packed(cutter, stream, [1])]
