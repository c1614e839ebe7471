"""The command `show`: a run or a key, whose report is written by the Lambdas' own code."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from batch_transform_cli.cloud import Cloud
from batch_transform_cli.pipelines.details import nearest, next_steps
from transform_lambdas import report
from transform_lambdas.ledger import Ledger
from transform_lambdas.record_counts import Compared
from transform_lambdas.transform_jobs import Job

from .conftest import MACHINE, NOON, make_drop
from .test_views import DROP

Command = Callable[..., Any]
EXECUTIONS = MACHINE.replace(":stateMachine:", ":execution:")


@pytest.fixture
def reported_run(ledger: Ledger, settled_run: str) -> str:
    """The run of `settled_run`, with its report."""
    good, bad = (make_drop(f"input/{name}.csv") for name in ("good", "bad"))
    entries = {entry.drop.key: entry for entry in ledger.entries([good, bad])}
    fates = [
        report.Fate(
            drop=drop,
            entry=entries[drop.key],
            output=(f"predictions/{drop.key}.out", 7),
            records=Compared(records_in=3, records_out=3),
            missing=None,
        )
        for drop in (good, bad)
    ]
    described = {
        "TransformStartTime": NOON,
        "TransformEndTime": NOON + timedelta(seconds=90),
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 2},
    }
    job = Job(name=f"{settled_run}-s1-0", status="Failed", failure_reason="ClientError: see logs")
    jobs = [report.job_of(job, described, step="score")]
    whole = {
        "run_id": settled_run,
        "jobs": jobs,
        "totals": report.totals(fates, jobs),
        "budget": {"max_failed_fraction": 0.2, "overrun": "1 of 2 drops has no predictions"},
    }
    lines = "".join(json.dumps(fate.to_dict()) + "\n" for fate in fates)
    s3 = boto3.client("s3")
    s3.put_object(Bucket="out", Key=f"reports/{settled_run}.json", Body=json.dumps(whole))
    s3.put_object(Bucket="out", Key=f"reports/{settled_run}.drops.jsonl", Body=lines)
    return settled_run


def test_a_settled_run_is_shown_by_its_report(reported_run: str, batch_transform: Command) -> None:
    told = batch_transform("show", reported_run, "--json").document
    shown = batch_transform("show", reported_run).out

    assert (told["pipeline"], told["kind"]) == ("churn-1", "run")
    assert told["run"]["outcome"] == "PartiallyCompleted"
    (job,) = told["jobs"]
    assert (job["instance_type"], job["instance_count"]) == ("ml.m5.large", 2)
    good, bad = told["drops"]
    assert (good["status"], good["output"]) == ("done", "s3://out/predictions/input/good.csv.out")
    assert (bad["status"], bad["output"]) == ("failed", None)
    assert told["links"] == {
        "execution": f"{EXECUTIONS}:{reported_run}",
        "manifest": f"s3://out/runs/{reported_run}/manifest-1.json",
        "logs": f"batch-transform logs {reported_run} --pipeline churn-1",
        "report": f"s3://out/reports/{reported_run}.json",
    }
    assert (told["outputs"], told["no_report"]) == (None, None)
    for words in (
        "2: 1 done, 1 failed, 0 tried again",
        "3 in, 3 out",
        "180 seconds",
        "1 of 2 drops has no predictions",
        "2 ml.m5.large   ClientError: see logs",
        "failed   ClientError: 400: row 7 is bad",
        f"{EXECUTIONS}:{reported_run}",
    ):
        assert words in shown
    assert shown.index("input/bad.csv") < shown.index("input/good.csv")


def test_a_run_in_flight_is_shown_by_the_ledger_and_sagemaker(
    run_in_flight: str, batch_transform: Command
) -> None:
    told = batch_transform("show", run_in_flight, "--json").document
    shown = batch_transform("show", run_in_flight).out

    (job,) = told["jobs"]
    assert (job["name"], job["status"]) == (f"{run_in_flight}-s1-0", "InProgress")
    assert (job["instance_type"], job["instance_count"]) == ("ml.m5.large", 2)
    assert [drop["status"] for drop in told["drops"]] == ["claimed", "claimed"]
    assert told["outputs"] == 1
    assert (told["report"], told["no_report"]) == (None, "it is written when the run is settled")
    assert "2, 1 with an output so far" in shown


def test_who_may_not_read_reports_and_describe_jobs_sees_the_rest(
    settled_run: str,
    run_in_flight: str,
    batch_transform: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    denied("s3", "get_object", monkeypatch)
    denied("sagemaker", "describe_transform_job", monkeypatch)

    settled = batch_transform("show", settled_run, "--json").document
    running = batch_transform("show", run_in_flight, "--json").document

    assert settled["no_report"].startswith("GetObject must be allowed, got AccessDenied")
    assert [drop["status"] for drop in settled["drops"]] == ["failed", "done"]
    assert running["jobs"][0]["instance_type"] is None


def denied(service: str, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a call of the clients that the command makes be refused."""
    made = Cloud.client
    operation = "".join(word.capitalize() for word in call.split("_"))

    def refuse(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, operation)

    def client(self: Cloud, name: str) -> Any:
        found = made(self, name)
        if name == service:
            monkeypatch.setattr(found, call, refuse)
        return found

    monkeypatch.setattr(Cloud, "client", client)


