"""The command `drop`: what it shows, sends to a real S3, and follows in a real ledger."""

import json
import os
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from batch_transform_cli.drop import steps as drop_steps
from batch_transform_cli.drop.files import Plan, Upload, Watched, plan
from batch_transform_cli.drop.follow import Following, find, follow
from batch_transform_cli.drop.upload import Sent, UploadProgress, Version, existing, send
from batch_transform_cli.errors import CommandError, Interrupted
from batch_transform_cli.pipelines.client import PipelineClient
from batch_transform_cli.pipelines.records import Drop
from local_cloud import LocalCloud
from transform_lambdas.drops import Drop as LedgerDrop
from transform_lambdas.ledger import Ledger

Command = Callable[..., Any]
DROPS = {"input-bucket": "drops"}
MIB = 1024 * 1024
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
VERSION = Version(etag="e", version_id="v1", at=NOON)
DONE = Drop(
    key="input/a.csv",
    status="done",
    size=4,
    attempts=1,
    run_id="churn-1-r1",
    dropped_at="2026-03-01T11:59:57.000Z",
    reason="",
    order="1",
    waiting_since="",
    failed_at="",
    etag="e",
    version_id="v1",
    output_key="predictions/input/a.csv.out",
)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    home = tmp_path / "files"
    (home / "eu").mkdir(parents=True)
    (home / "a.csv").write_text("1,2\n")
    (home / "eu" / "b.csv").write_text("3,4\n")
    (home / ".hidden").write_text("x")
    return home


# What is shown


@pytest.fixture
def bucket(publish: Any) -> Any:
    publish("churn-1", **DROPS, settings=json.dumps({"marker": "_SUCCESS"}))
    bucket = boto3.resource("s3").Bucket("drops")
    bucket.create()
    return bucket


def test_a_dry_run_shows_what_is_new_and_what_is_replaced_and_sends_nothing(
    bucket: Any, files: Path, batch_transform: Command
) -> None:
    bucket.put_object(Key="input/a.csv", Body=b"an older version")

    ended = batch_transform("drop", files, "--dry-run", "--marker")

    assert ended.code == 0
    lines = [line.split() for line in ended.out.splitlines()]
    assert ["input/a.csv", "4", "B", "replaces", "16", "B"] in lines
    assert ["input/eu/b.csv", "4", "B", "new"] in lines
    assert ["input/_SUCCESS", "0", "B", "new"] in lines
    assert f"left out: {files}/.hidden (hidden)" in ended.out
    assert "1 object replaced: a version that still waits is superseded" in ended.out
    assert ended.out.splitlines()[-1] == "3 files, 8 B, would be sent to s3://drops"
    assert [found.key for found in bucket.objects.all()] == ["input/a.csv"]


def test_a_dry_run_tells_programs_the_same(
    bucket: Any, files: Path, batch_transform: Command
) -> None:
    bucket.put_object(Key="input/a.csv", Body=b"an older version")

    told = batch_transform("drop", files, "--dry-run", "--json").document

    assert (told["pipeline"], told["bucket"], told["dry_run"]) == ("churn-1", "drops", True)
    assert [(drop["key"], drop["new"], drop["sent"]) for drop in told["drops"]] == [
        ("input/a.csv", False, False),
        ("input/eu/b.csv", True, False),
    ]
    assert told["left_out"] == {f"{files}/.hidden": "hidden"}


def test_what_is_sent_is_told_with_the_next_command(
    bucket: Any, files: Path, batch_transform: Command
) -> None:
    ended = batch_transform("drop", files / "a.csv", "--marker", "--pipeline", "churn-1")

    assert ended.code == 0
    assert ended.out.splitlines()[-2:] == [
        "2 files, 4 B, sent to s3://drops",
        "next: batch-transform status --pipeline churn-1",
    ]
    assert {found.key for found in bucket.objects.all()} == {"input/a.csv", "input/_SUCCESS"}


def test_where_uploads_start_nothing_the_next_command_is_a_backfill(
    publish: Any, files: Path, batch_transform: Command
) -> None:
    publish("churn-1", **DROPS, settings=json.dumps({"events": False}))
    boto3.client("s3").create_bucket(Bucket="drops")

    ended = batch_transform("drop", files / "a.csv")

    assert "next: batch-transform backfill input/a.csv, for uploads alone" in ended.out


