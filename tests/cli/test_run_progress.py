import io
from typing import Any

from rich.console import Console

from batch_transform_cli.job.progress import FAILURES_KEPT, Failure, Progress, clock_time, shown

NAMES = {"data/in/a.csv": "a.csv", "data/in/b.csv": "b.csv"}
SIZES = {"data/in/a.csv": 3_000_000, "data/in/b.csv": 1_000_000}
STARTED = {"event": "started", "total": 2, "MaxPayloadInMB": 6}


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def progress(clock: Clock, **more: Any) -> Progress:
    told: dict[str, Any] = {"names": NAMES, "sizes": SIZES, "total": 2, **more}
    return Progress("starting the model server", clock=clock, **told)


def ended(key: str, **more: Any) -> dict[str, Any]:
    return {"event": "object", "key": key, "ok": True, "output": "o", **more}


def test_until_an_instance_has_started_only_that_is_said() -> None:
    assert progress(Clock()).line == "starting the model server"


def test_the_rate_counts_from_the_start_of_the_work_and_tells_what_is_left() -> None:
    clock = Clock()
    job = progress(clock)
    clock.now += 60
    job.on_event(STARTED)
    clock.now += 3
    job.on_event(ended("data/in/a.csv"))
    assert job.line == "1 of 2 objects, 1.0 MB/s, 0:01 left"
    assert job.settings == {"MaxPayloadInMB": 6}


def test_records_and_bytes_are_shown_as_the_engine_tells_them() -> None:
    clock = Clock()
    job = progress(clock, sizes={})
    job.on_event(STARTED)
    clock.now += 2
    job.on_event(ended("data/in/a.csv", records=12_345, bytes=2_000_000))
    assert job.line == "1 of 2 objects, 12,345 records, 1.0 MB/s, 0:02 left"


def test_a_large_object_moves_the_bar_before_it_ends() -> None:
    clock = Clock()
    job = progress(clock)
    job.on_event(STARTED)
    clock.now += 1
    job.on_event({"event": "progress", "instance_id": "i-1", "bytes": 1_000_000, "records": 500})
    assert job.line == "0 of 2 objects, about 500 records, 1.0 MB/s, 0:03 left"
    job.on_event({"event": "progress", "instance_id": "i-1", "bytes": 2_000_000, "records": 900})
    job.on_event({"event": "progress", "instance_id": "i-2", "bytes": 500_000, "records": 100})
    assert job.line == "0 of 2 objects, about 1,000 records, 2.5 MB/s, 0:01 left"
    job.on_event(ended("data/in/a.csv", records=1_300, bytes=3_000_000, instance_id="i-1"))
    job.on_event(ended("data/in/b.csv", records=200, bytes=1_000_000, instance_id="i-2"))
    assert job.line == "2 of 2 objects, 1,500 records, 4.0 MB/s, 0:00 left"


def test_records_that_the_engine_estimates_are_told_as_about_so_many() -> None:
    job = progress(Clock())
    job.on_event(STARTED)
    job.on_event(ended("data/in/a.csv", records=100, records_estimated=True))
    job.on_event(ended("data/in/b.csv", records=1, records_estimated=False))
    assert job.records_told == ["about 101 records"]


def test_a_failed_object_is_counted_and_kept_with_its_name_and_reason() -> None:
    job = progress(Clock())
    job.on_event(STARTED)
    job.on_event(ended("data/in/b.csv", ok=False, reason="ClientError: 400"))
    assert (job.done, job.failed, job.ended) == (0, 1, 1)
    assert job.failures == [Failure("b.csv", "ClientError: 400")]
    assert "1 failed" in job.line


def test_a_million_failures_are_counted_and_only_the_first_kept() -> None:
    job = progress(Clock())
    for _ in range(FAILURES_KEPT + 5):
        job.count("a.csv", 0, None, "no")
    assert (job.failed, len(job.failures)) == (FAILURES_KEPT + 5, FAILURES_KEPT)


def test_empty_objects_make_progress_too() -> None:
    job = progress(Clock(), sizes={"data/in/a.csv": 0, "data/in/b.csv": 0})
    job.on_event(STARTED)
    job.on_event(ended("data/in/a.csv"))
    assert job.fraction == 0.5


def test_a_terminal_gets_a_bar_and_both_fit_into_80_columns() -> None:
    clock = Clock()
    job = progress(clock)
    job.on_event(STARTED)
    clock.now += 3
    job.on_event(ended("data/in/a.csv", records=3))
    console = Console(file=io.StringIO(), width=80)
    console.print(job.picture)
    bar, line = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert bar.split()[0] == "transforming"
    assert bar.split()[-1] == "75%"
    assert line.strip() == "1 of 2 objects, 3 records, 1.0 MB/s, 0:01 left"


def test_off_a_terminal_there_is_a_line_now_and_then_and_not_for_each_object() -> None:
    clock = Clock()
    job = progress(clock, total=100)
    console = Console(file=io.StringIO())
    with shown(job, console) as show:
        job.on_event(STARTED)
        for _ in range(100):
            clock.now += 0.25
            job.count("a.csv", 10_000, None, None)
            show()
    assert console.file.getvalue() == (  # type: ignore[attr-defined]
        "40 of 100 objects, 40.0 kB/s, 0:15 left\n80 of 100 objects, 40.0 kB/s, 0:05 left\n"
    )


def test_times_are_said_as_a_clock_does() -> None:
    assert [clock_time(seconds) for seconds in (0.4, 61, 3723)] == ["0:00", "1:01", "1:02:03"]
