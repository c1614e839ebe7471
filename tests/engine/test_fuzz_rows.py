"""Rows of CSV and JSON against slow and obvious models: spelling, order, filters, bad bytes."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from transform_engine.json_members import OUTPUT, MemberFilter, Unusual
from transform_engine.records import is_text
from transform_engine.rows import NothingThere, Rows, UnreadableRow, join_csv, join_json, lines
from transform_request.jsonpath import Index, Indexes, Name, Names, Path, Slice, Step, Wildcard

_fuzz = settings(derandomize=True, deadline=None)
_CSV, _JSON = Rows("csv"), Rows("json")


# JSON: a text in some spelling together with the one way to write it (reference §1.7).


@dataclass(frozen=True)
class _Value:
    """A JSON value: how it may be spelled, and its parts.

    :param written: compact, members in byte order, numbers as they are spelled.
    """

    spelled: str
    written: str
    members: dict[str, "_Value"] | None = None
    elements: list["_Value"] | None = None


_BLANKS = st.sampled_from(["", "", "", " ", "\t", "\r", "\n", " \r\n\t"])
_NUMBERS = (
    st.sampled_from(["0", "-0", "1.0", "1.10", "1e5", "1E+05", "1E400", "-1e-400", "0.1e1"])
    | st.sampled_from([2**53 + 1, 2**63, 2**64, -(2**63) - 1, 10**40]).map(str)
    | st.integers().map(str)
    | st.floats(allow_nan=False, allow_infinity=False).map(repr)
)
_SHORT = {
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    '"': '\\"',
    "\\": "\\\\",
}


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02X}" for at in range(0, len(units), 2))


_CHARACTERS = st.sampled_from('"\\/<&>\u2028\x7f\x00\n\U0001f4a5a') | st.characters(codec="utf-8")


def _text(spelling: list[tuple[str, bool]]) -> _Value:
    spelled = written = ""
    for character, escaped in spelling:
        plain = _SHORT.get(character, _escaped(character).lower() if character < " " else character)
        other = "\\/" if character == "/" else _escaped(character)
        spelled += other if escaped else plain
        written += plain
    return _Value(f'"{spelled}"', f'"{written}"')


_TEXTS = st.lists(st.tuples(_CHARACTERS, st.booleans()), max_size=5).map(_text)


def _text_of(name: _Value) -> str:
    return str(json.loads(name.written))


@st.composite
def _array(draw: st.DrawFn, inner: st.SearchStrategy[_Value]) -> _Value:
    elements = draw(st.lists(inner, max_size=4))
    blank = draw(_BLANKS)
    spelled = f"{blank},".join(blank + each.spelled for each in elements)
    written = ",".join(each.written for each in elements)
    return _Value(f"[{spelled}{blank}]", f"[{written}]", elements=elements)


@st.composite
def _object(draw: st.DrawFn, inner: st.SearchStrategy[_Value]) -> _Value:
    names = st.sampled_from(
        ["a", "b", "Z", "aa", "\u00e9", "\uffff", "\U0001f4a5", "", "SageMakerOutput"]
    )
    quoted = _TEXTS | names.map(lambda name: _text([(character, False) for character in name]))
    pairs = draw(st.lists(st.tuples(quoted, inner), max_size=5))
    blank = draw(_BLANKS)
    spelled = f"{blank},".join(
        f"{blank}{name.spelled}{blank}:{blank}{each.spelled}" for name, each in pairs
    )
    # Of members with one name the last one counts.
    members = {_text_of(name): each for name, each in pairs}
    in_order = sorted(members, key=str.encode)
    quotes = {_text_of(name): name.written for name, _ in pairs}
    written = ",".join(f"{quotes[name]}:{members[name].written}" for name in in_order)
    return _Value(f"{{{spelled}{blank}}}", f"{{{written}}}", members=members)


_ATOMS = (
    _TEXTS
    | _NUMBERS.map(lambda spelled: _Value(spelled, spelled))
    | st.sampled_from(["null", "true", "false"]).map(lambda word: _Value(word, word))
)
_VALUES = st.recursive(_ATOMS, lambda inner: _array(inner) | _object(inner), max_leaves=10)


@_fuzz
@given(_VALUES, _BLANKS, _BLANKS)
@example(_Value("9" * 5000, "9" * 5000), "", "")
def test_json_is_written_in_the_one_way_however_it_was_spelled(
    value: _Value, before: str, behind: str
) -> None:
    row = (before + value.spelled + behind).encode()
    _JSON.check(row)
    assert _JSON.write(_JSON.parse(row)) == value.written.encode()


@_fuzz
@given(_VALUES, _VALUES)
def test_a_reply_is_joined_in_the_one_way(value: _Value, reply: _Value) -> None:
    if value.members is None:
        expected = f'{{"SageMakerInput":{value.written},"SageMakerOutput":{reply.written}}}'
    else:
        members = {name: each.written for name, each in value.members.items()}
        members["SageMakerOutput"] = reply.written
        quoted = [
            f"{json.dumps(name, ensure_ascii=False)}:{members[name]}"
            for name in sorted(members, key=str.encode)
        ]
        expected = "{" + ",".join(quoted) + "}"
    joined = join_json(_JSON.parse(value.spelled.encode()), _JSON.parse(reply.spelled.encode()))
    assert _JSON.write(joined) == expected.encode()


# The paths of reference §1.7, as its table tells them.


class _Nothing(Exception):
    """The path selects nothing."""


_NAMES = st.sampled_from(["a", "b", "Z", "aa"])
_INDEXES = st.integers(-3, 3)
_STEPS = (
    _NAMES.map(Name)
    | st.lists(_NAMES, min_size=2, max_size=3, unique=True).map(lambda names: Names(tuple(names)))
    | _INDEXES.map(Index)
    | st.lists(_INDEXES, min_size=2, max_size=3).map(lambda indexes: Indexes(tuple(indexes)))
    | st.builds(Slice, st.none() | _INDEXES, st.none() | _INDEXES)
    | st.just(Wildcard())
)


def _selected(value: _Value, step: Step) -> list[_Value]:
    """What one step selects of one value; raises `_Nothing`."""
    match step:
        case Wildcard() if value.members is not None:
            return [*value.members.values()]
        case Name(name=name) if value.members is not None and name in value.members:
            return [value.members[name]]
        case Names(names=names) if value.members is not None:
            chosen = {name: value.members[name] for name in names if name in value.members}
            written = ",".join(f'"{name}":{chosen[name].written}' for name in sorted(chosen))
            return [_Value("", f"{{{written}}}", members=chosen)]
    if value.elements is None or isinstance(step, Name | Names):
        raise _Nothing
    places = range(len(value.elements))
    match step:
        case Wildcard():
            return value.elements
        case Slice(start=start, end=end):
            return [value.elements[at] for at in places[start:end]]
        case Index(index=index):
            wanted: tuple[int, ...] = (index,)
        case Indexes(indexes=indexes):
            wanted = indexes
    if not all(-len(places) <= index < len(places) for index in wanted):
        raise _Nothing
    return [value.elements[index] for index in wanted]


def _written_path(value: _Value, steps: list[Step]) -> str:
    values, several = [value], False
    for step in steps:
        values = [found for each in values for found in _selected(each, step)]
        several = several or isinstance(step, Wildcard | Slice | Indexes)
    written = [each.written for each in values]
    return f"[{','.join(written)}]" if several else written[0]


_NAMED = st.recursive(
    _ATOMS,
    lambda inner: (
        st.lists(inner, max_size=3).map(
            lambda each: _Value(
                f"[{','.join(value.spelled for value in each)}]",
                f"[{','.join(value.written for value in each)}]",
                elements=each,
            )
        )
        | st.dictionaries(_NAMES, inner, max_size=3).map(
            lambda each: _Value(
                "{" + ",".join(f'"{name}": {each[name].spelled}' for name in each) + "}",
                "{" + ",".join(f'"{name}":{each[name].written}' for name in sorted(each)) + "}",
                members=each,
            )
        )
    ),
    max_leaves=9,
)


@settings(_fuzz, max_examples=300)
@given(_NAMED, st.lists(_STEPS, max_size=3))
def test_a_path_selects_what_its_table_says(value: _Value, steps: list[Step]) -> None:
    path, parsed = Path("$...", tuple(steps)), _JSON.parse(value.spelled.encode())
    try:
        expected = _written_path(value, steps)
    except _Nothing:
        with pytest.raises(NothingThere):
            _JSON.select(path, parsed)
        return
    assert _JSON.write(_JSON.select(path, parsed)) == expected.encode()


# What is no JSON, or cannot be written.


def _ends_well(row: bytes) -> bytes | None:
    """What is written of a row; None if it cannot be read or written, and said so."""
    try:
        value = _JSON.parse(row)
    except UnreadableRow:
        with pytest.raises(UnreadableRow, match="found near"):
            _JSON.check(row)
        return None
    _JSON.check(row)
    try:
        return _JSON.write(value)
    except UnreadableRow:
        return None


@st.composite
def _damaged(draw: st.DrawFn, value: _Value) -> bytes:
    row = bytearray(value.spelled.encode())
    at = draw(st.integers(0, len(row)))
    row[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2) | _WRONG)
    return bytes(row)


_WRONG = st.sampled_from(
    [
        b"NaN",
        b"-",
        b"+1",
        b"01",
        b"1.",
        b"e",
        b"Infinity",
        b"'",
        b"\\ud800",
        b"\\q",
        b"}",
        b",",
        b"\x01",
    ]
)


def _loaded(text: str) -> Any:
    """Python's reading with numbers as they are spelled; what it takes beyond JSON has no value."""
    return json.loads(text, parse_int=str, parse_float=str, parse_constant=lambda _: object())


