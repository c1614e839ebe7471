import csv
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transform_engine.rows import (
    Format,
    NothingThere,
    Rows,
    UnreadableRow,
    join_json,
    parse_csv,
    parse_json,
    write_csv,
    write_json,
)
from transform_engine.spec import Readings
from transform_request.jsonpath import parse

_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
_COLUMN = st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=8).map(
    str.encode
)


@given(st.lists(_COLUMN, min_size=1, max_size=6))
def test_csv_columns_survive_writing_and_reading(columns: list[bytes]) -> None:
    row = write_csv(columns)
    assert parse_csv(row) == columns
    if columns != [b""]:
        theirs = next(csv.reader(io.StringIO(row.decode(), newline="")))
        assert [column.encode() for column in theirs] == columns


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        pytest.param(b'1,a "b" c', 'bare " in non quoted field found near: a "b" c', id="bare"),
        pytest.param(b'"a"b,c', 'extraneous " in field found near', id="text after a quote"),
        pytest.param(b'"a,b', 'unterminated " in quoted field', id="no closing quote"),
    ],
)
def test_fails_when_quotes_are_out_of_place(row: bytes, problem: str) -> None:
    with pytest.raises(UnreadableRow, match=problem):
        parse_csv(row)


def test_a_carriage_return_at_the_end_is_no_part_of_the_last_column() -> None:
    assert parse_csv(b"1,2\r\n") == [b"1", b"2"]


@given(_JSON)
def test_json_keeps_its_value_and_its_members_are_in_byte_order(value: Any) -> None:
    written = write_json(parse_json(json.dumps(value).encode()))
    assert json.loads(written) == value

    def ordered(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name.encode() for name, _ in pairs]
        assert names == sorted(names)
        return dict(pairs)

    json.loads(written, object_pairs_hook=ordered)


@given(
    st.dictionaries(st.text(), _JSON, max_size=4),
    st.sampled_from([None, 1, " "]),
    st.sampled_from([(",", ":"), (" , ", " : ")]),
    st.booleans(),
)
def test_an_object_is_written_the_same_however_it_was_spelled(
    value: dict[str, Any], indent: int | str | None, separators: tuple[str, str], escaped: bool
) -> None:
    spelled = json.dumps(value, indent=indent, separators=separators, ensure_ascii=escaped)
    compact = json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=True)
    written = write_json(parse_json(spelled.encode()))
    assert written == write_json(parse_json(compact.encode()))
    assert written == write_json(parse_json(written))


@given(st.text(alphabet='{}[]":, 01.e-tnu\\', max_size=12).map(lambda text: "{" + text))
def test_what_is_read_as_json_is_json(text: str) -> None:
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(UnreadableRow):
            parse_json(text.encode())
        return
    assert json.loads(write_json(parse_json(text.encode()))) == expected


@pytest.mark.parametrize(
    "number",
    ["1.0", "1e5", "-0", "0.8249409198760986", "9007199254740993", "1" * 40, "1.10", "1E400"],
)
def test_numbers_are_copied_as_they_are_spelled(number: str) -> None:
    assert write_json(parse_json(f'{{"n": {number}}}'.encode())) == f'{{"n":{number}}}'.encode()


@pytest.mark.parametrize(
    "row", [b"{", b"NaN", b"1 2", b"", b'"\xff"', b"[" * 100_000, b'{"a":Infinity}']
)
def test_fails_when_a_row_is_no_json(row: bytes) -> None:
    with pytest.raises(UnreadableRow, match="found near"):
        parse_json(row)


def test_fails_when_text_cannot_be_written() -> None:
    with pytest.raises(UnreadableRow):
        write_json(parse_json(b'"\\ud800"'))


