"""AWS in memory, as far as the functions call it: late, doubled, throttled and out of order.

Each call takes a while, and its effect happens at one moment of that while; there the caller may
die before or after it.
"""

import io
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

from botocore.exceptions import ClientError
from botocore.response import StreamingBody
from sortedcontainers import SortedDict, SortedSet

from tests.simulation import expressions
from tests.simulation.scheduler import Killed, Scheduler

Item = dict[str, Any]
_INDEX = ("queue", "due")  # of the ledger: partition and sort key
_NOTHING = SortedDict()


@dataclass(frozen=True, kw_only=True, slots=True)
class Faults:
    """How likely it is that something goes wrong, while faults are allowed."""

    dies: float = 0.0  # the caller, at a call
    throttled: float = 0.0
    conflict: float = 0.0  # of a transaction with another one
    slow: float = 0.0  # a call takes seconds rather than milliseconds
    doubled: float = 0.0  # a message or an event
    late: float = 0.0  # a message or an event, by hours
    lost: float = 0.0  # an event of an execution's end
    aborted: float = 0.0  # an execution
    job_fails: float = 0.0  # as a whole, with some outputs written
    index_lag_s: float = 0.0
    skew_s: float = 0.0


class _Exceptions:
    """`client.exceptions`: the service's errors by name."""

    def __getattr__(self, name: str) -> type[ClientError]:
        return _error_class(name)


@cache
def _error_class(name: str) -> type[ClientError]:
    return type(name, (ClientError,), {})


def service_error(name: str, message: str = "", **more: Any) -> ClientError:
    """Return an error as botocore raises it."""
    return _error_class(name)({"Error": {"Code": name, "Message": message}, **more}, "Call")


class Account:
    """What all clients share: the clock, the faults, and who is told of each call."""

    list_page = 20  # entries, as few as there are many on AWS

    def __init__(self, scheduler: Scheduler, faults: Faults) -> None:
        self.scheduler = scheduler
        self.faults = faults
        self.calls = 0
        self.dies_at: int | None = None  # the call that is the last one of its caller
        self.dies_after = False
        self.at_death: Callable[[], None] = lambda: None  # happens in the same moment

    @property
    def query_page(self) -> int:
        """How many items a page of a query has."""
        return self.list_page

    def likely(self, chance: float) -> bool:
        """Whether something with this chance happens now."""
        return chance > 0 and self.scheduler.random.random() < chance

    def client(self, service: Any) -> Any:
        """Return a client of the service, whose calls take time and may fail."""
        return _Client(self, service)

    def call(self, effect: Callable[[], Any]) -> Any:
        """Make a call from within a process."""
        random = self.scheduler.random
        self.calls += 1
        is_last = self.calls == self.dies_at
        takes_s = random.uniform(1, 20) if self.likely(self.faults.slow) else random.random() / 20
        self.scheduler.pause(takes_s)
        if is_last or self.likely(self.faults.dies):
            if self.dies_after if is_last else random.random() < 0.5:
                effect()
            if is_last:
                self.at_death()
            raise Killed
        if self.likely(self.faults.throttled):
            raise service_error("ThrottlingException", "Rate exceeded")
        return effect()


class _Client:
    exceptions = _Exceptions()

    def __init__(self, account: Account, service: Any) -> None:
        self._account = account
        self._service = service

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._service, name)
        return lambda **arguments: self._account.call(partial(method, **arguments))

    def get_paginator(self, name: str) -> Any:
        method = getattr(self, name)

        def paginate(**arguments: Any) -> Iterator[Any]:
            token: Any = None
            while True:
                page = method(**arguments, **({} if token is None else {"_token": token}))
                yield page
                if (token := page.get("_token")) is None:
                    return

        return SimpleNamespace(paginate=paginate)


