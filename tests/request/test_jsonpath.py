import pytest
from hypothesis import given
from hypothesis import strategies as st

from transform_request import jsonpath
from transform_request.jsonpath import Index, Indexes, Name, Names, Slice, Step, Wildcard


@pytest.mark.parametrize(
    ("expression", "steps"),
    [
        pytest.param("$", (), id="root"),
        pytest.param("$.a", (Name("a"),), id="member"),
        pytest.param("$.a.b", (Name("a"), Name("b")), id="nested member"),
        pytest.param("$['a']", (Name("a"),), id="quoted member"),
        pytest.param("$['a', 'b']", (Names(("a", "b")),), id="several members"),
        pytest.param("$.f.['a','b']", (Name("f"), Names(("a", "b"))), id="bracket after a dot"),
        pytest.param("$.id.*", (Name("id"), Wildcard()), id="wildcard name"),
        pytest.param("$[*]", (Wildcard(),), id="wildcard index"),
        pytest.param("$[3]", (Index(3),), id="index"),
        pytest.param("$[6, -1]", (Indexes((6, -1)),), id="indexes with a space"),
        pytest.param("$[1:4]", (Slice(1, 4),), id="closed range"),
        pytest.param("$[5:]", (Slice(5, None),), id="range to the end"),
        pytest.param("$[:-1]", (Slice(None, -1),), id="range from the start"),
        pytest.param("$['a]b']", (Name("a]b"),), id="bracket in a quoted name"),
    ],
)
def test_an_expression_of_the_subset_is_read(expression: str, steps: tuple[Step, ...]) -> None:
    assert jsonpath.parse(expression).steps == steps


@pytest.mark.parametrize("expression", ["", "a", "$a", "$[", "$[]", "$.", "$[a]", "$['a',]", "$[1"])
def test_fails_when_an_expression_is_malformed(expression: str) -> None:
    with pytest.raises(jsonpath.InvalidJsonPath, match="Invalid JsonPath: ") as refusal:
        jsonpath.parse(expression)
    assert not isinstance(refusal.value, jsonpath.FailsAtRunTime)


@pytest.mark.parametrize("content", ["0:2,246:", "0,5:"])
def test_two_ranges_fail_only_when_the_job_runs_and_in_the_words_of_the_service(
    content: str,
) -> None:
    with pytest.raises(jsonpath.FailsAtRunTime) as refusal:
        jsonpath.parse(f"$[{content}]")
    assert str(refusal.value) == (
        f"Invalid JsonPath: $[{content}]: only single range filters of format (eg: [1:5]) "
        f"are supported. Format [{content}] is not supported"
    )


def test_fails_when_a_bracket_holds_a_nested_path() -> None:
    with pytest.raises(jsonpath.FailsAtRunTime, match=r"nested path 'b\.c'"):
        jsonpath.parse("$['a','b.c']")


def test_an_underscore_is_refused_in_the_words_of_the_service() -> None:
    expression = "$['account_id','SageMakerOutput']"
    with pytest.raises(jsonpath.InvalidJsonPath) as refusal:
        jsonpath.check_characters("OutputFilter", expression, "application/jsonlines")
    assert str(refusal.value) == (
        "Invalid OutputFilter: \"$['account_id','SageMakerOutput']\". Unexpected \"_\" in "
        'JsonPath. Supported operators for "application/jsonlines" are '
        "['$', '[', ']', '*', '.', ' ', ',', ':', '-', ''']"
    )


@given(st.text(alphabet="$.[]*:,'- a1", max_size=20))
def test_any_text_is_read_or_refused_but_never_crashes(expression: str) -> None:
    try:
        path = jsonpath.parse(expression)
    except jsonpath.InvalidJsonPath:
        return
    assert path.text == expression
    assert expression.startswith("$")
