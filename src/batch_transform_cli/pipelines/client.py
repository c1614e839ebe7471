"""What a client of a pipeline can know: its drops, its runs, and the prediction of an id.

The one module here that knows the ledger's items (their owner is `transform_lambdas.ledger`) and
the names under which the construct publishes where everything is. AWS and the local cloud are the
same to it, but for the address of the HTTP API.
"""

import ipaddress
import json
import os
import re
import sys
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlsplit

import boto3
from boto3.dynamodb.conditions import Attr, ConditionBase, Key
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config

from batch_transform_cli.drop.files import Watched
from batch_transform_cli.errors import BadValue, CommandError, PipelineNotFound
from batch_transform_cli.outside import AWS_ERRORS
from batch_transform_cli.pipelines.dead_letters import DeadLetters

if TYPE_CHECKING:
    from batch_transform_cli.local.project_cloud import ProjectCloud

PARAMETERS = "/batch-transform/"
OPEN_DROPS = ("waiting", "claimed")
SLOT_RUNS = ("claiming", "claimed", "running")
OPEN_RUNS = (*SLOT_RUNS, "settled")

_IS_DROP = Attr("sk").begins_with("drop#")
_RUN_ID = re.compile(r"(.+)-\d{8}t\d{6}-[0-9a-f]{6}")
_JOB_LOGS = "/aws/sagemaker/TransformJobs"
LOCAL_ACCOUNT = "000000000000"
LOCAL_REGION = "us-east-1"
"""Where a local cloud has what names no account and region."""
AWS = "aws"
"""The endpoint that is none: AWS, whatever else there is."""

_CONNECT_LIMIT_S = 10
_READ_LIMIT_S = 30
_LOCAL_READ_LIMIT_S = 20  # a busy machine's
_LOOKUP_LIMIT_S = 35  # the API itself gives up after 30
_IDS_AT_ONCE = 100  # the API takes no more
_PROBLEM = "application/problem+json"  # what the lookup function answers; the gateway's is not


