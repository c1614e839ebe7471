from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batch_transform_cli.job.advice import Advice, advise
from batch_transform_cli.job.dry_run import plan
from batch_transform_cli.job.inputs import find_inputs
from batch_transform_cli.job.request import request_from
from batch_transform_cli.job.views import flags as suggested_flags
from transform_engine.spec import JobSpec
from transform_engine.storage import open_storage

LINES = {"content_type": "text/csv", "split_type": "Line", "assemble_with": "Line"}
JSON_LINES = LINES | {"content_type": "application/jsonlines"}


def advised(home: Path, **flags: Any) -> list[Advice]:
    output = str(home.parent / "out")
    request = request_from(None, {"input": str(home), "output": output, **flags})
    spec = JobSpec(job_name="job", request=request, containers=(), work_dir=str(home.parent))
    storage = open_storage(spec)
    seen = plan(spec, storage, find_inputs(spec, storage), on_read=lambda found: None)
    return advise(seen, request)


def test_there_is_nothing_to_say_of_a_job_that_is_well_set(folder: Callable[..., Path]) -> None:
    home = folder(a_csv='1,"a"\n2,b\n', b_csv="3,c\n")
    assert advised(home, **LINES, instance_count=2) == []
    assert advised(folder("json", a_jsonl='{"a": 1}\n{"a": 2}\n'), **JSON_LINES) == []


MB = 2**20
_ONE_RULE_EACH = [
    pytest.param(
        {"a_csv": b"x" * (2 * MB) + b"\n1\n"},
        LINES | {"max_payload_in_mb": 1, "max_concurrent_transforms": 50},
        ("wrong", "MaxPayloadInMB must hold the largest record, got 1 and 2.1 MB in a.csv"),
        "--max-payload-in-mb 3 --max-concurrent-transforms 33",
        id="payload limit below the largest record",
    ),
    pytest.param(
        {"a_csv": b"1\n" * MB},
        {"content_type": "text/csv", "max_payload_in_mb": 1},
        ("wrong", "the largest object, got 1 and 2.1 MB in a.csv; cut objects into their lines"),
        "--split-type Line --assemble-with Line",
        id="payload limit below an object of lines",
    ),
    pytest.param(
        {"a_png": b"x" * (101 * MB)},
        {"content_type": "image/png"},
        ("wrong", "split the object, or send it in chunks if the model takes them"),
        "--max-payload-in-mb 0",
        id="object over every limit",
    ),
    pytest.param(
        {"a_csv": b"x" * (101 * MB)},
        LINES,
        ("wrong", "which no request can carry; make smaller records"),
        "",
        id="record over every limit",
    ),
    pytest.param(
        {"a_csv": "1\n", "b_csv": "1,2\n"},
        LINES | {"input_filter": "$[1]"},
        ("wrong", "got 1 of 2 that would fail, first a.csv"),
        "",
        id="object would fail",
    ),
    pytest.param(
        {"a_csv": b"\x1f\x8b\x08 packed"},
        LINES,
        (
            "wrong",
            "CompressionType must be Gzip for gzip data, got None and such objects, first a.csv",
        ),
        "--compression-type Gzip",
        id="gzip that is not unpacked",
    ),
    pytest.param(
        {"a_csv": "1\n"},
        LINES | {"instance_count": 4},
        ("wasteful", "got 4 and 1: an object is never shared, so 3 would be idle and billed"),
        "--instance-count 1",
        id="one object and four instances",
    ),
    pytest.param(
        {"a_csv": "1\n" * 500, "b_csv": "1\n"},
        LINES | {"instance_count": 2},
        ("wasteful", "got one with 99 % of the bytes, for which the others wait"),
        "",
        id="unequal shares",
    ),
    pytest.param(
        {"a_csv": "1\n" * 200},
        LINES | {"batch_strategy": "SingleRecord", "max_concurrent_transforms": 4},
        ("wasteful", "BatchStrategy should be MultiRecord for records of 1 B, got SingleRecord"),
        "--batch-strategy MultiRecord",
        id="a request for each small record",
    ),
    pytest.param(
        {f"{number}_csv": "1\n" for number in range(100)},
        LINES | {"max_concurrent_transforms": 4},
        ("wasteful", "objects should fill a request of 6 MB, got 100 of about 2 B"),
        "",
        id="many tiny objects",
    ),
    pytest.param(
        {"a_csv": "1\n"},
        {"content_type": "text/csv", "batch_strategy": "MultiRecord"},
        ("doubtful", "BatchStrategy acts only with a SplitType, got MultiRecord and None"),
        "",
        id="strategy without split",
    ),
    pytest.param(
        {f"{number}_png": "x" for number in range(100)},
        {"content_type": "image/png"},
        ("wasteful", "got none and 100 requests on an instance: they go one by one"),
        "",
        id="no concurrency",
    ),
    pytest.param(
        {"a_csv": "1\n"},
        LINES | {"assemble_with": None},
        ("doubtful", "AssembleWith should be Line for SplitType Line, got None"),
        "--assemble-with Line",
        id="Line without AssembleWith",
    ),
    pytest.param(
        {"a_rec": b"\x0a\x23\xd7\xce\x00\x00\x00\x00"},
        {"content_type": "x/y", "split_type": "RecordIO", "assemble_with": "Line"},
        ("doubtful", "AssembleWith should be None for SplitType RecordIO"),
        "--assemble-with None",
        id="line feeds in binary results",
    ),
    pytest.param(
        {"a_csv": "1\n", "b_csv": "1\n"},
        LINES | {"content_type": None},
        ("doubtful", "ContentType should be given, got none"),
        "--content-type text/csv",
        id="no content type",
    ),
    pytest.param(
        {"a_jsonl": "{}\n"},
        {"content_type": "application/jsonlines"},
        ("doubtful", "SplitType should be Line for application/jsonlines"),
        "--split-type Line --assemble-with Line",
        id="JSON Lines in one request",
    ),
    pytest.param(
        {"a_json": '{\n  "a": 1\n}\n'},
        JSON_LINES,
        ("wrong", "every record must be one line for SplitType Line, got a JSON document"),
        "--split-type None",
        id="JSON document cut into lines",
    ),
    pytest.param(
        {"a_csv": "1,2\n3,4\n", "b_csv": "id,age\n1,2\n"},
        LINES,
        ("doubtful", "got one in b.csv that looks like a header: id,age; remove it"),
        "",
        id="header",
    ),
    pytest.param(
        {"a_csv": '1,"two\nlines"\n3,4\n'},
        LINES,
        ("doubtful", "got 2 lines with a quote that stays open"),
        "",
        id="line feed in a field",
    ),
    pytest.param(
        {"a_csv": "1\n\n2\n"},
        LINES,
        ("doubtful", "records should not be empty, got 1 blank line, sent as records"),
        "",
        id="blank line",
    ),
    pytest.param(
        {"a_csv": "1\r\n2\r\n"},
        LINES,
        ("doubtful", "lines should end with LF, got 2 with CR LF"),
        "",
        id="CR LF",
    ),
    pytest.param(
        {"a_csv": "1\n", "_SUCCESS": "1"},
        LINES,
        ("doubtful", "got 1 whose names look like no data, first .SUCCESS"),
        "",
        id="name of no data",
    ),
    pytest.param(
        {"a_csv": "1\n", "b_csv": ""},
        LINES,
        ("doubtful", "objects should hold records, got 1 without a byte"),
        "",
        id="empty object",
    ),
]