@_fuzz
@given(_VALUES.flatmap(_damaged))
def test_damaged_json_is_read_as_json_or_refused(row: bytes) -> None:
    written = _ends_well(row)
    if written is not None:
        text = row.decode()
        assert _loaded(written.decode()) == _loaded(text)


_PICKED = st.sampled_from(
    [(Name("a"),), (Names(("a", "b")),), (Names(("SageMakerOutput", "a")),), (Name(OUTPUT),)]
)
_MAYBE_DAMAGED = _VALUES.map(lambda value: value.spelled.encode()) | _VALUES.flatmap(_damaged)
_LINES = _object(_VALUES).map(lambda value: value.spelled.encode()) | _MAYBE_DAMAGED
# A request and its reply, of one or a few lines each.
_BODIES = (
    st.lists(st.tuples(_LINES, _MAYBE_DAMAGED), min_size=1, max_size=3)
    .map(lambda pairs: (b"\n".join(p[0] for p in pairs), b"\n".join(p[1] for p in pairs)))
    .filter(lambda bodies: all(map(is_text, bodies)))
)


def _parsed_and_filtered(path: Path, line: bytes, reply: bytes | None = None) -> bytes | None:
    try:
        value = _JSON.parse(line)
        if reply is not None:
            value = join_json(value, _JSON.parse(reply))
        return _JSON.write(_JSON.select(path, value))
    except (UnreadableRow, NothingThere):
        return None