@dataclass(frozen=True, kw_only=True, slots=True)
class Drop:
    """One version of one uploaded object, as the ledger knows it.

    :ivar waiting_since: when it began to wait, or to wait again; empty if it does not wait.
    :ivar failed_at: when it was given up; empty if it was not.
    :ivar ended_at: when it was done, given up or superseded; empty if it can still change.
    :ivar output_key: of its predictions, in the output bucket; empty if it is not done.
    """

    key: str
    status: str
    size: int
    attempts: int
    run_id: str
    dropped_at: str
    reason: str
    order: str
    waiting_since: str
    failed_at: str
    ended_at: str = ""
    output_key: str = ""
    etag: str = ""
    version_id: str = ""

    @property
    def is_open(self) -> bool:
        """Whether it can still change."""
        return self.status in OPEN_DROPS


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One batch on its way, as the ledger knows it.

    :ivar execution: the name of the execution that has it now; empty while it claims its drops.
    :ivar finishes: how many executions were to end it after its own had died.
    """

    run_id: str
    status: str
    drops: int
    outcome: str
    done: int
    failed: int
    waiting: int
    opened_at: str
    ended_at: str
    execution: str = ""
    finishes: int = 0

    @property
    def is_open(self) -> bool:
        """Whether it can still change."""
        return self.status in OPEN_RUNS

    @property
    def is_running(self) -> bool:
        """Whether its execution has begun and its drops are not settled."""
        return self.status == "running"

    @property
    def has_slot(self) -> bool:
        """Whether it keeps another run from beginning."""
        return self.status in SLOT_RUNS

    def took_s(self, now: datetime) -> int:
        """Return for how many seconds it was open, or has been."""
        ended = datetime.fromisoformat(self.ended_at) if self.ended_at else now
        return max(0, round((ended - datetime.fromisoformat(self.opened_at)).total_seconds()))


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """All drops and runs of a pipeline at one moment, the oldest first."""

    drops: list[Drop]
    runs: list[Run]


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """How far a pipeline is behind, and with how much at once it works.

    :ivar oldest_waiting_s: for how many seconds the drop waits that waits longest.
    :ivar slots: how many runs may be in flight.
    :ivar running_jobs: transform jobs; fewer than runs when the account's quota is reached.
    """

    waiting: int
    oldest_waiting_s: int
    slots: int
    slots_free: int
    running_jobs: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """What the pipeline last said of one id."""

    record_id: str
    prediction: Any
    dropped_at: str
    source_key: str
    run_id: str


class Cloud:
    """Where the clients look: AWS as the user's environment says, or one endpoint.

    :param endpoint: of a local cloud, or AWS. Default: what AWS_ENDPOINT_URL says, else the cloud
        that `up` runs for the project of the working directory, which a line on stderr then says,
        else AWS.
    :param place: of a local cloud: account and region. Default: what the environment says, or where
        the project's pipelines are.
    :ivar is_of_project: whether it is the project's, and was not asked for.
    """

    def __init__(
        self, endpoint: str | None = None, *, place: tuple[str, str] | None = None
    ) -> None:
        asked = endpoint or os.environ.get("AWS_ENDPOINT_URL") or None
        found = None if asked else _cloud_of_project()
        self.is_of_project = found is not None
        self.endpoint = found.endpoint if found else None if asked == AWS else asked
        if self.endpoint is not None and not _is_url(self.endpoint):
            raise BadValue(
                f"the endpoint must be a URL such as http://127.0.0.1:4566, or {AWS}, got "
                f"{self.endpoint!r}; copy the one that `batch-transform up` printed"
            )
        if self.endpoint is not None and is_local(self.endpoint):
            # Who is not on this machine now will not be a few retries later.
            self._config = Config(
                connect_timeout=_CONNECT_LIMIT_S,
                read_timeout=_LOCAL_READ_LIMIT_S,
                retries={"total_max_attempts": 2},
            )
            account, region = place or _asked_place()
            if found:
                account, region = found.place(account, region)
                _say_where(found, account, region)
            # A user's own credentials have no business here, and may not even exist.
            self.session = boto3.Session(
                aws_access_key_id=account or LOCAL_ACCOUNT,
                aws_secret_access_key="local",
                region_name=region or LOCAL_REGION,
            )
        else:
            # The AWS CLI reads both variables, boto3 only AWS_DEFAULT_REGION.
            self.session = boto3.Session(region_name=os.environ.get("AWS_REGION") or None)
            self._config = Config(
                connect_timeout=_CONNECT_LIMIT_S,
                read_timeout=_READ_LIMIT_S,
                retries={"mode": "standard", "total_max_attempts": 3},
                # Else its clients would take AWS_ENDPOINT_URL.
                ignore_configured_endpoint_urls=asked == AWS,
            )
        self._lock = threading.Lock()
        self._clients: dict[str, Any] = {}
        self._resources: dict[str, Any] = {}

    @property
    def where(self) -> str:
        """Where it looks, as a person would say it."""
        if self.endpoint is None:
            return f"AWS region {self.session.region_name}"
        if not is_local(self.endpoint):
            return self.endpoint
        account = self.session.get_credentials().access_key
        return (
            f"{self.endpoint} in account {account}, region {self.session.region_name} "
            "(AWS_ACCESS_KEY_ID and AWS_REGION choose)"
        )

    def client(self, service: str) -> Any:
        """Return the client of an AWS service, which threads may share."""
        with self._lock:  # a session is not for several threads at once
            if service not in self._clients:
                self._clients[service] = self._made(self.session.client, service)
            return self._clients[service]

    def client_in(self, service: str, *, account: str, region: str, config: Config) -> Any:
        """Return a new client in another place.

        :param account: which a local cloud knows by the access key; AWS by the credentials.
        :param config: goes before this cloud's own.
        """
        local = self.endpoint is not None and is_local(self.endpoint)
        whose = {"aws_access_key_id": account, "aws_secret_access_key": "local"} if local else {}
        with self._lock:
            return self.session.client(
                service,
                region_name=region or None,
                endpoint_url=self.endpoint,
                config=self._config.merge(config),
                **whose,
            )

    def resource(self, service: str) -> Any:
        """Return the resource of an AWS service; each thread must make what it uses of it."""
        with self._lock:
            if service not in self._resources:
                self._resources[service] = self._made(self.session.resource, service)
            return self._resources[service]

    def _made(self, make: Callable[..., Any], service: str) -> Any:
        try:
            return make(service, endpoint_url=self.endpoint, config=self._config)
        except AWS_ERRORS:
            raise
        except ValueError as error:  # such as AWS_ENDPOINT_URL_SSM that is no URL
            raise CommandError(
                f"the settings of AWS must be usable, got: {error}; correct AWS_ENDPOINT_URL_* and "
                "your AWS configuration"
            ) from error


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
                runs.append(_run(item))
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
        found = [_run(item) for item in self._items(Attr("sk").eq("run"))]
        return sorted(found, key=lambda run: run.opened_at)

    def run(self, run_id: str) -> Run | None:
        """Return the run of that id; None if there is none."""
        key = {"pk": f"run#{run_id}", "sk": "run"}
        found = self._ledger.get_item(Key=key, ConsistentRead=True)
        return _run(found["Item"]) if "Item" in found else None

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

    def log_lines(self, run_id: str, *, newest: int) -> list[str]:
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
        return [event["message"] for event in events[-newest:]]

    def lookup(self, record_id: str) -> Prediction | None:
        """Ask the HTTP API for the newest prediction of an id; None if it has none.

        :raises CommandError: the pipeline has no API, or it does not answer as it should.
        """
        reply = self._call("GET", f"?id={quote(record_id, safe='')}")
        if reply.status == 404 and reply.is_problem:
            return None
        return _prediction(reply.json())

    def lookup_many(self, record_ids: Iterable[str]) -> dict[str, Prediction | None]:
        """Ask the HTTP API for the newest predictions of ids; None for those that have none.

        :raises CommandError: the pipeline has no API, or it does not answer as it should.
        """
        found: dict[str, Prediction | None] = dict.fromkeys(record_ids)
        ids = list(found)
        for start in range(0, len(ids), _IDS_AT_ONCE):
            body = json.dumps({"ids": ids[start : start + _IDS_AT_ONCE]})
            for entry in self._call("POST", body=body.encode()).json()["predictions"]:
                found[entry["id"]] = _prediction(entry)
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


def drop_of(item: Mapping[str, Any]) -> Drop:
    """Read the ledger's item."""
    return Drop(
        key=item["object_key"],
        status=item["drop_status"],
        size=int(item["size"]),
        attempts=int(item["attempts"]),
        run_id=item.get("run_id", ""),
        dropped_at=item["dropped_at"],
        reason=item.get("reason", ""),
        order=item["ordering"],
        waiting_since=item.get("due", ""),
        failed_at=item.get("ended_at", "") if item["drop_status"] == "failed" else "",
        ended_at=item.get("ended_at", ""),
        output_key=item.get("prediction_key", ""),
        etag=item["etag"],
        version_id=item["version_id"],
    )


