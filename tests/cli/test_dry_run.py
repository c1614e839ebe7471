import gzip
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from batch_transform_cli.job.dry_run import ObjectPlan, Plan, plan
from batch_transform_cli.job.inputs import find_inputs
from batch_transform_cli.job.request import readings_from, request_from
from transform_engine.spec import JobSpec
from transform_engine.splitting import masked_crc32c
from transform_engine.storage import open_storage

LINES: dict[str, Any] = {"content_type": "text/csv", "split_type": "Line", "assemble_with": "Line"}


def planned(
    home: Path, seen: list[ObjectPlan] | None = None, readings: Sequence[str] = (), **flags: Any
) -> Plan:
    output = str(home.parent / "out")
    request = request_from(None, {"input": str(home), "output": output, **flags})
    spec = JobSpec(
        job_name="job",
        request=request,
        containers=(),
        work_dir=str(home.parent),
        readings=readings_from(readings),
    )
    storage = open_storage(spec)
    on_read = (lambda found: None) if seen is None else seen.append
    return plan(spec, storage, find_inputs(spec, storage), on_read=on_read)


def test_lines_are_counted_and_packed_as_the_engine_packs_them(
    folder: Callable[..., Path],
) -> None:
    home = folder(a_csv="1\n22\n\n4444", b_csv="5\n", c_csv="")
    seen: list[ObjectPlan] = []

    many = planned(home, seen, **LINES)
    single = planned(home, **LINES, batch_strategy="SingleRecord")

    assert [(each.records, each.longest, each.requests) for each in seen] == [
        (4, 4, 1),
        (1, 1, 1),
        (0, 0, 0),
    ]
    assert many.body_sizes == {10: 1, 2: 1}
    assert single.body_sizes == {0: 1, 1: 2, 2: 1, 4: 1}
    assert (single.records, single.requests, single.empty, single.blank) == (5, 5, 1, 1)


def test_readings_of_blank_lines_and_empty_objects_change_the_plan(
    folder: Callable[..., Path],
) -> None:
    home = folder(a_csv="1\n\n2\n", b_csv="")
    seen = planned(
        home, readings=("blank_line_is_record=false", "empty_object_fails=true"), **LINES
    )
    assert (seen.records, seen.blank, seen.body_sizes) == (2, 0, {4: 1})
    assert [each.name for each in seen.failing] == ["b.csv"]


def test_a_filter_makes_what_is_sent_and_not_what_a_record_is(folder: Callable[..., Path]) -> None:
    seen = planned(folder(a_csv="id-1,2\nid-2,3\n"), **LINES, input_filter="$[1:]")
    assert seen.body_sizes == {4: 1}
    assert seen.longest == (6, "a.csv")


def test_an_object_is_one_request_without_a_split_and_streamed_without_a_limit(
    folder: Callable[..., Path],
) -> None:
    home = folder(a_csv="1\n2\n", b_csv="")
    for limit_mb in (None, 0):
        seen = planned(home, content_type="text/csv", max_payload_in_mb=limit_mb)
        assert (seen.records, seen.body_sizes) == (1, {4: 1})


def test_objects_are_dealt_to_instances_in_turn(folder: Callable[..., Path]) -> None:
    home = folder(a_csv="1", b_csv="22", c_csv="333")
    seen = planned(home, **LINES, instance_count=2)
    assert [(each.objects, each.bytes, each.requests) for each in seen.instances] == [
        (2, 4, 2),
        (1, 2, 1),
    ]


def test_gzip_is_read_and_its_size_is_told_as_it_is_stored(folder: Callable[..., Path]) -> None:
    packed = gzip.compress(b"1\n2\n") + gzip.compress(b"3\n")
    seen = planned(folder(a_csv_gz=packed), **LINES, compression_type="Gzip")
    (found,) = seen.objects
    assert (found.records, found.read_bytes, found.size) == (3, 6, len(packed))


def test_records_with_a_header_of_their_own_are_counted(folder: Callable[..., Path]) -> None:
    recordio = struct.pack("<II", 0xCED7230A, 3) + b"abc\0"
    header = struct.pack("<Q", 5)
    tfrecord = header + struct.pack("<I", masked_crc32c(header))
    tfrecord += b"hello" + struct.pack("<I", masked_crc32c(b"hello"))
    for name, kind, data, longest in (
        ("rio", "RecordIO", recordio, 3),
        ("tf", "TFRecord", tfrecord, 5),
    ):
        seen = planned(folder(name, a_bin=2 * data), split_type=kind)
        assert (seen.records, seen.longest[0], seen.body_sizes) == (2, longest, {2 * len(data): 1})


@pytest.mark.parametrize(
    ("content", "flags", "problem"),
    [
        pytest.param(b"x" * 1100000, LINES, "must have at most MaxPayloadInMB", id="long line"),
        pytest.param(b"xy", {"split_type": "RecordIO"}, "record 0 is cut short", id="recordio"),
        pytest.param(b"xy", {"compression_type": "Gzip"}, "Failed to decompress", id="gzip"),
        pytest.param(
            b"1\n", LINES | {"input_filter": "$[5]"}, "Failed to apply InputFilter", id="filter"
        ),
    ],
)
def test_an_object_that_would_fail_says_why_and_the_others_are_planned(
    content: bytes, flags: dict[str, Any], problem: str, folder: Callable[..., Path]
) -> None:
    home = folder(a_csv=content, b_csv=b"")
    seen = planned(home, **{"content_type": "text/csv", "max_payload_in_mb": 1, **flags})
    assert seen.failing_count == 1
    assert problem in str(seen.failing[0].problem)
    assert "Message:" not in str(seen.failing[0].problem)
    assert seen.count == 2


def test_the_longest_record_is_found_also_behind_one_that_is_too_long(
    folder: Callable[..., Path],
) -> None:
    home = folder(a_csv=b"x" * 1_100_000 + b"\n" + b"y" * 2_500_000 + b"\n")
    assert planned(home, **LINES, max_payload_in_mb=1).longest == (2_500_000, "a.csv")


def test_an_object_that_cannot_be_read_fails_alone(
    folder: Callable[..., Path], tmp_path: Path
) -> None:
    home = folder(a_csv="1")
    manifest = tmp_path / "list.json"
    manifest.write_text(f'[{{"prefix": "file://{home}/"}}, "gone.csv", "a.csv"]')
    seen = planned(manifest, **LINES, s3_data_type="ManifestFile")
    assert [each.name for each in seen.failing] == ["gone.csv"]
    assert "must be readable, got no such file" in str(seen.failing[0].problem)
    assert seen.requests == 1


def test_outputs_that_exist_are_counted(folder: Callable[..., Path]) -> None:
    home = folder(a_csv="1", b_csv="2")
    out = folder("out")
    (out / "a.csv.out").touch()
    (out / "other.csv.out").touch()
    assert planned(home, **LINES).replaced == 1
