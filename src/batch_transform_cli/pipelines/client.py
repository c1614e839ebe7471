"""What a client of a pipeline can know: its drops, its runs, and the prediction of an id.

The one module here that knows the names under which the construct publishes where everything is.
AWS and the local cloud are the same to it, but for the address of the HTTP API.
"""

import json
import re
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self
from urllib.parse import quote, urlsplit

from boto3.dynamodb.conditions import Attr, ConditionBase, Key
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

from batch_transform_cli.cloud import Cloud, is_local
from batch_transform_cli.drop.files import Watched
from batch_transform_cli.errors import CommandError, PipelineNotFound
from batch_transform_cli.pipelines.dead_letters import DeadLetters
from batch_transform_cli.pipelines.records import (
    Drop,
    Load,
    LogLine,
    Prediction,
    Run,
    Status,
    drop_of,
    prediction_of,
    run_of,
)

PARAMETERS = "/batch-transform/"
_IS_DROP = Attr("sk").begins_with("drop#")
_RUN_ID = re.compile(r"(.+)-\d{8}t\d{6}-[0-9a-f]{6}")
_JOB_LOGS = "/aws/sagemaker/TransformJobs"
_LOOKUP_LIMIT_S = 35  # the API itself gives up after 30
_IDS_AT_ONCE = 100  # the API takes no more
_PROBLEM = "application/problem+json"  # what the lookup function answers; the gateway's is not


