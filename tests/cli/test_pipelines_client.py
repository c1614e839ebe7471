import http.server
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, ClassVar

import boto3
import pytest

from batch_transform_cli.cloud import Cloud
from batch_transform_cli.entry import app
from batch_transform_cli.errors import CommandError, PipelineNotFound
from batch_transform_cli.pipelines.client import PipelineClient
from batch_transform_cli.pipelines.records import Load
from transform_lambdas.ledger import Ledger


def test_the_only_pipeline_is_found_without_being_named(client: PipelineClient) -> None:
    assert (client.pipeline_id, client.input_bucket) == ("churn-1", "in")


def test_one_of_several_pipelines_must_be_named(publish: Any) -> None:
    publish("churn-1")
    publish("fraud-2")
    with pytest.raises(PipelineNotFound, match="must name one of churn-1, fraud-2, got none"):
        PipelineClient.find(Cloud())
    assert PipelineClient.find(Cloud(), "fraud-2").pipeline_id == "fraud-2"


def test_a_run_names_its_pipeline(publish: Any) -> None:
    publish("churn")
    publish("churn-1")
    run_id = "churn-1-20261127t212928-631d58"

    assert PipelineClient.find(Cloud(), run_id=run_id).pipeline_id == "churn-1"
    for other in (f"new-{run_id}", "input/a.csv"):
        with pytest.raises(PipelineNotFound, match="must name one of churn, churn-1, got none"):
            PipelineClient.find(Cloud(), run_id=other)


def test_fails_when_no_such_pipeline_is_deployed(publish: Any) -> None:
    publish("churn-1")
    with pytest.raises(PipelineNotFound, match="got churn at AWS region us-east-1; deploy one"):
        PipelineClient.find(Cloud(), "churn")


def test_a_local_cloud_is_named_with_account_and_region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "111122223333")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")

    assert Cloud("http://127.0.0.1:4566").where == (
        "http://127.0.0.1:4566 in account 111122223333, region eu-west-1 "
        "(AWS_ACCESS_KEY_ID and AWS_REGION choose)"
    )


def test_what_the_lambdas_wrote_is_read_back(client: PipelineClient, settled_run: str) -> None:
    status = client.status()

    assert {drop.key: drop.status for drop in status.drops} == {
        "input/bad.csv": "failed",
        "input/good.csv": "done",
        "input/late.csv": "waiting",
    }
    assert [drop.key for drop in status.drops if drop.is_open] == ["input/late.csv"]
    assert status.drops[0].reason == "input/bad.csv: ClientError: 400: row 7 is bad"
    (run,) = status.runs
    assert (run.run_id, run.status, run.outcome) == (settled_run, "closed", "PartiallyCompleted")
    assert (run.drops, run.done, run.failed, run.waiting) == (2, 1, 1, 0)
    assert not run.is_open


def test_the_load_is_of_what_waits_and_of_the_runs_that_have_a_slot(
    client: PipelineClient, ledger: Ledger, settled_run: str
) -> None:
    """The oldest was uploaded at 11:59:57; of jobs tests/journeys/test_run_in_flight.py tells."""
    ledger.open_run("churn-1-r2", slot=1, drops=1, look_again_s=60)
    at = datetime(2026, 3, 1, 13, 1, tzinfo=UTC)

    assert client.load(client.status(), now=at) == Load(
        waiting=1, oldest_waiting_s=3663, slots=2, slots_free=1, running_jobs=0
    )


def test_a_pipeline_at_rest_has_no_load(client: PipelineClient) -> None:
    at = datetime(2026, 3, 1, tzinfo=UTC)

    assert client.load(client.status(), now=at) == Load(
        waiting=0, oldest_waiting_s=0, slots=2, slots_free=2, running_jobs=0
    )


def test_outputs_of_a_run_are_counted_where_the_job_writes_them(
    client: PipelineClient, settled_run: str
) -> None:
    s3 = boto3.client("s3")
    for name in ("step-1-of-2/a.csv.out", "step-1-of-2/b.csv.out", "step-2-of-2/a.csv.out.out"):
        s3.put_object(Bucket="out", Key=f"runs/{settled_run}/{name}", Body=b"1")
    s3.put_object(Bucket="out", Key=f"runs/{settled_run}/plan.json", Body=b"[]")

    (run,) = client.status().runs
    assert client.outputs_of(run) == 1


def entry(record_id: str) -> dict[str, Any]:
    return {
        "id": record_id,
        "prediction": [record_id, "0.9"],
        "dropped_at": "2026-03-01T12:00:00.000Z",
        "source_key": "input/a.csv",
        "run_id": "churn-1-r1",
    }


