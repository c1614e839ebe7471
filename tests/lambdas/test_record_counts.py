"""Of every drop, fewer predictions than records end as a failure with both numbers."""

import gzip
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulation.aws import S3, Account, Faults
from tests.simulation.scheduler import Scheduler
from transform_lambdas import record_counts
from transform_lambdas.drops import Drop
from transform_lambdas.inputs import Inputs
from transform_lambdas.record_counts import Check, Compared, RecordCounts
from transform_lambdas.run_files import RunFiles, in_turn

World = Any  # conftest's

ROWS = Check(rows_span_lines=True)
PACKED = Check(gzip=True)


def run(world: World, answers: Callable[[bytes], bytes], **bodies: bytes) -> dict[str, str]:
    """Score drops of these bodies, and return what became of each."""
    for name, body in bodies.items():
        world.drop(f"input/{name}", body)
    world.jobs.answers = answers
    world.pass_time(60)
    (run_id,) = world.dispatch()
    world.execute(run_id)
    found: dict[str, str] = world.statuses()
    return {key.removeprefix("input/"): status for key, status in found.items()}


def compared(world: World) -> Compared:
    """Return what the one run knows of the records of its one drop."""
    (run_id,) = world.executions.started
    listed = world.s3.list_objects_v2(Bucket="output-bucket", Prefix=f"runs/{run_id}/counted/")
    counts: RecordCounts = world.settlement._records
    return counts.compare(run_id, ["input/a"], parts=listed["KeyCount"])["input/a"]


def without_last(body: bytes) -> bytes:
    return b"".join(body.splitlines(keepends=True)[:-1])


def test_a_drop_whose_predictions_are_fewer_than_its_records_fails_with_both_numbers(
    world: World,
) -> None:
    short = world.drop("input/a.csv", b"x,1\n" * 1000)

    statuses = run(
        world, lambda body: without_last(body) if len(body) > 9 else body, b=b"b,1\nc,1\n"
    )

    assert statuses == {"a.csv": "failed", "b": "done"}
    assert world.reason(short) == (
        "input/a.csv: 1,000 records went in, 999 predictions came out, so some are missing and "
        "others may belong to another record; let the model answer every record with a line of "
        "its own, or set check_records=False if it leaves some out on purpose"
    )
    listed = world.s3.list_objects_v2(Bucket="output-bucket", Prefix="predictions/")
    assert [entry["Key"] for entry in listed["Contents"]] == ["predictions/input/b.out"]
    indexed = {item["record_id"] for item in world.prediction_table.scan()["Items"]}
    assert indexed == {"b", "c"}


@pytest.mark.parametrize(
    ("body", "output"),
    [
        pytest.param(b"a\nb", b"1\n2\n", id="the last record has no line end"),
        pytest.param(b"a\nb\n", b"1\n2", id="nor has the last prediction"),
        pytest.param(b"a\r\nb\r\n", b"1\n2\n", id="Windows line ends"),
        pytest.param(b"a\n\n\r\nb\n\n", b"1\n2\n", id="empty lines need no prediction"),
        pytest.param(b"a\nb\n", b"1\n2\n\n", id="a line end more"),
        pytest.param(b"a\nb\n", b"score\n1\n2\n", id="a header"),
        pytest.param(b"\n", b"", id="nothing in and nothing out"),
    ],
)
def test_a_prediction_for_each_record_is_enough(world: World, body: bytes, output: bytes) -> None:
    assert run(world, lambda _: output, a=body) == {"a": "done"}


@pytest.mark.parametrize(
    ("body", "output"),
    [
        pytest.param(b"a\nb", b"1\n", id="the last record has no line end"),
        pytest.param(b"a\nb\n", b"1\n\n", id="an empty line is no prediction"),
        pytest.param(b"a\nb\n", b"\n\n\n", id="nor are many"),
        pytest.param(b"a\n", b"", id="nothing at all"),
    ],
)
def test_an_empty_answer_is_no_prediction(world: World, body: bytes, output: bytes) -> None:
    assert run(world, lambda _: output, a=body) == {"a": "failed"}