def test_fails_when_a_file_would_not_be_scored_before_the_bucket_is_asked(
    publish: Any, files: Path, batch_transform: Command
) -> None:
    publish("churn-1", **DROPS, settings=json.dumps({"suffixes": [".json"]}))

    ended = batch_transform("drop", files / "a.csv")

    assert (ended.code, ended.out) == (2, "")
    assert ended.err == (
        f"batch-transform: {files}/a.csv: its key must end with '.json', which the pipeline "
        "takes, got 'input/a.csv'\n"
    )


def test_fails_when_the_bucket_takes_nothing(
    publish: Any, files: Path, batch_transform: Command
) -> None:
    publish("churn-1", **DROPS)

    ended = batch_transform("drop", files / "a.csv")

    assert ended.code == 1
    assert ended.err == (
        "batch-transform: HeadObject must be allowed, got NoSuchBucket: "
        "The specified bucket does not exist\n"
    )


# What is sent


@pytest.fixture
def s3(emulator: LocalCloud) -> Any:
    return emulator.client("s3")


@pytest.fixture
def inputs(s3: Any) -> str:
    name = f"inputs-{uuid.uuid4().hex}"
    s3.create_bucket(Bucket=name)
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    return name


def sending(plan: Plan) -> UploadProgress:
    return UploadProgress(len(plan.uploads), plan.size)


def test_a_large_file_goes_in_parts_and_its_version_is_known(
    s3: Any, inputs: str, tmp_path: Path
) -> None:
    body = os.urandom(17 * MIB)
    (tmp_path / "big.bin").write_bytes(body)
    whole = plan([tmp_path / "big.bin"], Watched(prefix="input/"))
    progress = sending(whole)

    sent = send(s3, inputs, [whole.uploads], progress, lambda: None)

    found = s3.get_object(Bucket=inputs, Key="input/big.bin")
    assert found["Body"].read() == body
    assert found["ETag"].endswith('-2"')
    version = sent.versions["input/big.bin"]
    assert (f'"{version.etag}"', version.version_id) == (found["ETag"], found["VersionId"])
    assert (progress.ended, progress.sent_bytes, progress.fraction) == (1, len(body), 1)


def test_ctrl_c_leaves_no_part_behind_and_says_what_has_arrived(
    s3: Any, inputs: str, tmp_path: Path
) -> None:
    (tmp_path / "a.bin").write_bytes(b"small")
    with (tmp_path / "b.bin").open("wb") as big:
        big.truncate(400 * MIB)
    whole = plan([tmp_path], Watched(prefix="input/"))
    progress = sending(whole)

    def interrupt() -> None:
        if progress.ended and progress.sent_bytes > MIB:
            raise KeyboardInterrupt

    sent = send(s3, inputs, [whole.uploads], progress, interrupt)

    assert sent.interrupted
    assert list(sent.versions) == ["input/a.bin"]
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=inputs)
    keys, looking = ["input/a.bin", "input/b.bin"], UploadProgress(2, phase="looking")
    assert existing(s3, inputs, keys, looking, lambda: None) == {"input/a.bin": 5}
    assert looking.line.startswith("2 of 2 files")
    problem = drop_steps.problem(whole, sent)
    assert isinstance(problem, Interrupted)
    assert "1 of 2 files arrived, and of the others nothing is in the bucket" in str(problem)


def test_a_failure_ends_the_rest_and_no_marker_follows(s3: Any, inputs: str, files: Path) -> None:
    watched = Watched(prefix="input/", marker="_SUCCESS")
    whole = plan([files], watched, marker=True)
    (files / "a.csv").unlink()

    sent = send(s3, inputs, [whole.drops, whole.markers], sending(whole), lambda: None)

    assert list(sent.problems) == ["input/a.csv"]
    assert "input/_SUCCESS" not in sent.versions
    assert "'input/a.csv' must be sent, got" in str(drop_steps.problem(whole, sent))


def test_what_aws_refused_is_told_in_one_line(files: Path) -> None:
    denied = ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "PutObject")
    whole = plan([files], Watched(prefix="input/"))

    problem = drop_steps.problem(whole, Sent(problems={"input/a.csv": denied}))

    assert str(problem) == (
        "'input/a.csv' must be sent, got PutObject must be allowed, got AccessDenied: no; "
        "0 of 2 files arrived, drop the others again"
    )