class Table:
    """A DynamoDB table; its index shows changes a while later, in their order."""

    def __init__(
        self,
        account: Account,
        name: str,
        keys: tuple[str, str],
        *,
        on_write: Callable[[Item | None, Item | None], None] = lambda before, after: None,
    ) -> None:
        self.name = name
        self.meta = SimpleNamespace(client=account.client(self))
        self.items: dict[tuple[str, str], Item] = {}
        self._account = account
        self._keys = keys
        self._on_write = on_write
        # By partition and sort key; an index has the item's own key beside its sort key.
        self._partitions: dict[str, SortedDict] = {}
        self._indexed: dict[str, SortedDict] = {}
        self._shown: dict[tuple[str, str], Item] = {}  # by the index
        self._shown_at: dict[tuple[str, str], float] = {}  # the last change of each
        self._unshown: list[tuple[float, tuple[str, str], Item | None]] = []

    # What functions call

    def get_item(self, *, Key: Item, **_: Any) -> Item:  # noqa: N803 (boto3's names)
        item = self.items.get(self._key(Key))
        return {"Item": dict(item)} if item is not None else {}

    def put_item(self, **put: Any) -> None:
        if not self._holds(put):
            raise service_error("ConditionalCheckFailedException")
        self._write(put)

    def update_item(self, **update: Any) -> None:
        self._may_conflict(self._account.faults.conflict / 4)
        if not self._holds(update):
            raise service_error("ConditionalCheckFailedException")
        self._write(update)

    def transact_write_items(self, *, TransactItems: Sequence[Item], **_: Any) -> None:  # noqa: N803
        assert len(TransactItems) <= 100, "a transaction takes 100 writes"
        writes = [next(iter(item.values())) for item in TransactItems]
        keys = [self._key(write.get("Key") or write["Item"]) for write in writes]
        assert len({*keys}) == len(keys), "a transaction takes one write an item"
        if self._account.likely(self._account.faults.conflict):
            self._cancel(["TransactionConflict", *["None"] * (len(writes) - 1)])
        reasons = ["None" if self._holds(write) else "ConditionalCheckFailed" for write in writes]
        if any(reason != "None" for reason in reasons):
            self._cancel(reasons)
        for write in writes:
            self._write(write)

    def query(
        self,
        *,
        KeyConditionExpression: Any,  # noqa: N803
        IndexName: str | None = None,  # noqa: N803
        ScanIndexForward: bool = True,  # noqa: N803
        Limit: int = 0,  # noqa: N803
        ExclusiveStartKey: Item | None = None,  # noqa: N803
        **_: Any,
    ) -> Item:
        conditions = dict(_key_conditions(KeyConditionExpression))
        if IndexName is None:
            partition, sort = self._keys
            pool = self._partitions.get(conditions[partition][1], _NOTHING)
        else:
            partition, sort = _INDEX
            self._show()
            pool = self._indexed.get(conditions[partition][1], _NOTHING)
        last = None
        if ExclusiveStartKey is not None:
            last = (ExclusiveStartKey[sort], *self._key(ExclusiveStartKey))
        places = (
            pool.irange(minimum=last, inclusive=(False, True))
            if ScanIndexForward
            else pool.irange(maximum=last, inclusive=(True, False), reverse=True)
        )
        found = (item for item in map(pool.__getitem__, places) if _matches(item, conditions))
        page = [*itertools.islice(found, Limit or self._account.query_page)]
        answer: Item = {"Items": [dict(item) for item in page], "Count": len(page)}
        if next(found, None) is not None:
            answer["LastEvaluatedKey"] = {
                name: page[-1][name] for name in {*self._keys, partition, sort}
            }
        return answer

    def batch_get_item(self, *, RequestItems: Item, **_: Any) -> Item:  # noqa: N803
        keys = RequestItems[self.name]["Keys"]
        served = len(keys)
        if len(keys) > 1 and self._account.likely(self._account.faults.throttled):
            served = self._account.scheduler.random.randrange(1, len(keys))
        found = [self.items.get(self._key(key)) for key in keys[:served]]
        answer: Item = {"Responses": {self.name: [dict(item) for item in found if item]}}
        if served < len(keys):
            answer["UnprocessedKeys"] = {self.name: {"Keys": keys[served:]}}
        return answer

    def batch_write_item(self, *, RequestItems: Item, **_: Any) -> Item:  # noqa: N803
        for request in RequestItems[self.name]:
            self._write({"Item": request["PutRequest"]["Item"]})
        return {"UnprocessedItems": {}}

    # How it is kept

    def _key(self, item: Mapping[str, Any]) -> tuple[str, str]:
        partition, sort = self._keys
        return item[partition], item[sort]

    def _may_conflict(self, chance: float) -> None:
        if self._account.likely(chance):
            raise service_error("TransactionConflictException")

    def _cancel(self, codes: Sequence[str]) -> None:
        reasons = [{"Code": code} for code in codes]
        raise service_error("TransactionCanceledException", CancellationReasons=reasons)

    def _holds(self, write: Item) -> bool:
        if "ConditionExpression" not in write:
            return True
        item = self.items.get(self._key(write.get("Key") or write["Item"]), {})
        check = expressions.condition(write["ConditionExpression"])
        return check(
            item,
            write.get("ExpressionAttributeValues", {}),
            write.get("ExpressionAttributeNames", {}),
        )

    def _write(self, write: Item) -> None:
        key = self._key(write.get("Key") or write["Item"])
        before = self.items.get(key)
        if "Item" in write:
            after: Item | None = dict(write["Item"])
        elif "UpdateExpression" in write:
            after = dict(before) if before is not None else dict(write["Key"])
            expressions.update(write["UpdateExpression"])(
                after,
                before or {},
                write.get("ExpressionAttributeValues", {}),
                write.get("ExpressionAttributeNames", {}),
            )
        else:
            after = None
        self._on_write(before, after)
        place = (key[1], *key)
        if after is None:
            self.items.pop(key, None)
            self._partitions.get(key[0], _NOTHING).pop(place, None)
        else:
            self.items[key] = after
            if key[0] not in self._partitions:
                self._partitions[key[0]] = SortedDict()
            self._partitions[key[0]][place] = after
        if "queue" in (before or {}) or "queue" in (after or {}):
            random, now_s = self._account.scheduler.random, self._account.scheduler.now_s
            lag_s = random.uniform(0, self._account.faults.index_lag_s)
            shown_at = max(now_s + lag_s, self._shown_at.get(key, 0))
            self._shown_at[key] = shown_at
            self._unshown.append((shown_at, key, after))

    def _show(self) -> None:
        """Bring the index up to what it shows now."""
        now_s = self._account.scheduler.now_s
        left = []
        for shown_at, key, item in self._unshown:
            if shown_at > now_s:
                left.append((shown_at, key, item))
                continue
            queue, due = _INDEX
            if (old := self._shown.pop(key, None)) is not None:
                del self._indexed[old[queue]][old[due], *key]
            if item is not None and queue in item:
                self._shown[key] = item
                if item[queue] not in self._indexed:
                    self._indexed[item[queue]] = SortedDict()
                self._indexed[item[queue]][item[due], *key] = item
        self._unshown = left