def test_what_is_compressed_is_counted_as_it_unpacks(world: World) -> None:
    world.checks = [PACKED]
    two_members = gzip.compress(b"a\nb") + gzip.compress(b"\nc\n")

    statuses = run(world, lambda _: b"1\n2\n3\n", full=two_members, short=gzip.compress(b"a\n" * 4))

    assert statuses == {"full": "done", "short": "failed"}


@pytest.mark.parametrize(
    ("check", "body", "why"),
    [
        pytest.param(PACKED, b"a\nb\n", "the object could not be decompressed", id="no gzip"),
        pytest.param(
            PACKED,
            gzip.compress(b"a\n" * 99)[:-9],
            "the object could not be decompressed",
            id="cut",
        ),
        pytest.param(
            ROWS,
            b'1,"two\nlines"\n',
            "some of its lines end inside quotes, so that lines are not rows",
            id="quoted newline",
        ),
    ],
)
def test_what_cannot_be_told_is_not_compared(
    world: World, check: Check, body: bytes, why: str
) -> None:
    world.checks = [check]

    assert run(world, lambda _: b"1\n", a=body) == {"a": "done"}
    assert compared(world).not_compared == why


def test_rows_with_quotes_that_end_in_their_line_are_compared(world: World) -> None:
    world.checks = [ROWS]

    assert run(world, without_last, a=b'1,"two ""words"""\n2,3\n') == {"a": "failed"}


def test_what_nobody_can_count_is_done_in_the_end_and_not_compared(world: World) -> None:
    world.drop("input/a", b"x,1\ny,2\n")
    world.jobs.answers = without_last
    world.pass_time(60)
    (run_id,) = world.dispatch()
    world.do_job(run_id)
    for number in range(1, 9):
        assert world.settlement.settle({"run_id": run_id})["status"] == "CountRecords"
        world.ledger.begin_finish(world.ledger.run(run_id), f"{run_id}-f{number}")

    assert world.settlement.settle({"run_id": run_id})["status"] == "Settled"

    assert world.statuses() == {"input/a": "done"}
    drop = world.read(f"reports/{run_id}.drops.jsonl")
    assert "the executions that were to count them died" in drop["not_compared"]


def test_a_step_without_a_check_may_leave_out_what_it_likes(world: World) -> None:
    world.checks = [None]

    assert run(world, without_last, a=b"1\n2\n") == {"a": "done"}


def test_what_is_too_large_to_be_unpacked_in_time_is_not_compared(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_counts, "_UNPACKED_LIMIT_BYTES", 20)
    world.checks = [PACKED]

    assert run(world, lambda _: b"", a=gzip.compress(b"a\n" * 11)) == {"a": "done"}
    assert compared(world).not_compared == "the object unpacks to more than 16 GiB"


def test_a_run_with_more_than_can_be_counted_is_not_compared(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_counts, "_TOTAL_LIMIT_BYTES", 3)

    assert run(world, without_last, a=b"1\n2\n") == {"a": "done"}
    assert compared(world).not_compared == "the run has more than 1,000 GiB to count"


def test_an_input_that_was_removed_before_it_was_counted_is_done_and_not_compared(
    world: World,
) -> None:
    world.drop("input/a", b"1\n2\n")
    world.pass_time(60)
    (run_id,) = world.dispatch()
    world.do_job(run_id)
    world.s3.delete_object(Bucket="input-bucket", Key="input/a")

    world.settle({"run_id": run_id, "step": 1})

    assert world.statuses() == {"input/a": "done"}
    assert "was removed" in compared(world).not_compared


def test_an_input_that_was_replaced_is_superseded_whatever_is_counted(world: World) -> None:
    world.drop("input/a", b"1\n")
    world.pass_time(60)
    (run_id,) = world.dispatch()
    world.do_job(run_id)
    world.drop("input/a", b"1\n2\n3\n")

    world.settle({"run_id": run_id, "step": 1})

    assert world.statuses() == {"input/a": "superseded, waiting"}


