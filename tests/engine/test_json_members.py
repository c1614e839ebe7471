"""Picking members must do what parsing does, or say that it cannot."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transform_engine.json_members import MemberFilter, Unusual
from transform_engine.rows import NothingThere, Rows, UnreadableRow, join_json
from transform_request.jsonpath import parse

_ROWS = Rows("json")
_NAMES = ["id", "b", "A", "é", 'q"', "100%b", "SageMakerOutput"]
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_NAMES), inner, max_size=3)
    ),
    max_leaves=8,
)
_OBJECTS = st.dictionaries(st.sampled_from(_NAMES), _VALUES, max_size=6)
_PATHS = st.sampled_from(
    ["$.id", "$['b','id']", "$['id','SageMakerOutput']", "$.SageMakerOutput", "$['A','100%b','é']"]
)


def _filter(expression: str) -> MemberFilter:
    made = MemberFilter.of(parse(expression))
    assert made is not None
    return made


def _spelled(value: object, spaced: bool, escaped: bool) -> bytes:
    separators = (", ", ": ") if spaced else (",", ":")
    return json.dumps(value, separators=separators, ensure_ascii=escaped).encode()


@given(_OBJECTS, _PATHS, st.booleans(), st.booleans())
def test_members_are_picked_as_parsing_would_pick_them(
    value: dict[str, object], expression: str, spaced: bool, escaped: bool
) -> None:
    line = _spelled(value, spaced, escaped)
    try:
        picked = _filter(expression).filter(line)
    except Unusual:
        return  # Then it is parsed.
    assert picked == _ROWS.write(_ROWS.select(parse(expression), _ROWS.parse(line)))


@given(
    st.lists(st.tuples(_OBJECTS, _VALUES), min_size=1, max_size=4),
    _PATHS,
    st.booleans(),
    st.booleans(),
)
def test_joined_records_are_filtered_as_parsing_would_filter_them(
    pairs: list[tuple[dict[str, object], object]], expression: str, spaced: bool, escaped: bool
) -> None:
    lines = [_spelled(record, spaced, escaped) for record, _ in pairs]
    replies = [_spelled(reply, spaced, escaped) for _, reply in pairs]
    picking = _filter(expression)
    try:
        written = picking.write_joined(picking.read(lines), replies)
    except Unusual:
        return  # Then they are parsed.
    assert written == [
        _ROWS.write(
            _ROWS.select(parse(expression), join_json(_ROWS.parse(line), _ROWS.parse(reply)))
        )
        for line, reply in zip(lines, replies, strict=True)
    ]


@pytest.mark.parametrize(
    ("line", "picked"),
    [
        pytest.param(b'{"id":1.50,"x":[1,{"y":2}]}', b"1.50", id="a number keeps its spelling"),
        pytest.param(b'{"id":9007199254740993}', b"9007199254740993", id="2^53+1"),
        pytest.param(b'{"id": [2, {"b":1, "a":-0}]}', b'[2,{"a":-0,"b":1}]', id="compact, sorted"),
        pytest.param(b'{"id":"\\u00e9\\/"}', '"é/"'.encode(), id="no escapes"),
        pytest.param(b'{"id":1,"id":2}', b"2", id="the last of two"),
        pytest.param(b' {"id":true}\r', b"true", id="white space"),
    ],
)
def test_what_is_picked_is_written_anew_only_where_it_must_be(line: bytes, picked: bytes) -> None:
    assert _filter("$.id").filter(line) == picked


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b'{"x":1}', id="no such member"),
        pytest.param(b'[{"id":1}]', id="no object"),
        pytest.param(b'{"id":1}{"id":2}', id="two values"),
        pytest.param(b"", id="blank"),
        pytest.param(b'{"id":1,"x":NaN}', id="no JSON"),
        pytest.param(b'{"id":' + b"[" * 100_000, id="endless depth"),
    ],
)
def test_what_picking_cannot_tell_is_left_to_parsing(line: bytes) -> None:
    with pytest.raises(Unusual):
        _filter("$.id").filter(line)
    with pytest.raises((UnreadableRow, NothingThere)):
        _ROWS.select(parse("$.id"), _ROWS.parse(line))


def test_a_reply_that_is_no_json_is_left_to_parsing_also_where_the_filter_drops_it() -> None:
    picking = _filter("$.id")
    with pytest.raises(Unusual):
        picking.write_joined(picking.read([b'{"id":1}']), [b"oops"])


@pytest.mark.parametrize("expression", ["$", "$.a.b", "$[0]", "$.*", "$['a','b'][0]"])
def test_paths_that_do_more_than_pick_members_are_not_picked(expression: str) -> None:
    assert MemberFilter.of(parse(expression)) is None