def test_a_file_that_changed_meanwhile_is_told(files: Path) -> None:
    whole = plan([files / "a.csv"], Watched(prefix="input/"))
    (files / "a.csv").write_text("1,2\n3,")

    problem = drop_steps.problem(whole, Sent(versions={"input/a.csv": VERSION}))

    assert "a file must not change while it is sent" in str(problem)


def test_the_line_tells_files_bytes_rate_and_what_is_left() -> None:
    now = 0.0
    progress = UploadProgress(3, 40_000_000, clock=lambda: now)
    assert progress.line == "0 of 3 files, 0 B of 40.0 MB"

    now = 4.0
    progress.add_bytes(10_000_000)
    progress.ended = 1
    assert progress.line == "1 of 3 files, 10.0 MB of 40.0 MB, 2.5 MB/s, 0:12 left"


# What becomes of it


def drop_of(key: str) -> LedgerDrop:
    return LedgerDrop(key, "1", 4, "e", "v1", "2026-03-01T12:00:00.000Z")


def test_a_drop_is_followed_by_its_version_until_it_has_ended(
    client: PipelineClient, ledger: Ledger
) -> None:
    good, bad = drop_of("input/good.csv"), drop_of("input/bad.csv")
    following = Following({good.key: VERSION, bad.key: VERSION})
    said: list[str] = []

    def shown() -> None:
        if not said:
            assert following.line.startswith("0 of 2 drops ended, 2 not taken yet")
            for drop in (good, bad):
                ledger.record(drop)
            ledger.open_run("churn-1-r1", slot=0, drops=2, look_again_s=60)
            ledger.claim("churn-1-r1", [good, bad])
            ledger.finish_drop("churn-1-r1", good, output="predictions/input/good.csv.out")
            ledger.fail_drop("churn-1-r1", bad, reason="input/bad.csv: row 7 is bad")

    follow(following, client, limit_s=30, show=shown, say=said.append)

    assert said == [
        "drop input/good.csv: done",
        "drop input/bad.csv: failed (input/bad.csv: row 7 is bad)",
    ]
    assert following.line.startswith("2 of 2 drops ended, 1 done, 1 failed")
    done = following.drops["input/good.csv"]
    assert done is not None
    assert done.output_key == "predictions/input/good.csv.out"


def test_fails_when_a_drop_is_not_taken_in_time(client: PipelineClient) -> None:
    following = Following({"input/a.csv": VERSION})

    with pytest.raises(CommandError, match=r"got 1 still open; intake has not taken 'input/a.csv'"):
        follow(following, client, limit_s=0, show=lambda: None, say=print)


@pytest.mark.parametrize(
    ("changes", "is_it"),
    [
        pytest.param({}, True, id="its version"),
        pytest.param({"version_id": "v0"}, False, id="an older version of one content"),
        pytest.param({"etag": "f"}, False, id="another content"),
        pytest.param({"version_id": ""}, True, id="found by a backfill"),
        pytest.param(
            {"version_id": "", "dropped_at": "2026-03-01T11:59:00.000Z"}, False, id="listed before"
        ),
    ],
)
def test_an_upload_is_told_from_others_of_its_key(changes: dict[str, Any], is_it: bool) -> None:
    drop = replace(DONE, **changes)

    assert (find([drop], VERSION) is drop) == is_it


def test_without_versions_one_that_was_dropped_long_before_is_another() -> None:
    old = replace(DONE, version_id="")
    later = Version(etag="e", version_id="", at=NOON + timedelta(minutes=1))

    assert find([old], later) is None
    newer = replace(old, dropped_at="2026-03-01T12:01:00.000Z", order="2")
    assert find([old, newer], later) is newer


def test_a_failed_drop_makes_the_command_fail(client: PipelineClient, ledger: Ledger) -> None:
    empty = replace(drop_of("input/a.csv"), size=0)
    ledger.record(empty, problem="a drop must hold at least one record")
    upload = Upload(path=None, key=empty.key, size=0)
    sent = Sent(versions={empty.key: VERSION})

    drops, problem = drop_steps.follow(client, Plan(drops=[upload]), sent, limit_s=30)

    assert [drop.status for drop in drops.values() if drop] == ["failed"]
    assert "every drop must be scored, got 1 failed" in str(problem)