def _key_conditions(expression: Any) -> Iterator[tuple[str, tuple[str, Any]]]:
    parts = expression.get_expression()
    if parts["operator"] == "AND":
        for part in parts["values"]:
            yield from _key_conditions(part)
    else:
        name, value = parts["values"]
        yield name.name, (parts["operator"], value)


def _matches(item: Item, conditions: Mapping[str, tuple[str, Any]]) -> bool:
    for name, (operator, value) in conditions.items():
        if name not in item:
            return False
        held = {
            "=": item[name] == value,
            "<=": item[name] <= value,
            "<": item[name] < value,
            ">=": item[name] >= value,
            ">": item[name] > value,
        }.get(operator)
        if held is None:
            assert operator == "begins_with", operator
            held = item[name].startswith(value)
        if not held:
            return False
    return True


@dataclass(frozen=True, slots=True)
class Version:
    """One version of an object."""

    version_id: str
    body: bytes
    at: datetime

    @property
    def etag(self) -> str:
        """Return what S3 calls the version where it has no versions."""
        return f"etag-{self.version_id}"


class S3:
    """Objects and their versions."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self.versions: dict[tuple[str, str], list[Version]] = {}
        self._keys: dict[str, SortedSet] = {}  # by bucket
        self._numbers = itertools.count(1)

    def current(self, bucket: str, key: str) -> Version | None:
        """Return the newest version."""
        return self.versions.get((bucket, key), [None])[-1]

    def put_object(
        self,
        *,
        Bucket: str,  # noqa: N803
        Key: str,  # noqa: N803
        Body: bytes,  # noqa: N803
        IfNoneMatch: str = "",  # noqa: N803
        **_: Any,
    ) -> Item:
        if IfNoneMatch and self.current(Bucket, Key) is not None:
            raise service_error("PreconditionFailed", Key)
        moment = self._account.scheduler.moment()
        version = Version(f"v{next(self._numbers)}", bytes(Body), moment)
        self.versions.setdefault((Bucket, Key), []).append(version)
        if Bucket not in self._keys:
            self._keys[Bucket] = SortedSet()
        self._keys[Bucket].add(Key)
        return {"VersionId": version.version_id, "ETag": f'"{version.etag}"'}

    def head_object(self, *, Bucket: str, Key: str, **_: Any) -> Item:  # noqa: N803
        version = self.current(Bucket, Key)
        if version is None:
            raise service_error("404", "Not Found")
        return {
            "ContentLength": len(version.body),
            "VersionId": version.version_id,
            "ETag": f'"{version.etag}"',
        }

    def get_object(
        self,
        *,
        Bucket: str,  # noqa: N803
        Key: str,  # noqa: N803
        Range: str = "",  # noqa: N803
        IfMatch: str = "",  # noqa: N803
    ) -> Item:
        version = self.current(Bucket, Key)
        if version is None:
            raise service_error("NoSuchKey", Key)
        if IfMatch and IfMatch != f'"{version.etag}"':
            raise service_error("PreconditionFailed", Key)
        body = version.body
        if Range:
            first, last = Range.removeprefix("bytes=").split("-")
            body = body[int(first) : int(last) + 1 if last else None]
        return {
            "Body": StreamingBody(io.BytesIO(body), len(body)),
            "VersionId": version.version_id,
            "ETag": f'"{version.etag}"',
            "ContentLength": len(body),
        }

    def copy_object(self, *, CopySource: Item, Bucket: str, Key: str, **_: Any) -> Item:  # noqa: N803
        version = self.current(CopySource["Bucket"], CopySource["Key"])
        if version is None:
            raise service_error("NoSuchKey", CopySource["Key"])
        return self.put_object(Bucket=Bucket, Key=Key, Body=version.body)

    def list_objects_v2(
        self,
        *,
        Bucket: str,  # noqa: N803
        Prefix: str = "",  # noqa: N803
        StartAfter: str = "",  # noqa: N803
        _token: str = "",
        **_: Any,
    ) -> Item:
        after = max(StartAfter, _token)
        keys = self._keys.get(Bucket, _NOTHING).irange(minimum=max(after, Prefix))
        found = itertools.takewhile(
            lambda key: key.startswith(Prefix), (key for key in keys if key != after)
        )
        page = [*itertools.islice(found, self._account.list_page)]
        token = page[-1] if next(found, None) is not None else None
        newest = [(key, self.versions[Bucket, key][-1]) for key in page]
        contents = [
            {
                "Key": key,
                "Size": len(version.body),
                "ETag": f'"{version.etag}"',
                "LastModified": version.at.replace(microsecond=0),
            }
            for key, version in newest
        ]
        return {"Contents": contents, "_token": token, "IsTruncated": token is not None}


@dataclass(slots=True)
class _Message:
    body: str
    number: int
    is_in_flight: bool = False
    receives: int = 0


class Queue:
    """An SQS queue that a function polls; what it does not take comes again.

    After so many vain receives it is among the dead letters, which are here as well.
    """

    def __init__(
        self,
        account: Account,
        deliver: Callable[[list[Item], Callable[[set[str] | None], None]], None],
        *,
        batch_size: int,
        visibility_s: float,
        max_receives: int,
    ) -> None:
        self._account = account
        self._max_receives = max_receives
        self._deliver = deliver
        self._batch_size = batch_size
        self._visibility_s = visibility_s
        self._waiting: dict[int, _Message] = {}
        self._dead: dict[int, _Message] = {}
        self.given_up = 0
        self._numbers = itertools.count()
        self._polls = False

    @property
    def is_empty(self) -> bool:
        """Whether no message is there, or on its way."""
        return not self._waiting

    @property
    def has_dead_letters(self) -> bool:
        """Whether messages were given up, and have not moved back."""
        return bool(self._dead)

    def receive_message(self, *, MaxNumberOfMessages: int, **_: Any) -> Item:  # noqa: N803
        """Return dead letters, and hide them for a while."""
        seen = [letter for letter in self._dead.values() if not letter.is_in_flight]
        letters = seen[:MaxNumberOfMessages]
        for letter in letters:
            letter.is_in_flight = True
            self._account.scheduler.after(30, partial(setattr, letter, "is_in_flight", False))
        return {
            "Messages": [
                {"Body": letter.body, "ReceiptHandle": str(letter.number)} for letter in letters
            ]
        }

    def delete_message_batch(self, *, Entries: Sequence[Item], **_: Any) -> None:  # noqa: N803
        """Delete dead letters."""
        for entry in Entries:
            self._dead.pop(int(entry["ReceiptHandle"]), None)

    def send_message(self, *, MessageBody: str, DelaySeconds: float = 0, **_: Any) -> None:  # noqa: N803
        assert 0 <= DelaySeconds <= 900, "SQS delays by at most 900 s"
        self.send(MessageBody, delay_s=DelaySeconds)

    def send_message_batch(self, *, Entries: Sequence[Item], **_: Any) -> Item:  # noqa: N803
        for entry in Entries:
            self.send(entry["MessageBody"], delay_s=entry.get("DelaySeconds", 0))
        return {"Successful": [{"Id": entry["Id"]} for entry in Entries]}

    def send(self, body: str, *, delay_s: float = 0) -> None:
        """Have a message delivered, perhaps twice, perhaps late."""
        random, faults = self._account.scheduler.random, self._account.faults
        for _ in range(2 if self._account.likely(faults.doubled) else 1):
            late_s = random.uniform(60, 6 * 3600) if self._account.likely(faults.late) else 0
            message = _Message(body, next(self._numbers))
            self._waiting[message.number] = message
            self._show(message, delay_s + late_s + random.random())

    def _show(self, message: _Message, after_s: float) -> None:
        message.is_in_flight = True

        def show() -> None:
            message.is_in_flight = False
            if not self._polls:
                self._polls = True
                self._account.scheduler.after(1, self._poll)

        self._account.scheduler.after(after_s, show)

    def _poll(self) -> None:
        self._polls = False
        seen = [message for message in self._waiting.values() if not message.is_in_flight]
        if not seen:
            return
        self._account.scheduler.random.shuffle(seen)
        batch = seen[: self._batch_size]
        for message in batch:
            message.is_in_flight = True
            message.receives += 1

        def ended(failed: set[str] | None) -> None:
            """All have failed if it is None: they show again when their time is over."""
            for message in batch:
                if failed is not None and str(message.number) not in failed:
                    self._waiting.pop(message.number, None)
                elif message.receives == self._max_receives and message.number in self._waiting:
                    self.given_up += 1
                    self._dead[message.number] = self._waiting.pop(message.number)
                    message.is_in_flight = False
                else:
                    self._show(message, self._visibility_s)

        records = [{"messageId": str(message.number), "body": message.body} for message in batch]
        self._deliver(records, ended)
        if len(seen) > len(batch):
            self._polls = True
            self._account.scheduler.after(0.1, self._poll)


@dataclass
class Execution:
    """One execution of the state machine."""

    arguments: Item
    status: str = "RUNNING"


@dataclass
class StepFunctions:
    """Executions by name; `begin` runs one."""

    begin: Callable[[str, Item], None]
    executions: dict[str, Execution] = field(default_factory=dict)

    def start_execution(self, *, name: str, input: str, **_: Any) -> None:
        execution = self.executions.get(name)
        if execution is not None:
            same = execution.arguments == json.loads(input)
            if same and execution.status == "RUNNING":
                return  # idempotent while it runs
            raise service_error("ExecutionAlreadyExists")
        self.executions[name] = Execution(json.loads(input))
        self.begin(name, json.loads(input))

    def describe_execution(self, *, executionArn: str, **_: Any) -> Item:  # noqa: N803
        execution = self.executions.get(executionArn.rpartition(":")[2])
        if execution is None:
            raise service_error("ExecutionDoesNotExist")
        return {"status": execution.status}


@dataclass
class TransformJob:
    """A job; `log` is its data-log, `manifest` and `outputs` are a key and a prefix."""

    name: str
    number: int
    manifest: str
    outputs: str
    status: str = "InProgress"
    failure_reason: str = ""
    log: list[str] = field(default_factory=list)


class SageMaker:
    """Transform jobs by name."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self.jobs: dict[str, TransformJob] = {}

    def list_transform_jobs(
        self,
        *,
        NameContains: str,  # noqa: N803
        _token: int = 0,
        **_: Any,
    ) -> Item:
        found = sorted(
            (job for job in self.jobs.values() if NameContains in job.name),
            key=lambda job: -job.number,
        )
        end = _token + self._account.list_page
        page = [_summary(job) for job in found[_token:end]]
        return {"TransformJobSummaries": page, "_token": end if end < len(found) else None}

    def describe_transform_job(self, *, TransformJobName: str, **_: Any) -> Item:  # noqa: N803
        if TransformJobName not in self.jobs:
            raise service_error("ValidationException", "Could not find requested job")
        return _summary(self.jobs[TransformJobName]) | {"ModelName": "churn-v1"}

    def describe_model(self, *, ModelName: str) -> Item:  # noqa: N803
        return {"ModelName": ModelName, "PrimaryContainer": {"Image": "image"}}

    def stop_transform_job(self, *, TransformJobName: str, **_: Any) -> None:  # noqa: N803
        job = self.jobs[TransformJobName]
        if job.status == "InProgress":
            job.status = "Stopping"


def _summary(job: TransformJob) -> Item:
    summary = {"TransformJobName": job.name, "TransformJobStatus": job.status}
    if job.failure_reason:
        summary["FailureReason"] = job.failure_reason
    return summary


class Logs:
    """The data-logs of jobs."""

    def __init__(self, sagemaker: SageMaker) -> None:
        self._sagemaker = sagemaker

    def describe_log_streams(self, *, logStreamNamePrefix: str, **_: Any) -> Item:  # noqa: N803
        names = [f"{name}/i-1/data-log" for name, job in self._sagemaker.jobs.items() if job.log]
        streams = [name for name in names if name.startswith(logStreamNamePrefix)]
        return {"logStreams": [{"logStreamName": name} for name in streams]}

    def filter_log_events(self, *, logStreamNames: Sequence[str], **_: Any) -> Item:  # noqa: N803
        (stream,) = logStreamNames
        return {
            "events": [{"message": line} for line in self._sagemaker.jobs[stream.split("/")[0]].log]
        }