@pytest.mark.parametrize(("objects", "flags", "expected", "suggestion"), _ONE_RULE_EACH)
def test_advice_says_what_is_so_and_which_flags_help(
    objects: dict[str, Any],
    flags: dict[str, Any],
    expected: tuple[str, str],
    suggestion: str,
    folder: Callable[..., Path],
) -> None:
    kind, text = expected
    said = advised(folder(**objects), **flags)
    (advice,) = [each for each in said if text in each.text]
    assert advice.kind == kind
    assert suggested_flags(advice.suggest) == suggestion
    # What is not said of this job would else hide in it.
    others = [each.text for each in said if each != advice and "would fail" not in each.text]
    assert others == []


def test_outputs_that_exist_are_told_before_they_are_replaced(
    folder: Callable[..., Path],
) -> None:
    home = folder(a_csv="1\n")
    folder("out", a_csv_out="old")
    (advice,) = advised(home, **LINES)
    assert advice.text.startswith("outputs should be new, got 1 that exist and would be replaced")


def test_a_suggestion_silences_its_advice(folder: Callable[..., Path]) -> None:
    home = folder(a_csv=b"x" * (2 * MB) + b"\n1\n")
    (too_small, _) = advised(home, **LINES, max_payload_in_mb=1)
    mended = {member[-1]: value for member, value in too_small.suggest.items()}
    assert advised(home, **LINES, max_payload_in_mb=mended["MaxPayloadInMB"]) == []


def test_what_fails_objects_is_said_first(folder: Callable[..., Path]) -> None:
    home = folder(a_csv=b"x" * (2 * MB), b_csv="")
    said = advised(home, max_payload_in_mb=1, instance_count=3)
    kinds = [each.kind for each in said]
    assert kinds == sorted(kinds, key=["wrong", "wasteful", "doubtful"].index)
    assert {*kinds} == {"wrong", "wasteful", "doubtful"}