@settings(_fuzz, max_examples=300)
@given(_LINES.filter(is_text), _PICKED)
@example(b'{"\\u0061":1,"a":2}', (Name("a"),))
@example(b'{"a":2,"\\u0061":1}', (Name("a"),))
@example(b'{"b":"\\ud800","a":1}', (Name("a"),))
@example(b'{"a":"\\ud800"}', (Name("a"),))
@example(b'{"b":"\x01","a":1}', (Name("a"),))
@example(b'{"b":01,"a":1}', (Name("a"),))
@example(b'{"a":1}\x00', (Name("a"),))
def test_what_is_picked_without_parsing_is_what_parsing_finds(
    line: bytes, steps: tuple[Name | Names]
) -> None:
    path = Path("$...", steps)
    picking = MemberFilter.of(path)
    assert picking is not None
    try:
        picked = picking.filter(line)
    except Unusual:
        return  # Then it is parsed.
    assert picked == _parsed_and_filtered(path, line)


@settings(_fuzz, max_examples=300)
@given(_BODIES, _PICKED)
@example((b'{"a":1}', b'"\\ud800"'), (Name("a"),))
@example((b'{"a":1}', b"01"), (Name(OUTPUT),))
@example((b'{"a":1}', b'"\x01"'), (Names(("a", OUTPUT)),))
@example((b'{"a":1,"SageMakerOutput":2}', b"3"), (Names(("a", OUTPUT)),))
@example((b'{"a":1}', b" 1.50 "), (Name(OUTPUT),))
@example((b'{"a":1}', b""), (Name("a"),))
@example((b'{"a":1}\r\n{"a":2}\r\n', b"1\r\n2\r\n"), (Names(("a", OUTPUT)),))
@example((b'{"a":1}{"a":2}\n{"a":3\n}', b"1\n2\n3"), (Names(("a", OUTPUT)),))
@example((b'{"a":1}\n{"a":2}{"a":\n3}\n', b"1\n2\n3\n"), (Names(("a", OUTPUT)),))
@example((b'{"a":1}\n\n{"a":2}\n', b"1\n2\n"), (Names(("a", OUTPUT)),))
@example((b'{"a":1}\n{"a":2}\n', b"1 2\n"), (Names(("a", OUTPUT)),))
@example((b'{"a":1}\n{"a":2}\n', b"[1,\n2]\n3"), (Names(("a", OUTPUT)),))
@example((b'{"a":1}\n{"a":2}\n{"a":3}', b"[1,\n2]\n3 4"), (Names(("a", OUTPUT)),))
def test_what_is_joined_without_parsing_is_what_parsing_joins(
    bodies: tuple[bytes, bytes], steps: tuple[Name | Names]
) -> None:
    body, reply = bodies
    path = Path("$...", steps)
    picking = MemberFilter.of(path)
    assert picking is not None
    try:
        written = picking.write_joined(picking.read(lines(body)), reply)
    except Unusual:
        return  # Then they are parsed.
    pairs = zip(lines(body), lines(reply), strict=True)
    assert written.split(b"\n") == [*(_parsed_and_filtered(path, *pair) for pair in pairs), b""]