class PipelineClient:
    """Reads one pipeline.

    :param facts: where its parts are, by the names in `/batch-transform/<pipeline id>/`.
    """

    def __init__(self, cloud: Cloud, pipeline_id: str, facts: Mapping[str, str]) -> None:
        self._cloud = cloud
        settings: dict[str, Any] = json.loads(facts.get("settings", "{}"))
        # An older release published some of them as facts of their own.
        self._settings = {**facts, **settings}
        self._facts = {**facts, **{name: str(value) for name, value in settings.items()}}
        self._ledger = cloud.resource("dynamodb").Table(facts["ledger-table"])
        self._s3 = cloud.client("s3")
        self.pipeline_id = pipeline_id

    @classmethod
    def find(cls, cloud: Cloud, pipeline_id: str | None = None, *, run_id: str = "") -> Self:
        """Return the pipeline of that id, or the only one that there is.

        :param run_id: of several, the one whose run that is.
        :raises PipelineNotFound: there is none, or no id was given and there are several.
        """
        found = cls.find_all(cloud, pipeline_id)
        if len(found) > 1 and (of_run := _RUN_ID.fullmatch(run_id)):
            found = [each for each in found if each.pipeline_id == of_run[1]] or found
        if len(found) > 1:
            names = ", ".join(client.pipeline_id for client in found)
            raise PipelineNotFound(f"--pipeline must name one of {names}, got none; name one")
        return found[0]

    @classmethod
    def find_all(cls, cloud: Cloud, pipeline_id: str | None = None) -> list[Self]:
        """Return every pipeline by its id, or the one of that id.

        :raises PipelineNotFound: there is none.
        """
        found: dict[str, dict[str, str]] = {}
        pages = cloud.client("ssm").get_paginator("get_parameters_by_path")
        for page in pages.paginate(Path=f"{PARAMETERS}{pipeline_id or ''}", Recursive=True):
            if "Parameters" not in page:
                raise CommandError(
                    f"a cloud must answer at {cloud.where}, got something else that answers; "
                    "check --endpoint and proxies"
                )
            for parameter in page["Parameters"]:
                owner, _, name = parameter["Name"].removeprefix(PARAMETERS).partition("/")
                found.setdefault(owner, {})[name] = parameter["Value"]
        if not found:
            raise PipelineNotFound(
                f"a pipeline must be deployed, got {pipeline_id or 'none'} at {cloud.where}; "
                "deploy one, or name another --pipeline, --endpoint or region"
            )
        return [cls(cloud, owner, facts) for owner, facts in sorted(found.items())]

    @property
    def input_bucket(self) -> str:
        """Where drops go."""
        return self._facts["input-bucket"]

    @property
    def input_prefix(self) -> str:
        """Under which drops go."""
        return self._facts["input-prefix"]

    @property
    def watched(self) -> Watched:
        """What is taken for a drop."""
        return Watched.read(self._settings)

    @property
    def output_bucket(self) -> str:
        """Where predictions appear."""
        return self._facts["output-bucket"]

    @property
    def has_api(self) -> bool:
        """Whether ids can be looked up."""
        return "api-url" in self._facts

    @property
    def api_url(self) -> str:
        """Where the HTTP API answers, without a slash at its end.

        :raises CommandError: the pipeline has none.
        """
        url = self._facts.get("api-url")
        if url is None:
            raise CommandError(
                f"pipeline {self.pipeline_id} must have an index to look ids up, got none; "
                "give the construct index=PredictionIndex(...) and deploy it"
            )
        if self._cloud.endpoint is None:
            return url
        # The names under amazonaws.com are AWS's; a local cloud serves its APIs at its endpoint.
        api_id = (urlsplit(url).hostname or "").split(".")[0]
        return f"{self._cloud.endpoint}/_aws/execute-api/{api_id}/$default"

    @property
    def ledger_table(self) -> str:
        """The table that knows every drop and run."""
        return self._facts["ledger-table"]

    @property
    def intake_queue_url(self) -> str:
        """The queue of uploads and backfills."""
        return self._facts["intake-queue-url"]

    @property
    def state_machine_arn(self) -> str:
        """What runs are executions of."""
        return self._fact("state-machine-arn")

    def status(self) -> Status:
        """Return every drop and run of the ledger. It reads the whole table."""
        drops = []
        runs = []
        # Besides drops and runs the table has heads, slots and marks, which are dispatch's own.
        for item in self._items(Attr("sk").eq("run") | _IS_DROP):
            if item["sk"] == "run":
                runs.append(run_of(item))
            else:
                drops.append(drop_of(item))
        return Status(
            drops=sorted(drops, key=lambda drop: (drop.dropped_at, drop.key, drop.order)),
            runs=sorted(runs, key=lambda run: run.opened_at),
        )

    def versions(self, key: str) -> list[Drop]:
        """Return the drops of one key, the oldest first."""
        condition = Key("pk").eq(f"key#{key}") & Key("sk").begins_with("drop#")
        page = self._ledger.query(  # of thousands of versions the newest
            KeyConditionExpression=condition, ConsistentRead=True, ScanIndexForward=False
        )
        return [drop_of(item) for item in reversed(page["Items"])]

    def runs(self) -> list[Run]:
        """Return every run, the oldest first. It reads the whole table."""
        found = [run_of(item) for item in self._items(Attr("sk").eq("run"))]
        return sorted(found, key=lambda run: run.opened_at)

    def run(self, run_id: str) -> Run | None:
        """Return the run of that id; None if there is none."""
        key = {"pk": f"run#{run_id}", "sk": "run"}
        found = self._ledger.get_item(Key=key, ConsistentRead=True)
        return run_of(found["Item"]) if "Item" in found else None

    def drops_of(self, run_id: str) -> list[Drop]:
        """Return the drops that the run was the last to have. It reads the whole table."""
        found = [drop_of(item) for item in self._items(_IS_DROP & Attr("run_id").eq(run_id))]
        return sorted(found, key=lambda drop: (drop.key, drop.order))

    def execution_arn(self, name: str) -> str:
        """Return the ARN of the execution of that name; a run's own has its id."""
        return f"{self.state_machine_arn.replace(':stateMachine:', ':execution:')}:{name}"

    def load(self, status: Status, *, now: datetime, jobs: Collection[str] | None = None) -> Load:
        """Return how far it is behind.

        :param status: what the ledger knows.
        :param jobs: the names of transform jobs in progress. Default: SageMaker is asked.
        """
        waiting = [drop.waiting_since for drop in status.drops if drop.waiting_since]
        waited = now - datetime.fromisoformat(min(waiting)) if waiting else timedelta()
        slots = int(self._fact("max-concurrent-runs"))
        taken = sum(run.has_slot for run in status.runs)
        if jobs is None:
            jobs = jobs_in_progress(self._cloud, f"{self.pipeline_id}-")
        runs = {run.run_id for run in status.runs}  # the id of another pipeline may begin alike
        return Load(
            waiting=len(waiting),
            oldest_waiting_s=max(0, round(waited.total_seconds())),
            slots=slots,
            slots_free=max(0, slots - taken),
            running_jobs=sum(name.rpartition("-s")[0] in runs for name in jobs),
        )

    def outputs_of(self, run: Run) -> int:
        """Return how many objects the transform job of the run's newest step has written so far."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(
            Bucket=self.output_bucket, Prefix=f"runs/{run.run_id}/step-"
        )
        folders = Counter(
            entry["Key"].split("/")[2] for page in pages for entry in page.get("Contents", [])
        )
        return folders[max(folders)] if folders else 0

    def report(self, run_id: str) -> dict[str, Any] | None:
        """Return the report of a run that is settled (docs/reports.md); None if there is none."""
        try:
            got = self._s3.get_object(Bucket=self.output_bucket, Key=f"reports/{run_id}.json")
        except self._s3.exceptions.NoSuchKey:
            return None
        told: dict[str, Any] = json.load(got["Body"])
        return told

    def reported_drops(self, run_id: str) -> Iterator[dict[str, Any]]:
        """Yield what the report of a run that is settled tells of each drop."""
        key = f"reports/{run_id}.drops.jsonl"
        lines = self._s3.get_object(Bucket=self.output_bucket, Key=key)["Body"].iter_lines()
        yield from map(json.loads, lines)

    def log_lines(self, run_id: str, *, newest: int) -> list[LogLine]:
        """Return the newest lines that the model servers and the agents of a run's jobs logged."""
        logs = self._cloud.client("logs")
        events = []
        try:
            pages = logs.get_paginator("filter_log_events").paginate(
                logGroupName=_JOB_LOGS, logStreamNamePrefix=run_id
            )
            for page in pages:
                events += page["events"]
        except logs.exceptions.ResourceNotFoundException:
            pass  # SageMaker makes the group when the first job has something to say.
        events.sort(key=lambda event: event["timestamp"])
        return [
            LogLine(
                at=f"{datetime.fromtimestamp(event['timestamp'] / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}",
                stream=event["logStreamName"],
                message=event["message"],
            )
            for event in events[-newest:]
        ]

    def lookup(self, record_id: str) -> Prediction | None:
        """Ask the HTTP API for the newest prediction of an id; None if it has none.

        :raises CommandError: the pipeline has no API, or it does not answer as it should.
        """
        reply = self._call("GET", f"?id={quote(record_id, safe='')}")
        if reply.status == 404 and reply.is_problem:
            return None
        return prediction_of(reply.json())

    def lookup_many(self, record_ids: Iterable[str]) -> dict[str, Prediction | None]:
        """Ask the HTTP API for the newest predictions of ids; None for those that have none.

        :raises CommandError: the pipeline has no API, or it does not answer as it should.
        """
        found: dict[str, Prediction | None] = dict.fromkeys(record_ids)
        ids = list(found)
        for start in range(0, len(ids), _IDS_AT_ONCE):
            body = json.dumps({"ids": ids[start : start + _IDS_AT_ONCE]})
            for entry in self._call("POST", body=body.encode()).json()["predictions"]:
                found[entry["id"]] = prediction_of(entry)
        return found

    def _call(self, method: str, query: str = "", body: bytes | None = None) -> "_Reply":
        url = f"{self.api_url}/predictions{query}"
        credentials = self._cloud.session.get_credentials()
        if credentials is None:
            raise CommandError(
                "a lookup must be signed, got no AWS credentials; log in or set AWS_PROFILE"
            )
        headers = {} if body is None else {"Content-Type": "application/json"}
        call = AWSRequest(method, url, headers, body)
        SigV4Auth(credentials, "execute-api", self._cloud.session.region_name).add_auth(call)
        return _send(urllib.request.Request(call.url, body, dict(call.headers), method=call.method))

    def backfill(self, prefix: str | None = None) -> str:
        """Have what lies under `prefix` taken as drops, but for what is known; return the prefix.

        :param prefix: of keys, or one key. Default: all that the pipeline watches.
        :raises CommandError: the pipeline does not watch it.
        """
        prefix = prefix or self.input_prefix
        if not prefix.startswith(self.input_prefix):
            raise CommandError(
                f"the prefix must begin with {self.input_prefix!r}, which the pipeline watches, "
                f"got {prefix!r}; leave it out for all of it"
            )
        self.ask_intake({"backfill": {"prefix": prefix}})
        return prefix

    def dead_letters(self) -> list[DeadLetters]:
        """Return the dead letters of each queue on the way of a drop."""
        sqs = self._cloud.client("sqs")
        return [
            DeadLetters.of(sqs, self.intake_queue_url, what="uploads"),
            DeadLetters.of(sqs, self._fact("wake-queue-url"), what="wake-ups"),
        ]

    def move_back(self, letters: DeadLetters) -> int:
        """Move dead letters back to their queue, and return how many.

        :raises CommandError: the queue takes one no more.
        """
        return letters.move_back(self._cloud.client("sqs"))

    def ask_intake(self, request: Mapping[str, Any]) -> None:
        """Send intake a request by its queue."""
        self._cloud.client("sqs").send_message(
            QueueUrl=self.intake_queue_url, MessageBody=json.dumps(request, ensure_ascii=False)
        )

    def _fact(self, name: str) -> str:
        try:
            return self._facts[name]
        except KeyError:
            raise CommandError(
                f"pipeline {self.pipeline_id} must publish {PARAMETERS}{self.pipeline_id}/{name}, "
                "got a deployment by an older release; deploy it once more"
            ) from None

    def _items(self, wanted: ConditionBase) -> Iterator[dict[str, Any]]:
        return _all_pages(self._ledger.scan, FilterExpression=wanted, ConsistentRead=True)


