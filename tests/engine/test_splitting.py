import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transform_engine.errors import BadInput
from transform_engine.splitting import (
    LineSplitter,
    RecordIOSplitter,
    Splitter,
    TFRecordSplitter,
    masked_crc32c,
)

_RECORDS = st.lists(st.binary(max_size=40), max_size=8)


def _cut(splitter: Splitter, data: bytes, piece: int) -> list[bytes]:
    records: list[bytes] = []
    for at in range(0, len(data), piece):
        records += splitter.feed(data[at : at + piece])
    return [*records, *splitter.end()]


def _recordio(record: bytes, flag: int = 0) -> bytes:
    head = struct.pack("<II", 0xCED7230A, flag << 29 | len(record))
    return head + record + b"\0" * (-len(record) % 4)


def _tfrecord(record: bytes) -> bytes:
    length = struct.pack("<Q", len(record))
    checksums = struct.pack("<I", masked_crc32c(length)), struct.pack("<I", masked_crc32c(record))
    return length + checksums[0] + record + checksums[1]


@given(st.binary(max_size=200), st.integers(1, 50))
def test_lines_are_what_lies_between_line_feeds_however_the_bytes_arrive(
    data: bytes, piece: int
) -> None:
    expected = data.split(b"\n")
    if expected[-1] == b"":
        expected.pop()
    assert _cut(LineSplitter(framed=False), data, piece) == expected


@given(st.binary(max_size=200), st.integers(1, 50))
def test_framed_lines_put_together_are_the_object(data: bytes, piece: int) -> None:
    assert b"".join(_cut(LineSplitter(framed=True), data, piece)) == data


@given(_RECORDS, st.integers(1, 30))
def test_recordio_comes_out_as_it_went_in(records: list[bytes], piece: int) -> None:
    framed = [_recordio(record) for record in records]
    assert _cut(RecordIOSplitter(framed=False), b"".join(framed), piece) == records
    assert _cut(RecordIOSplitter(framed=True), b"".join(framed), piece) == framed


@given(_RECORDS, st.integers(1, 30))
def test_tfrecords_come_out_as_they_went_in(records: list[bytes], piece: int) -> None:
    framed = [_tfrecord(record) for record in records]
    assert _cut(TFRecordSplitter(framed=False), b"".join(framed), piece) == records
    assert _cut(TFRecordSplitter(framed=True), b"".join(framed), piece) == framed


def test_a_recordio_record_in_parts_is_one_record_with_the_magic_between_them() -> None:
    data = _recordio(b"ab", 1) + _recordio(b"cd", 2) + _recordio(b"ef", 3) + _recordio(b"g")
    magic = struct.pack("<I", 0xCED7230A)
    expected = [magic.join((b"ab", b"cd", b"ef")), b"g"]
    assert _cut(RecordIOSplitter(framed=False), data, 7) == expected
    assert b"".join(_cut(RecordIOSplitter(framed=True), data, 7)) == data


@pytest.mark.parametrize(
    ("splitter", "data", "problem"),
    [
        pytest.param(
            RecordIOSplitter, b"\0\0\0\0\3\0\0\0abc\0", "must start with magic", id="magic"
        ),
        pytest.param(RecordIOSplitter, _recordio(b"12345678")[:-3], "cut short", id="cut"),
        pytest.param(RecordIOSplitter, _recordio(b"a", 1), "cut short", id="a part alone"),
        pytest.param(RecordIOSplitter, _recordio(b"a", 2), "out of order", id="no first part"),
        pytest.param(TFRecordSplitter, _tfrecord(b"abc")[:-1], "cut short", id="cut tfrecord"),
        pytest.param(
            TFRecordSplitter, _tfrecord(b"abc")[:-1] + b"\0", "data that does not", id="data crc"
        ),
        pytest.param(
            TFRecordSplitter, b"\4" + _tfrecord(b"abc")[1:], "length that does not", id="length crc"
        ),
    ],
)
def test_fails_when_framing_is_damaged(
    splitter: type[RecordIOSplitter] | type[TFRecordSplitter], data: bytes, problem: str
) -> None:
    with pytest.raises(BadInput, match=problem):
        _cut(splitter(framed=False), data, 5)


def test_the_checksum_is_tensorflows() -> None:
    # The first record of the vectors' TFRecord object.
    assert _tfrecord(b"abc").hex() == "0300000000000000b099490e616263" + "6e57f121"