@pytest.mark.parametrize("depth", [200, 254, 255, 256, 990, 1024, 1025, 3000, 200_000])
@pytest.mark.parametrize(("start", "end"), [("[", "]"), ('{"a":', "}"), ('[{"a":[1.50,', "]}]")])
@pytest.mark.parametrize("closed", [True, False])
def test_deep_json_is_written_or_refused(depth: int, start: str, end: str, closed: bool) -> None:
    row = f"{start * depth}1.50{end * depth if closed else ''}".encode()
    written = _ends_well(row)
    assert written in (None, row)
    if closed and depth * (len(end)) <= 200:
        assert written == row


@_fuzz
@given(st.sampled_from(["\\ud800", "\\uDFFF", "\\udc00\\ud800", "\\ud83dx"]), st.booleans())
def test_half_a_surrogate_pair_is_refused_wherever_it_is(escape: str, in_name: bool) -> None:
    text = f'{{"{escape}":1}}' if in_name else f'{{"a":["{escape}"]}}'
    assert _ends_well(text.encode()) is None
    with pytest.raises((NothingThere, UnreadableRow)):
        _JSON.select(Path("$.b", (Name("b"),)), _JSON.parse(text.encode()))


@_fuzz
@given(st.binary(min_size=1, max_size=8).filter(lambda data: not _is_utf8(data)))
@example(b"\xed\xa0\x80")
@example(b"\xc0\xaf")
@example(b"\xff\xfe1\x00")
def test_json_that_is_no_utf8_is_refused(bad: bytes) -> None:
    for row in (b'"' + bad + b'"', bad, b'{"' + bad + b'":1.0}'):
        assert _ends_well(row) is None


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_a_byte_order_mark_is_no_json() -> None:
    assert _ends_well(b"\xef\xbb\xbf1") is None