@pytest.mark.parametrize(
    ("kind", "path", "row", "selected"),
    [
        pytest.param("csv", "$[1:]", b"17,1,2", b"1,2", id="csv from the second"),
        pytest.param("csv", "$[0,-1]", b"17,1,2", b"17,2", id="csv first and last"),
        pytest.param("csv", "$[-1]", b"17,1,2", b"2", id="csv one column"),
        pytest.param("csv", "$[1:9]", b"17,1,2", b"1,2", id="csv range past the end"),
        pytest.param("csv", "$[*]", b"17,1", b"17,1", id="csv all"),
        pytest.param("csv", "$[0]", b'"a,b",1', b'"a,b"', id="csv quoted column"),
        pytest.param("json", "$.a", b'{"a":{"c":1,"b":2}}', b'{"b":2,"c":1}', id="member"),
        pytest.param("json", "$['b','a']", b'{"a":1,"b":2,"c":3}', b'{"a":1,"b":2}', id="members"),
        pytest.param("json", "$['a','z']", b'{"a":1}', b'{"a":1}', id="members not all there"),
        pytest.param("json", "$.f.['a']", b'{"f":{"a":"x"}}', b'"x"', id="string keeps quotes"),
        pytest.param("json", "$.id.*", b'{"id":{"b":2,"a":1}}', b"[2,1]", id="wildcard"),
        pytest.param("json", "$.*.a", b'[{"a":1},{"a":2}]', b"[1,2]", id="wildcard and member"),
        pytest.param("json", "$[1:3]", b"[0,1,2,3]", b"[1,2]", id="slice"),
        pytest.param("json", "$[2,0]", b"[0,1,2]", b"[2,0]", id="indexes in the order asked for"),
    ],
)
def test_a_path_selects(kind: Format, path: str, row: bytes, selected: bytes) -> None:
    rows = Rows(kind)
    assert rows.write(rows.select(parse(path), rows.parse(row))) == selected


@pytest.mark.parametrize(
    ("kind", "path", "row"),
    [
        pytest.param("csv", "$[9]", b"1,2", id="column"),
        pytest.param("csv", "$[0,9]", b"1,2", id="column of a list"),
        pytest.param("json", "$.a", b'{"b":1}', id="member"),
        pytest.param("json", "$.a", b"[1]", id="member of an array"),
        pytest.param("json", "$[0]", b'{"b":1}', id="element of an object"),
    ],
)
def test_fails_when_a_path_asks_for_what_is_not_there(kind: Format, path: str, row: bytes) -> None:
    rows = Rows(kind)
    with pytest.raises(NothingThere):
        rows.select(parse(path), rows.parse(row))


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        ("csv", b'1,"a'),
        ("csv", b'1,a "b" c'),
        ("json", b'{"a":'),
        ("json", b"{'a': 1}"),
        ("json", b"\xff"),
        ("json", b"NaN"),
    ],
)
def test_a_check_refuses_what_cannot_be_read(kind: Format, row: bytes) -> None:
    with pytest.raises(UnreadableRow) as checked:
        Rows(kind).check(row)
    with pytest.raises(UnreadableRow) as parsed:
        Rows(kind).parse(row)
    assert str(checked.value) == str(parsed.value)


@pytest.mark.parametrize(
    ("kind", "row"), [("csv", b'1,"a"\r\n'), ("json", b' {"a": [1.50]} \n'), ("json", b"1" * 40)]
)
def test_a_check_takes_what_can_be_read(kind: Format, row: bytes) -> None:
    Rows(kind).check(row)
    Rows(kind).parse(row)


def test_a_slice_can_be_read_with_its_end_included() -> None:
    rows = Rows("csv", Readings(slice_end_included=True))
    row = rows.parse(b"0,1,2,3,4,5")
    assert rows.select(parse("$[1:4]"), row) == [b"1", b"2", b"3", b"4"]
    assert rows.select(parse("$[4:-1]"), row) == [b"4", b"5"]


def test_a_reply_joins_an_object_as_a_member_and_anything_else_beside_it() -> None:
    assert join_json({"k": 1, "SageMakerOutput": 0}, 2) == {"k": 1, "SageMakerOutput": 2}
    assert join_json([1], 2) == {"SageMakerInput": [1], "SageMakerOutput": 2}
