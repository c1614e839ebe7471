from dataclasses import replace
from typing import Any

import jsii
import pytest
from aws_cdk import Duration, IStableStringProducer, Lazy

from batch_transform import PredictionIndex, TransformSettings


@pytest.mark.parametrize(
    ("index", "settings", "record_format"),
    [
        pytest.param(PredictionIndex(record_id=0), TransformSettings.csv(), "csv", id="csv"),
        pytest.param(
            PredictionIndex(record_id="id"), TransformSettings.json_lines(), "jsonlines", id="json"
        ),
        pytest.param(
            PredictionIndex(record_id="id"),
            replace(TransformSettings.csv(), accept="application/jsonlines"),
            "jsonlines",
            id="the answers' format counts",
        ),
        pytest.param(
            PredictionIndex(record_id=2),
            TransformSettings(content_type="text/csv; charset=utf-8"),
            "csv",
            id="parameters of the type do not count",
        ),
    ],
)
def test_the_format_follows_the_content_type(
    index: PredictionIndex, settings: TransformSettings, record_format: str
) -> None:
    assert index.record_format(settings) == record_format


@pytest.mark.parametrize(
    ("place", "steps"),
    [
        pytest.param("id", ["id"], id="a name"),
        pytest.param("customer.id", ["customer.id"], id="a name with a dot"),
        pytest.param("$.customer.id", ["customer", "id"], id="path"),
        pytest.param("$['a b'].id", ["a b", "id"], id="quoted name"),
        pytest.param("$.scores[0][-1]", ["scores", 0, -1], id="positions"),
    ],
)
def test_a_place_in_a_json_record_is_a_name_or_a_path(place: str, steps: list[int | str]) -> None:
    index = PredictionIndex(record_id=place, value=place)

    assert index.id_place == steps
    assert index.value_place == steps


def test_a_name_that_only_deployment_knows_is_taken_for_a_name() -> None:
    name = Lazy.string(AnyName())

    assert PredictionIndex(record_id=name).id_place == [name]


@jsii.implements(IStableStringProducer)
class AnyName:
    def produce(self) -> str:
        return "id"


@pytest.mark.parametrize(
    ("value", "place"),
    [
        pytest.param(None, None, id="default"),
        pytest.param(-1, -1, id="column"),
        pytest.param((1, 3), [1, 3], id="columns"),
    ],
)
def test_what_is_kept_of_a_row_is_a_column_or_several(value: Any, place: Any) -> None:
    index = PredictionIndex(record_id=0, value=value)

    assert index.value_place == place
    assert index.record_format(TransformSettings.csv()) == "csv"


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        pytest.param({"record_id": "$"}, r"inside the record, got '\$'", id="all of the record"),
        pytest.param({"record_id": ""}, "path of names and positions, got ''", id="empty name"),
        pytest.param({"record_id": "$.a.*"}, r"got '\$\.a\.\*'; write for", id="wildcard"),
        pytest.param({"record_id": "$[0:2]"}, r"or '\$\.scores\[0\]'", id="range"),
        pytest.param({"record_id": "$['a','b']"}, "path of names and positions", id="two names"),
        pytest.param({"record_id": "$..id"}, r"got '\$\.\.id'; write", id="malformed"),
        pytest.param({"record_id": "id", "value": "$.a["}, "value must be", id="value, malformed"),
        pytest.param({"record_id": 0, "value": []}, "leave it out to keep all", id="no columns"),
        pytest.param(
            {"record_id": 0, "retention": Duration.hours(1)}, "for ever", id="short retention"
        ),
    ],
)
def test_fails_when_no_record_could_be_found(arguments: dict[str, Any], remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy):
        PredictionIndex(**arguments)


@pytest.mark.parametrize(
    ("index", "settings", "remedy"),
    [
        pytest.param(
            PredictionIndex(record_id="id"),
            TransformSettings.csv(),
            "record_id must be a column number for text/csv, got 'id'; write for example 0",
            id="name in a row",
        ),
        pytest.param(
            PredictionIndex(record_id=0, value="$.p"),
            TransformSettings.csv(),
            "value must be a column number for text/csv",
            id="path in a row",
        ),
        pytest.param(
            PredictionIndex(record_id="id", value=[0]),
            TransformSettings.json_lines(),
            "value must be a member's name or path for application/jsonlines, got",
            id="columns in JSON",
        ),
    ],
)
def test_fails_when_a_place_is_of_the_other_format(
    index: PredictionIndex, settings: TransformSettings, remedy: str
) -> None:
    with pytest.raises(ValueError, match=remedy):
        index.record_format(settings)