def _all_pages(call: Callable[..., Any], **query: Any) -> Iterator[dict[str, Any]]:
    while True:
        page = call(**query)
        yield from page["Items"]
        if "LastEvaluatedKey" not in page:
            return
        query["ExclusiveStartKey"] = page["LastEvaluatedKey"]


def jobs_in_progress(cloud: Cloud, words: str | None = None) -> list[str]:
    """Return the names of the transform jobs that run.

    :param words: are in each name. Default: all of the account.
    """
    narrowed = {} if words is None else {"NameContains": words}
    pages = cloud.client("sagemaker").get_paginator("list_transform_jobs")
    return [
        summary["TransformJobName"]
        for page in pages.paginate(StatusEquals="InProgress", **narrowed)
        for summary in page["TransformJobSummaries"]
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Reply:
    """What the lookup API, or the gateway before it, answered."""

    status: int
    is_problem: bool
    text: str

    def json(self) -> Any:
        """Return the body of a good answer."""
        if self.status != 200:
            said = json.loads(self.text)["detail"] if self.is_problem else self.text.strip()[:300]
            raise CommandError(f"the lookup must answer 200, got {self.status}: {said}")
        return json.loads(self.text)


def _send(call: urllib.request.Request) -> _Reply:
    # A proxy of the environment is for the world outside, not for this machine.
    proxies = urllib.request.ProxyHandler({} if is_local(call.full_url) else None)
    try:
        try:
            reply = urllib.request.build_opener(proxies).open(call, timeout=_LOOKUP_LIMIT_S)
        except urllib.error.HTTPError as error:
            reply = error
        with reply:
            return _Reply(
                status=reply.status,
                is_problem=reply.headers.get_content_type() == _PROBLEM,
                text=reply.read().decode(errors="replace"),
            )
    except OSError as error:
        raise CommandError(
            f"the lookup API must answer at {call.full_url}, got {error}; is the cloud running?"
        ) from error
