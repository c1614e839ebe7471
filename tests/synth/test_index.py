from dataclasses import replace
from typing import Any

import pytest
from aws_cdk import Duration

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
    ("arguments", "remedy"),
    [
        pytest.param({"record_id": -1}, "from the left", id="negative column"),
        pytest.param({"record_id": "$.id"}, r"without '\$\.'", id="path"),
        pytest.param({"record_id": ""}, "for example 'id'", id="empty name"),
        pytest.param(
            {"record_id": 0, "retention": Duration.hours(1)}, "for ever", id="short retention"
        ),
    ],
)
def test_fails_when_no_record_could_be_found(arguments: dict[str, Any], remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy):
        PredictionIndex(**arguments)