@pytest.mark.parametrize(
    ("clean", "score", "step"),
    [(b"1\n2\n", b"1\n2\n3\n", "clean"), (b"1\n2\n3\n", b"1\n2\n", "score")],
    ids=["the first", "the last"],
)
def test_a_chain_says_which_step_was_short(
    make_world: Callable[..., World], clean: bytes, score: bytes, step: str
) -> None:
    world = make_world(steps=("clean", "score"))
    drop = world.drop("input/a", b"1\n2\n3\n")
    outputs = iter([clean, score])

    assert run(world, lambda _: next(outputs)) == {"a": "failed"}
    reason = world.reason(drop)
    assert reason.startswith(f"input/a in step {step!r}: 3 records went in, 2 predictions came out")


class Bucket(S3):
    """One with short pages, in memory: moto takes seconds for each example."""

    def get_paginator(self, _: str) -> SimpleNamespace:
        return SimpleNamespace(paginate=lambda **asked: [self.list_objects_v2(**asked)])


class Refusing(Bucket):
    """One that lets nobody read what is in the input bucket."""

    code = "AccessDenied"

    def get_object(self, *, Bucket: str, **asked: Any) -> Any:  # noqa: N803 (boto3's name)
        if Bucket == "in":
            raise ClientError({"Error": {"Code": self.code, "Message": ""}}, "GetObject")
        return super().get_object(Bucket=Bucket, **asked)


@pytest.fixture
def refusing() -> Refusing:
    s3 = Refusing(Account(Scheduler(0), Faults()))
    s3.put_object(Bucket="out", Key="runs/r/step-1-of-1/a.out", Body=b"1\n")
    counts_of(s3).plan("r", [Drop("a", "1", 4, "", "", "2026-03-01T12:00:00.000Z")])
    return s3


def test_what_may_not_be_read_is_not_compared(refusing: Refusing) -> None:
    counts = counts_of(refusing)

    counts.count("r", 0)

    (found,) = counts.compare("r", ["a"], parts=1).values()
    assert (found.short, found.records_in, found.records_out) == (None, None, 1)
    assert found.not_compared == "the function settle may not read the object"


def test_what_cannot_be_read_at_the_moment_is_counted_later(refusing: Refusing) -> None:
    refusing.code = "SlowDown"

    with pytest.raises(ClientError):
        counts_of(refusing).count("r", 0)


def counts_of(s3: S3) -> RecordCounts:
    return RecordCounts(
        files=RunFiles(s3, "out"),
        inputs=Inputs(s3, "in"),
        steps=in_turn(["score"]),
        checks=[Check()],
    )


@settings(deadline=None)  # each part has threads of its own, which a busy machine starts late
@given(
    st.lists(st.sampled_from([b"", b"\r", b"a", b"bc", b'"', b"long" * 9]), max_size=12),
    st.booleans(),
    st.integers(2, 18),
)
def test_however_an_object_is_cut_its_lines_are_counted_once(
    lines: list[bytes], ends: bool, part_bytes: int
) -> None:
    body = b"\n".join(lines) + (b"\n" if ends and lines else b"")
    s3 = Bucket(Account(Scheduler(0), Faults()))
    s3.put_object(Bucket="in", Key="a", Body=body)
    s3.put_object(Bucket="out", Key="runs/r/step-1-of-1/a.out", Body=b"1\n" * 9)
    counts = counts_of(s3)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record_counts, "_PART_BYTES", part_bytes)
        parts = counts.plan("r", [Drop("a", "1", len(body), "", "", "2026-03-01T12:00:00.000Z")])
    for part in range(parts):
        counts.count("r", part)

    assert parts > 1
    (found,) = counts.compare("r", ["a"], parts=parts).values()
    assert found.records_in == sum(line not in (b"", b"\r") for line in body.split(b"\n"))
    assert found.records_out == 9
