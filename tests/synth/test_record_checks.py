"""Where the service writes a line for each record, and where it may write fewer."""

import json
from dataclasses import replace

import pytest
from aws_cdk import Fn

from batch_transform import (
    AssembleWith,
    BatchStrategy,
    DataProcessing,
    JoinSource,
    SplitType,
    TransformSettings,
)
from batch_transform.record_checks import record_checks

CSV, LINES = TransformSettings.csv(), TransformSettings.json_lines()
SINGLE = BatchStrategy.SINGLE_RECORD
JOIN = DataProcessing(join_source=JoinSource.INPUT)


@pytest.mark.parametrize(
    ("settings", "check"),
    [
        pytest.param(CSV, {"gzip": False, "rows_span_lines": True}, id="csv"),
        pytest.param(
            TransformSettings.csv(id_column=0),
            {"gzip": False, "rows_span_lines": False},
            id="csv with a join",
        ),
        pytest.param(LINES, {"gzip": False, "rows_span_lines": False}, id="json lines"),
        pytest.param(
            TransformSettings.json_lines(gzip=True),
            {"gzip": True, "rows_span_lines": False},
            id="gzip",
        ),
        pytest.param(
            replace(LINES, accept="text/csv; charset=utf-8"),
            {"gzip": False, "rows_span_lines": False},
            id="answers in another format of lines",
        ),
        pytest.param(replace(LINES, accept="application/json"), None, id="answers of one document"),
        pytest.param(replace(LINES, accept=None), None, id="answers of any format"),
        pytest.param(replace(LINES, accept=Fn.ref("Accept")), None, id="known at deployment"),
        pytest.param(
            replace(CSV, accept="application/json", batch_strategy=SINGLE),
            {"gzip": False, "rows_span_lines": False},
            id="a line behind the answer to each record",
        ),
        pytest.param(
            replace(LINES, accept="application/json", data_processing=JOIN),
            {"gzip": False, "rows_span_lines": False},
            id="a join of documents",
        ),
        pytest.param(
            replace(CSV, assemble_with=AssembleWith.NONE), None, id="no line behind an answer"
        ),
        pytest.param(
            replace(CSV, split_type=SplitType.NONE, assemble_with=AssembleWith.LINE),
            None,
            id="whole objects",
        ),
        pytest.param(TransformSettings.record_io(accept="text/csv"), None, id="RecordIO"),
        pytest.param(TransformSettings.tf_record("x/y", accept="text/csv"), None, id="TFRecord"),
        pytest.param(TransformSettings.whole_files("image/png"), None, id="images"),
    ],
)
def test_records_are_compared_where_fewer_lines_can_only_be_a_loss(
    settings: TransformSettings, check: dict[str, bool] | None
) -> None:
    assert json.loads(record_checks([settings], wanted=True)) == [check]
    assert json.loads(record_checks([settings], wanted=False)) == [None]
