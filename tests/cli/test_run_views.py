import io
import re
from collections import Counter
from typing import Any

import pytest
from rich.console import Console

from batch_transform_cli.job.progress import Failure, Progress
from batch_transform_cli.job.views import failures_table, flags, outcome


def text_of(picture: Any, *, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(picture)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def ended(status: str = "Failed", detail: str | None = None, **more: Any) -> str:
    progress = Progress("", {}, {}, total=3)
    progress.begin("transforming")
    progress.count("a.csv", 2_000_000, 1_500, None)
    for failure in more.pop("failures", ()):
        progress.count(failure.name, 0, None, failure.reason)
    told: dict[str, Any] = {"failure_reason": None, "output": "out/", "log_dir": None, **more}
    return text_of(outcome(progress, status=status, detail=detail, **told))


def test_a_job_that_completed_is_three_facts_and_a_place() -> None:
    head, place = ended("Completed").splitlines()
    assert head.startswith("Completed  1 of 3 objects done, 1,500 records, 2.0 MB in 0.0 s (")
    assert place == "outputs in out/"


def test_the_last_log_lines_of_the_server_are_shown_and_only_the_last() -> None:
    said = "\n".join(f"line {number}" for number in range(40))
    failure = Failure("b.csv", "Unable to get response from algorithm")
    shown = ended(
        detail=f"bkt/b.csv: no\nits last log lines:\n{said}",
        failures=[failure],
        failure_reason="AlgorithmError: See job logs for more information",
    )
    assert "AlgorithmError: See job logs for more information" in shown
    assert re.search(r"b\.csv +Unable to get response from algorithm", shown)
    assert "the model server's last log lines\n  line 28\n" in shown
    assert "line 27" not in shown
    assert "line 39" in shown


def test_a_server_that_refused_an_object_is_not_quoted_twice() -> None:
    shown = ended(
        detail="bkt/b.csv: no\nits last log lines:\nPOST /invocations 400",
        failures=[Failure("b.csv", "ClientError: 400 Message: no")],
        failure_reason="ClientError: See job logs for more information",
    )
    assert "POST /invocations" not in shown


def test_a_job_that_failed_before_its_objects_is_told_in_the_engines_words() -> None:
    shown = ended(detail="the model server must stay and answer GET /ping, got exit code 3")
    assert "must stay and answer GET /ping, got exit code 3" in shown


def test_a_job_that_was_stopped_has_no_outputs_to_show() -> None:
    assert "outputs" not in ended("Stopped")


def test_logs_that_are_kept_are_named_and_else_how_to_keep_them() -> None:
    assert "logs in /tmp/logs" in ended(log_dir="/tmp/logs")
    assert "--log-dir DIR keeps the logs of the next run" in ended()
    assert "log" not in ended("Completed")


def test_a_table_of_failures_is_bounded_in_rows_and_in_words() -> None:
    failures = [Failure(f"{number:03}.csv", "no " * 1000) for number in range(100)]
    shown = text_of(failures_table("why", failures, 12_345))
    assert "019.csv" in shown
    assert "020.csv" not in shown
    assert shown.rstrip().endswith("and 12,325 more")
    assert max(map(len, shown.splitlines())) <= 80
    assert len(shown) < 20_000


def test_what_servers_and_files_are_named_cannot_steer_the_terminal() -> None:
    evil = Failure("\x1b[2J.csv", "\x1b]0;mine\x07 [bold]no[/bold]")
    shown = ended(failures=[evil], detail="its last log lines:\n\x1b[31mred")
    assert "\x1b" not in shown
    assert "[bold]no[/bold]" in shown
    assert "·[31mred" in shown


@pytest.mark.parametrize("width", [40, 80, 120])
def test_long_names_fold_and_lose_nothing(width: int) -> None:
    name = "year=2026/month=01/" * 5 + "part-00000.csv"
    shown = text_of(failures_table("why", [Failure(name, "short reason")], 1), width=width)
    assert Counter(f"{name}shortreason") - Counter(shown) == Counter()
    assert max(map(len, shown.splitlines())) <= width


def test_flags_that_help_can_be_copied_into_a_shell() -> None:
    assert flags({("DataProcessing", "InputFilter"): "$[1:]", ("MaxPayloadInMB",): 3}) == (
        "--input-filter '$[1:]' --max-payload-in-mb 3"
    )