def _run(item: Mapping[str, Any]) -> Run:
    result = item.get("result", {})
    counts = result.get("counts", {})
    return Run(
        run_id=item["run_id"],
        status=item["run_status"],
        drops=int(item.get("drops", 0)),
        outcome=result.get("outcome", ""),
        done=int(counts.get("done", 0)),
        failed=int(counts.get("failed", 0)),
        waiting=int(counts.get("waiting", 0)),
        opened_at=item["opened_at"],
        ended_at=item.get("closed_at", ""),
        execution=item.get("execution", ""),
        finishes=int(item.get("finishes", 0)),
    )


def _prediction(entry: Mapping[str, Any]) -> Prediction:
    return Prediction(
        record_id=entry["id"],
        prediction=entry["prediction"],
        dropped_at=entry["dropped_at"],
        source_key=entry["source_key"],
        run_id=entry["run_id"],
    )


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


def _cloud_of_project() -> "ProjectCloud | None":
    if os.name != "posix":
        return None  # There is no local cloud.
    from batch_transform_cli.local.project_cloud import FOLDER, running_cloud

    found = running_cloud(Path.cwd())
    if found is not None and not is_local(found.endpoint):
        raise CommandError(
            f"the local cloud of {found.project} must be on this machine, got {found.endpoint}; "
            f"see who wrote {FOLDER} there, or name --endpoint"
        )
    return found


def _asked_place() -> tuple[str, str]:
    """Return the account and the region that the environment asks of a local cloud, or empty."""
    account = os.environ.get("AWS_ACCESS_KEY_ID", "")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ""
    return account if _is_account(account) else "", region


def _say_where(cloud: "ProjectCloud", account: str, region: str) -> None:
    """Let nobody take the project's cloud for AWS."""
    which = (
        f", account {account}, region {region} (AWS_ACCESS_KEY_ID and AWS_REGION choose)"
        if len(cloud.places) > 1
        else ""
    )
    said = f"local cloud at {cloud.endpoint}, of `batch-transform up` in {cloud.project}{which}"
    print(said, file=sys.stderr)


def is_local(url: str) -> bool:
    """Whether a URL is of this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
        # The port is read only when asked for.
        return is_address and parts.port != 0 and not re.search(r"[^!-~]", text)
    except ValueError:
        return False


def _is_account(text: str) -> bool:
    return len(text) == 12 and text.isdecimal()
