"""Picking members, case by case; test_fuzz_rows.py holds it to parsing."""

import pytest

from transform_engine.json_members import MemberFilter, Unusual
from transform_engine.rows import NothingThere, Rows, UnreadableRow
from transform_request.jsonpath import parse

_ROWS = Rows("json")


def _filter(expression: str) -> MemberFilter:
    made = MemberFilter.of(parse(expression))
    assert made is not None
    return made


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
        picking.write_joined(picking.read([b'{"id":1}']), b"oops")


@pytest.mark.parametrize("expression", ["$", "$.a.b", "$[0]", "$.*", "$['a','b'][0]"])
def test_paths_that_do_more_than_pick_members_are_not_picked(expression: str) -> None:
    assert MemberFilter.of(parse(expression)) is None
