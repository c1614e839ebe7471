"""The commands `logs` and `backfill`, for people and for programs."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import boto3

Command = Callable[..., Any]

GROUP, STREAM = "/aws/sagemaker/TransformJobs", "churn-1-r1-s1-0/i-1"


def test_what_a_runs_jobs_said_is_shown_and_cannot_steer_the_terminal(
    settled_run: str, batch_transform: Command
) -> None:
    logs = boto3.client("logs")
    logs.create_log_group(logGroupName=GROUP)
    logs.create_log_stream(logGroupName=GROUP, logStreamName=STREAM)
    said = ["first", "second\tcolumn", "\x1b[2Jthird"]
    now = int(time.time())  # of old events a group takes none
    events = [
        {"timestamp": now * 1000 + number, "message": text} for number, text in enumerate(said)
    ]
    logs.put_log_events(logGroupName=GROUP, logStreamName=STREAM, logEvents=events)

    assert batch_transform("logs", settled_run, "--newest", 2).out == "second  column\n·[2Jthird\n"
    assert json.loads(batch_transform("logs", settled_run, "--newest", 1, "--json").out) == {
        "pipeline": "churn-1",
        "run_id": settled_run,
        "lines": [
            {
                "at": f"{datetime.fromtimestamp(now, UTC):%Y-%m-%dT%H:%M:%SZ}",
                "stream": STREAM,
                "message": said[2],
            }
        ],
    }


def test_a_backfill_says_what_it_has_asked_for(
    intake_queue_url: str, ledger: object, batch_transform: Command
) -> None:
    bucket = batch_transform("backfill", "input/2026/", "--json").document["asked"]

    assert bucket.startswith("s3://")
    assert bucket.endswith("/input/2026/")