# CSV: RFC 4180 with any bytes, and quotes taken strictly (reference §1.7, §4).


def _csv_columns(row: bytes) -> list[bytes] | None:
    """The columns, read byte by byte; None if a quote is out of place."""
    row = row.removesuffix(b"\n").removesuffix(b"\r")
    columns = [b""]
    state = "start"
    for byte in (bytes((value,)) for value in row):
        match state, byte:
            case (("start" | "plain" | "closed"), b","):
                columns.append(b"")
                state = "start"
            case "start", b'"':
                state = "quoted"
            case "quoted", b'"':
                state = "closed"
            case "closed", b'"':
                columns[-1] += b'"'
                state = "quoted"
            case ("plain", b'"') | ("closed", _):
                return None
            case _:
                columns[-1] += byte
                state = "quoted" if state == "quoted" else "plain"
    return None if state == "quoted" else columns


_CSV_ROWS = st.lists(
    st.sampled_from(
        [b'"', b'"', b",", b",", b"a", b"1.0", b" ", b"\r", b"\xff", b"\0", b"\xc3\xa9"]
    ),
    max_size=12,
).map(b"".join)


@settings(_fuzz, max_examples=400)
@given(_CSV_ROWS, st.sampled_from([b"", b"\n", b"\r\n"]))
def test_a_csv_row_is_read_byte_by_byte_or_refused(row: bytes, end: bytes) -> None:
    expected = _csv_columns(row + end)
    if expected is None:
        for read in (_CSV.parse, _CSV.check):
            with pytest.raises(UnreadableRow, match=r'" in .*field found near'):
                read(row + end)
    else:
        _CSV.check(row + end)
        assert _CSV.parse(row + end) == expected


@_fuzz
@given(st.lists(st.binary(max_size=6), min_size=1, max_size=5), st.lists(st.binary(max_size=3)))
def test_joined_columns_are_quoted_only_where_they_must_be(
    row: list[bytes], reply: list[bytes]
) -> None:
    written = _CSV.write(join_csv(row, reply))
    columns = [*row, *reply]
    expected = [
        b'"%s"' % each.replace(b'"', b'""') if {*b'",\r\n'} & {*each} else each for each in columns
    ]
    assert written == b",".join(expected)


_CSV_FILTERS: list[tuple[Step, Callable[[list[Any]], list[Any]]]] = [
    (Index(0), lambda row: [row[0]]),
    (Index(-2), lambda row: [row[-2]]),
    (Indexes((2, 0, -1)), lambda row: [row[2], row[0], row[-1]]),
    (Slice(1, None), lambda row: row[1:]),
    (Slice(None, 2), lambda row: row[:2]),
    (Slice(-2, -1), lambda row: row[-2:-1]),
    (Slice(5, 2), lambda row: []),
    (Wildcard(), lambda row: row),
]


@_fuzz
@given(st.lists(st.binary(max_size=4), min_size=1, max_size=5), st.sampled_from(_CSV_FILTERS))
def test_a_path_selects_columns(
    row: list[bytes], filter_: tuple[Step, Callable[[list[Any]], list[Any]]]
) -> None:
    step, columns = filter_
    path = Path("$[...]", (step,))
    try:
        expected = columns(row)
    except IndexError:
        with pytest.raises(NothingThere):
            _CSV.select(path, row)
        return
    assert _CSV.select(path, row) == expected


# Replies.


@_fuzz
@given(st.lists(st.sampled_from([b"", b"a", b"1,2", b"\xff", b"\r", b"\r\r"])), st.booleans())
def test_a_reply_has_a_line_for_each_line_feed_and_one_for_what_is_behind_the_last(
    rows: list[bytes], ended: bool
) -> None:
    body = b"\n".join(rows) + (b"\n" if rows and (ended or not rows[-1]) else b"")
    assert lines(body) == [row[:-1] if row[-1:] == b"\r" else row for row in rows]