class Api(http.server.BaseHTTPRequestHandler):
    """The lookup API, as far as a client can tell."""

    seen: ClassVar[list[tuple[str, str]]] = []
    asked: ClassVar[list[list[str]]] = []

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers.get("Authorization", "")))
        if self.path.endswith("?id=a%2Fb%20c"):
            self.answer(200, entry("a/b c"))
        elif self.path.endswith("?id=broken"):
            self.answer(500, {"message": "Internal Server Error"})
        elif self.path.endswith("?id=elsewhere"):
            self.answer(404, {"message": "Not Found"})
        else:
            self.problem(404, "no such id")

    def do_POST(self) -> None:
        self.seen.append((self.path, self.headers.get("Authorization", "")))
        ids = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["ids"]
        assert self.headers["Content-Type"] == "application/json"
        self.asked.append(ids)
        if "busy" in ids:
            self.problem(503, "got throttled; ask again later")
            return
        found = [entry(record_id) for record_id in ids if record_id != "nobody"]
        self.answer(200, {"predictions": found, "missing": [i for i in ids if i == "nobody"]})

    def problem(self, status: int, detail: str) -> None:
        problem = {"type": "about:blank", "title": "-", "status": status, "detail": detail}
        self.answer(status, problem, "application/problem+json")

    def answer(self, status: int, body: Any, content_type: str = "application/json") -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def api(aws: None) -> Iterator[PipelineClient]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    facts = {
        "ledger-table": "ledger",
        "api-url": "https://abcd1234.execute-api.us-east-1.amazonaws.com",
    }
    try:
        cloud = Cloud(f"http://127.0.0.1:{server.server_port}")
        yield PipelineClient(cloud, "churn-1", facts)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_lookup_is_a_signed_call_of_the_api_at_the_endpoint(api: PipelineClient) -> None:
    found = api.lookup("a/b c")

    assert found is not None
    assert (found.record_id, found.prediction) == ("a/b c", ["a/b c", "0.9"])
    path, authorization = Api.seen[-1]
    assert path == "/_aws/execute-api/abcd1234/$default/predictions?id=a%2Fb%20c"
    assert "/us-east-1/execute-api/aws4_request" in authorization


def test_an_id_without_a_prediction_is_none_and_a_broken_api_is_an_error(
    api: PipelineClient,
) -> None:
    assert api.lookup("nobody") is None
    with pytest.raises(CommandError, match="must answer 200, got 500"):
        api.lookup("broken")
    with pytest.raises(CommandError, match="must answer 200, got 404"):
        api.lookup("elsewhere")


def test_many_ids_are_asked_for_a_hundred_at_a_time(api: PipelineClient) -> None:
    Api.asked.clear()
    ids = [f"é{n}" for n in range(150)] + ["nobody", "é0"]

    found = api.lookup_many(ids)

    assert [len(asked) for asked in Api.asked] == [100, 51]
    assert list(found) == ids[:-1]
    assert found["nobody"] is None
    last = found["é149"]
    assert last is not None
    assert (last.record_id, last.prediction) == ("é149", ["é149", "0.9"])
    path, authorization = Api.seen[-1]
    assert path == "/_aws/execute-api/abcd1234/$default/predictions"
    assert "SignedHeaders=content-type;host;x-amz-date" in authorization


def test_a_problem_is_told_by_its_detail(api: PipelineClient) -> None:
    with pytest.raises(CommandError) as refused:
        api.lookup_many(["a", "busy"])
    assert str(refused.value) == (
        "the lookup must answer 200, got 503: got throttled; ask again later"
    )


def test_the_command_prints_several_predictions_and_names_the_ids_that_have_none(
    api: PipelineClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["batch-transform", "lookup", *arguments])
        with pytest.raises(SystemExit) as ended:
            app()
        return int(str(ended.value.code))

    monkeypatch.setattr(PipelineClient, "find", lambda *_: api)

    assert run("a/b c") == 0
    assert capsys.readouterr().out == "a/b c,0.9\n"
    assert run("b", "nobody", "a") == 1
    printed = capsys.readouterr()
    assert printed.out == "b\tb,0.9\na\ta,0.9\n"
    assert "must be that of a scored record, got 'nobody'; see" in printed.err
    assert run("b", "a", "--json") == 0
    assert [found["record_id"] for found in json.loads(capsys.readouterr().out)] == ["b", "a"]


def test_fails_when_a_pipeline_without_index_is_asked_for_an_id(client: PipelineClient) -> None:
    with pytest.raises(
        CommandError, match=r"churn-1 must have an index.*give the construct index="
    ):
        client.lookup("a")


def test_a_local_endpoint_never_sees_the_users_own_credentials(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAREALONE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")

    credentials = Cloud("http://127.0.0.1:4566").session.get_credentials()

    assert (credentials.access_key, credentials.secret_key) == ("000000000000", "local")


def test_a_backfill_is_a_message_to_intake_that_names_the_prefix(
    client: PipelineClient, intake_queue_url: str
) -> None:
    assert client.backfill() == "input/"
    assert client.backfill("input/2026/a.csv") == "input/2026/a.csv"

    sqs = boto3.client("sqs")
    messages = sqs.receive_message(QueueUrl=intake_queue_url, MaxNumberOfMessages=10)["Messages"]
    assert sorted(message["Body"] for message in messages) == [
        '{"backfill": {"prefix": "input/"}}',
        '{"backfill": {"prefix": "input/2026/a.csv"}}',
    ]


def test_fails_when_a_backfill_is_of_what_the_pipeline_does_not_watch(
    client: PipelineClient,
) -> None:
    with pytest.raises(CommandError, match=r"must begin with 'input/', .* got 'other/'; leave it"):
        client.backfill("other/")