def test_a_key_is_shown_with_its_versions_its_predictions_and_what_to_do(
    settled_run: str, ledger: Ledger, batch_transform: Command
) -> None:
    ledger.record(replace(make_drop("input/good.csv"), order="2"))

    done = batch_transform("show", "s3://in/input/good.csv", "--json").document
    failed = batch_transform("show", "input/bad.csv").out

    assert (done["kind"], done["key"]) == ("key", "input/good.csv")
    assert [version["status"] for version in done["versions"]] == ["waiting", "done"]
    assert done["output"] == "s3://out/predictions/input/good.csv.out"
    assert done["next_steps"] == [
        "wait for its batch, or for a free slot: batch-transform status --pipeline churn-1"
    ]
    assert f"failed          1   {settled_run}" in failed
    assert "ClientError: 400: row 7 is bad" in failed
    assert f"mend it and upload it again (see batch-transform logs {settled_run}" in failed
    assert "redrive --key input/bad.csv --pipeline churn-1" in failed


@pytest.mark.parametrize(
    ("status", "steps"),
    [
        ("done", ["read its predictions: aws s3 cp …"]),
        ("claimed", ["wait for its run: batch-transform show r7 --pipeline churn-1"]),
        ("superseded", []),
    ],
)
def test_what_to_do_next_is_a_command(status: str, steps: list[str]) -> None:
    newest = replace(DROP, status=status, run_id="r7")
    assert next_steps(newest, pipeline_id="churn-1", read="aws s3 cp …") == steps


def test_a_key_in_a_command_is_quoted_for_the_shell() -> None:
    failed = replace(DROP, status="failed", key="input/it's; rm -rf.csv")
    _, again = next_steps(failed, pipeline_id="churn-1", read="")
    assert """--key 'input/it'"'"'s; rm -rf.csv' --pipeline""" in again


def test_a_run_wins_over_a_key_that_is_called_so_unless_it_is_said_to_be_a_key(
    settled_run: str, ledger: Ledger, batch_transform: Command
) -> None:
    ledger.record(make_drop(settled_run))

    assert batch_transform("show", settled_run, "--json").document["kind"] == "run"
    assert batch_transform("show", settled_run, "--key", "--json").document["kind"] == "key"


def test_fails_when_nothing_has_the_name_and_says_what_is_near_it(
    settled_run: str, batch_transform: Command
) -> None:
    part = batch_transform("show", "good.csv")
    far = batch_transform("show", "x")

    assert (part.code, part.out) == (1, "")
    assert part.err == (
        "batch-transform: the name must be that of a run or of a drop, got 'good.csv'; "
        "did you mean 'input/good.csv'?\n"
    )
    assert "got 'x'; see `batch-transform runs`" in far.err


def test_what_holds_the_name_is_nearer_than_what_is_written_alike() -> None:
    names = ["input/b.csv", "input/a.csv", "input/aa.csv"]
    assert nearest("a.csv", names) == ["input/a.csv", "input/aa.csv"]
    assert nearest("input/c.csv", names)[0] in names
    assert nearest("zzzz", names) == []
