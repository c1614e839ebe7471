import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transform_engine.errors import BadInput
from transform_engine.packing import LinePacker, Payload, RecordPacker, WholePacker
from transform_engine.splitting import LineSplitter, Splitter, masked_crc32c, splitter


def _pack(
    packer: LinePacker | RecordPacker | WholePacker, data: bytes, piece: int
) -> list[Payload]:
    payloads: list[Payload] = []
    for at in range(0, len(data), piece):
        payloads += packer.feed(data[at : at + piece])
    return [*payloads, *packer.end()]


def _records(limit: int | None, *, single: bool = False, keep: bool = False) -> RecordPacker:
    return RecordPacker(
        LineSplitter(framed=not single),
        prepare=lambda record: record,
        single=single,
        keep=keep,
        limit=limit,
    )


_LINES = st.lists(st.binary(max_size=9).map(lambda line: line.replace(b"\n", b"x")), max_size=12)


@given(_LINES, st.booleans(), st.integers(1, 40))
def test_lines_are_packed_greedily_and_nothing_is_lost(
    lines: list[bytes], ended: bool, piece: int
) -> None:
    data = b"\n".join(lines) + (b"\n" if ended else b"")
    payloads = [payload.body for payload in _pack(_records(10), data, piece)]
    assert b"".join(payloads) == data
    assert all(len(body) <= 10 for body in payloads)
    for body, following in itertools.pairwise(payloads):
        assert len(body) + len(following.split(b"\n")[0]) + following.count(b"\n", 0, 1) > 9


@given(_LINES, st.booleans(), st.integers(1, 40))
def test_packing_without_cutting_gives_the_same_payloads(
    lines: list[bytes], ended: bool, piece: int
) -> None:
    data = b"\n".join(lines) + (b"\n" if ended else b"")
    uncut, cut = _pack(LinePacker(limit=10), data, piece), _pack(_records(10), data, piece)
    assert [payload.body for payload in uncut] == [payload.body for payload in cut]
    assert [payload.size for payload in uncut] == [len(payload.body) for payload in cut]


def test_single_records_go_alone_and_keep_their_original_for_a_join() -> None:
    packer = RecordPacker(
        LineSplitter(framed=False), prepare=bytes.upper, single=True, keep=True, limit=10
    )
    payloads = _pack(packer, b"ab\ncd", 2)
    assert [(p.body, p.kept) for p in payloads] == [(b"AB", (b"ab",)), (b"CD", (b"cd",))]


@pytest.mark.parametrize("packer", [_records(4), _records(4, single=True), LinePacker(limit=4)])
def test_fails_when_one_record_alone_is_over_the_limit(packer: LinePacker | RecordPacker) -> None:
    with pytest.raises(BadInput, match="must have at most MaxPayloadInMB = 4 bytes"):
        _pack(packer, b"a\nbbbbbb\nc\n", 3)


def test_fails_when_a_whole_object_is_over_the_limit_before_all_of_it_is_read() -> None:
    packer = WholePacker(prepare=lambda body: body, keep=False, limit=4)
    list(packer.feed(b"abcd"))
    with pytest.raises(BadInput, match="got at least 5"):
        list(packer.feed(b"e"))


@pytest.mark.parametrize(
    ("cutter", "data"),
    [
        pytest.param(LineSplitter(framed=False), b"a\nbbbbb", id="line"),
        pytest.param(
            splitter("RecordIO", framed=False), struct.pack("<II", 0xCED7230A, 5), id="RecordIO"
        ),
        pytest.param(
            splitter("TFRecord", framed=False),
            (length := struct.pack("<Q", 2**60)) + struct.pack("<I", masked_crc32c(length)),
            id="TFRecord",
        ),
    ],
)
def test_fails_when_a_record_is_over_the_limit_before_all_of_it_is_read(
    cutter: Splitter, data: bytes
) -> None:
    packer = RecordPacker(cutter, prepare=bytes, single=True, keep=False, limit=4)
    with pytest.raises(BadInput, match="got at least"):
        list(packer.feed(data))


@pytest.mark.parametrize("whole", [False, True])
def test_only_what_a_filter_leaves_must_fit_but_what_it_gets_has_an_end(whole: bool) -> None:
    def packer(prepared: bytes) -> RecordPacker | WholePacker:
        if whole:
            return WholePacker(prepare=lambda _: prepared, keep=False, limit=4, filtered=True)
        return RecordPacker(
            LineSplitter(framed=False),
            prepare=lambda _: prepared,
            single=True,
            keep=False,
            limit=4,
            filtered=True,
        )

    assert [payload.body for payload in _pack(packer(b"abcd"), b"x" * 99, 9)] == [b"abcd"]
    with pytest.raises(BadInput, match="must have at most MaxPayloadInMB = 4 bytes, got 5"):
        _pack(packer(b"abcde"), b"x" * 99, 9)
    with pytest.raises(BadInput, match="before its filter"):
        _pack(packer(b""), bytes(101 << 20), 1 << 20)


@pytest.mark.parametrize(
    "packer", [_records(4), LinePacker(limit=4), WholePacker(prepare=bytes, keep=False, limit=4)]
)
def test_an_empty_object_makes_no_request(packer: LinePacker | RecordPacker | WholePacker) -> None:
    assert _pack(packer, b"", 1) == []


def test_an_object_without_a_limit_is_one_payload() -> None:
    assert [p.body for p in _pack(_records(None), b"a\nb\nc", 2)] == [b"a\nb\nc"]
