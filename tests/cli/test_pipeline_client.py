import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any, ClassVar

import boto3
import pytest

from batch_transform_cli.errors import CommandError, PipelineNotFound
from batch_transform_cli.pipeline_client import Cloud, PipelineClient


def test_the_only_pipeline_is_found_without_being_named(client: PipelineClient) -> None:
    assert (client.pipeline_id, client.input_bucket) == ("churn-1", "in")


def test_one_of_several_pipelines_must_be_named(publish: Any) -> None:
    publish("churn-1")
    publish("fraud-2")
    with pytest.raises(PipelineNotFound, match="must name one of churn-1, fraud-2, got none"):
        PipelineClient.find(Cloud())
    assert PipelineClient.find(Cloud(), "fraud-2").pipeline_id == "fraud-2"


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


def test_outputs_of_a_run_are_counted_where_the_job_writes_them(
    client: PipelineClient, settled_run: str
) -> None:
    s3 = boto3.client("s3")
    s3.put_object(Bucket="out", Key=f"runs/{settled_run}/step-1/input/good.csv.out", Body=b"1")
    s3.put_object(Bucket="out", Key=f"runs/{settled_run}/plan.json", Body=b"[]")

    (run,) = client.status().runs
    assert client.outputs_of(run) == 1


class Api(http.server.BaseHTTPRequestHandler):
    """The lookup API, as far as a client can tell."""

    seen: ClassVar[list[tuple[str, str]]] = []

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers.get("Authorization", "")))
        status = 404
        body: dict[str, Any] = {"message": "no such id"}
        if self.path.endswith("?id=a%2Fb%20c"):
            status, body = (
                200,
                {
                    "id": "a/b c",
                    "prediction": ["a/b c", "0.9"],
                    "dropped_at": "2026-03-01T12:00:00.000Z",
                    "source_key": "input/a.csv",
                    "run_id": "churn-1-r1",
                },
            )
        elif self.path.endswith("?id=broken"):
            status = 500
        elif self.path.endswith("?id=elsewhere"):
            body = {"message": "Not Found"}
        text = json.dumps(body).encode()
        self.send_response(status)
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
