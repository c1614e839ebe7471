"""The ledger: what is known of every drop, run and slot, in one DynamoDB table.

    pk             sk             what
    key#<key>      drop#<order>   a drop: waiting | claimed | done | failed | superseded
    key#<key>      head           the run that holds a claim on this key, if one does
    run#<run id>   run            a run: claiming | claimed | running | settled | closed
    slot           <number>       the permit to have a run in flight, and the run that has it
    gathering      gathering      the one run that is claiming, so that a batch stays whole
    marker         marker         when the last marker object arrived
    probe          probe          the one run that tries whether the model works at all
    proof          proof          when the model has last made an output

The sparse index `queue` holds what somebody has to look at, oldest first: waiting drops
(`queue` = waiting#<shard>, or `apart` for those that are tried in a group of their own, `due` =
since when) and runs that are not closed
(`queue` = open, `due` = when to look at them next).

Every change of a status is conditional, so each method may run twice, late, or beside itself.
"""

import random
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from heapq import merge
from itertools import islice
from typing import Any

from boto3.dynamodb.conditions import Key

from transform_lambdas import clock
from transform_lambdas.batches import Waiting
from transform_lambdas.clock import Clock, utc_now
from transform_lambdas.drops import Drop

QUEUE_INDEX = "queue"
_SHARDS = 8  # one index partition takes 1,000 writes a second
_CLAIMS_AT_ONCE = 49  # two writes a claim and one of the run; a transaction takes 100
_TRIES = 8
_BATCH_GET_LIMIT = 100
_VERSIONS_AT_ONCE = 10  # of a key: more than one or two seldom wait

_GATHERING = {"pk": "gathering", "sk": "gathering"}
_PROBE = {"pk": "probe", "sk": "probe"}
_PROOF = {"pk": "proof", "sk": "proof"}
_APART = "apart"

WAITING, CLAIMED, DONE, FAILED, SUPERSEDED = "waiting", "claimed", "done", "failed", "superseded"
CLAIMING, RUNNING, SETTLED, CLOSED = "claiming", "running", "settled", "closed"


@dataclass(frozen=True, slots=True)
class Run:
    """One batch on its way through the state machine."""

    run_id: str
    status: str
    slot: int
    due: str
    execution: str
    finishes: int
    drops: int
    size_bytes: int
    opened_at: str
    probes: bool
    result: Mapping[str, Any] | None

    @classmethod
    def from_item(cls, item: Mapping[str, Any]) -> "Run":
        """Read the ledger's item."""
        return cls(
            run_id=item["run_id"],
            status=item["run_status"],
            slot=int(item["slot"]),
            due=item.get("due", ""),
            execution=item.get("execution", ""),
            finishes=int(item.get("finishes", 0)),
            drops=int(item.get("drops", 0)),
            size_bytes=int(item.get("size_bytes", 0)),
            opened_at=item["opened_at"],
            probes=item.get("probes", False),
            result=_plain(item["result"]) if "result" in item else None,
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """A drop and where it stands."""

    drop: Drop
    status: str
    attempts: int
    run_id: str
    group: str
    first_returned_at: str | None
    reason: str


class WaitingDrops:
    """What waits, oldest first, read page by page; to be gone through once.

    :ivar seen: how many drops the pages read so far hold. The first page of every shard is read
        before anything is yielded, so these are all that wait unless a shard has more than 1 MB of
        them, which is some 2,500 drops; beyond, it is a lower bound that costs no read of its own.
    :ivar oldest: since when the one waits that waits longest, as far as read; `None`: none does.
    """

    def __init__(self, shards: Iterable[Iterator[list[dict[str, Any]]]]) -> None:
        self._shards = shards
        self.seen = 0
        self.oldest: str | None = None

    def __iter__(self) -> Iterator[Waiting]:
        return merge(*map(self._of_shard, self._shards), key=lambda entry: entry.since)

    def _of_shard(self, pages: Iterator[list[dict[str, Any]]]) -> Iterator[Waiting]:
        for page in pages:
            self.seen += len(page)
            for item in page:
                self.oldest = min(self.oldest or item["due"], item["due"])
                yield Waiting(
                    _drop_of(item),
                    item["due"],
                    item.get("tried_with", ""),
                    item.get("first_returned_at", ""),
                )


class Ledger:
    """All reads and writes of the table."""

    def __init__(self, table: Any, *, now: Clock = utc_now) -> None:
        self._name = table.name
        # A table resource is not safe among threads; its client is, and converts types as well.
        self._client = table.meta.client
        self._now = now

    # Drops arrive

    def newest(self, key: str) -> Entry | None:
        """Return the newest version of a key that is known, read consistently."""
        item = next(self._versions(key, at_once=1), None)
        return None if item is None else _entry_of(item, _drop_of(item))

    def newest_few(self, key: str) -> list[Entry]:
        """Return the newest versions of a key, one query's, the newest first, read consistently."""
        items = islice(self._versions(key, at_once=_VERSIONS_AT_ONCE), _VERSIONS_AT_ONCE)
        return [_entry_of(item, _drop_of(item)) for item in items]

    def record(self, drop: Drop, *, problem: str | None = None, since: str | None = None) -> bool:
        """Write a drop down once; return whether it is new.

        :param problem: why it has failed already.
        :param since: when it begins to wait. Default: when it was uploaded.
        """
        item: dict[str, Any] = {
            **_drop_key(drop),
            "drop_status": WAITING,
            "object_key": drop.key,
            "ordering": drop.order,
            "size": drop.size,
            "etag": drop.etag,
            "version_id": drop.version_id,
            "dropped_at": drop.dropped_at,
            "recorded_at": clock.to_text(self._now()),
            "attempts": 0,
        }
        if problem:
            item |= {"drop_status": FAILED, "reason": problem, "ended_at": item["recorded_at"]}
        else:
            item |= {"queue": _waiting_queue(drop.key), "due": since or drop.dropped_at}
        put = self._put(item, condition="attribute_not_exists(pk)")
        return self._attempt(self._client.put_item, put["Put"])

    def retry(self, drop: Drop, *, failed_at: str) -> bool:
        """Let a failed drop wait again as if it had just come; return whether this call did so.

        :param failed_at: when it failed, so that a request that comes late changes no later fate.
        """
        return self._change(
            _drop_key(drop),
            "SET drop_status = :to, queue = :queue, due = :now, attempts = :none "
            "REMOVE ended_at, tried_with, first_returned_at",
            condition="drop_status = :failed AND ended_at = :failed_at",
            values={
                ":to": WAITING,
                ":queue": _waiting_queue(drop.key),
                ":now": clock.to_text(self._now()),
                ":none": 0,
                ":failed": FAILED,
                ":failed_at": failed_at,
            },
        )

    def supersede(self, drop: Drop) -> int:
        """End the versions of the drop's key that wait and are not the newest; return how many.

        It reads no further back than to the first that ended before this drop: what an upload
        costs does not grow with the past of its key.
        """
        versions = self._versions(drop.key, at_once=_VERSIONS_AT_ONCE)
        next(versions, None)
        overtaken: list[dict[str, Any]] = []
        for item in versions:
            if item["drop_status"] == WAITING:
                overtaken.append(item)
            elif item["drop_status"] != CLAIMED and item["ordering"] < drop.order:
                break
        reason = f"a newer version of {drop.key!r} arrived before this one was claimed"
        ended = 0
        # The oldest first: cut short, this leaves none that waits below one that has ended.
        for item in reversed(overtaken):
            ended += self._change(
                {"pk": item["pk"], "sk": item["sk"]},
                "SET drop_status = :to, reason = :reason, ended_at = :now REMOVE queue, due",
                condition="drop_status = :from",
                values={
                    ":from": WAITING,
                    ":to": SUPERSEDED,
                    ":now": clock.to_text(self._now()),
                    ":reason": reason,
                },
            )
        return ended

    def mark(self, at: str) -> None:
        """Note that a marker object arrived: what waits since before it is due."""
        self._change(
            {"pk": "marker", "sk": "marker"},
            "SET marked_at = :at",
            condition="attribute_not_exists(marked_at) OR marked_at < :at",
            values={":at": at},
        )

    def marked_at(self) -> str | None:
        """Return when the last marker object arrived."""
        item = self._item({"pk": "marker", "sk": "marker"})
        return item["marked_at"] if item else None

    # Drops are claimed

    def waiting(self) -> WaitingDrops:
        """Return what waits. The index lags: a claim may find less than this shows."""
        return WaitingDrops(self._queued(f"{WAITING}#{shard}") for shard in range(_SHARDS))

    def waiting_apart(self) -> WaitingDrops:
        """Return what waits to be tried with its group alone."""
        return WaitingDrops([self._queued(_APART)])

    def taken_slots(self) -> set[int]:
        """Return the numbers of the slots that runs have."""
        items = self._items(
            KeyConditionExpression=Key("pk").eq("slot"),
            ConsistentRead=True,
        )
        return {int(item["sk"]) for item in items if "run_id" in item}

    def free_slot(self, slots: int) -> int | None:
        """Return the number of a slot that no run has; `None` while `slots` runs are in flight."""
        taken = self.taken_slots()
        if len(taken) >= slots:
            return None  # Also of numbers from before the limit was lowered.
        return next((number for number in range(slots) if number not in taken), None)

    def may_probe(self) -> bool:
        """Whether no run is in flight that tries whether the model works at all."""
        item = self._item(_PROBE)
        return not (item and "run_id" in item)

    def open_run(
        self, run_id: str, *, slot: int, drops: int, look_again_s: float, probes: bool = False
    ) -> bool:
        """Write a run down, take its slot and let it gather; return whether it was done.

        It is not when the slot was taken meanwhile, or while another run gathers.

        :param probes: it tries whether the model works at all; one run does at a time.
        """
        probe = self._update(
            _PROBE,
            "SET run_id = :run",
            condition="attribute_not_exists(run_id)",
            values={":run": run_id},
        )
        return not self._transact(
            [
                *([probe] if probes else []),
                self._put(
                    {
                        **_run_key(run_id),
                        "run_id": run_id,
                        "run_status": CLAIMING,
                        "slot": slot,
                        "drops": drops,
                        "probes": probes,
                        "opened_at": clock.to_text(self._now()),
                        "queue": "open",
                        "due": self._later(look_again_s),
                    },
                    condition="attribute_not_exists(pk)",
                ),
                self._update(
                    _slot_key(slot),
                    "SET run_id = :run, since = :now",
                    condition="attribute_not_exists(run_id)",
                    values={":run": run_id, ":now": clock.to_text(self._now())},
                ),
                self._update(
                    _GATHERING,
                    "SET run_id = :run",
                    condition="attribute_not_exists(run_id)",
                    values={":run": run_id},
                ),
            ]
        )

    def claim(self, run_id: str, drops: Sequence[Drop]) -> list[Drop] | None:
        """Claim what can be claimed for a run, and return it; `None`: the run claims no more.

        A drop is left out when it no longer waits, or when another run holds a version of its key.
        What the run has already is claimed still, so that a claim cut short can be repeated.
        """
        claimed: list[Drop] = []
        for start in range(0, len(drops), _CLAIMS_AT_ONCE):
            group = list(drops[start : start + _CLAIMS_AT_ONCE])
            while group:
                refused = self._transact(
                    [
                        # A write, not a check, so that who claimed nothing cannot abandon it.
                        self._update(
                            _run_key(run_id),
                            "SET has_claims = :yes",
                            condition="run_status = :claiming",
                            values={":claiming": CLAIMING, ":yes": True},
                        ),
                        *(write for drop in group for write in self._claim_writes(run_id, drop)),
                    ]
                )
                if not refused:
                    claimed += group
                    break
                if 0 in refused:
                    return None
                lost = {(position - 1) // 2 for position in refused}
                group = [drop for position, drop in enumerate(group) if position not in lost]
        return claimed

    def postpone(self, drop: Drop) -> None:
        """Let a drop that could not be claimed wait anew, so that it makes no other batch due.

        It waits for a run that holds another version of its key; if it waits no more, nothing
        changes.
        """
        self._change(
            _drop_key(drop),
            "SET due = :now",
            condition="drop_status = :waiting",
            values={":waiting": WAITING, ":now": clock.to_text(self._now())},
        )

    def end_claiming(self, run_id: str, *, drops: int, size_bytes: int) -> bool:
        """Let no more drops join the run; return whether it was this call that did so."""
        return not self._transact(
            [
                self._update(
                    _run_key(run_id),
                    "SET run_status = :to, drops = :drops, size_bytes = :bytes, execution = :run",
                    condition="run_status = :from",
                    values={
                        ":from": CLAIMING,
                        ":to": CLAIMED,
                        ":drops": drops,
                        ":bytes": size_bytes,
                        ":run": run_id,
                    },
                ),
                self._release(_GATHERING, run_id),
            ]
        )

    def abandon(self, run: Run) -> bool:
        """Forget a run that could claim nothing, and free its slot; return whether it was done.

        It is not when another dispatch, at work on the same run, has claimed something for it.
        """
        return not self._transact(
            [
                self._delete(
                    _run_key(run.run_id),
                    condition="run_status = :claiming AND attribute_not_exists(has_claims)",
                    values={":claiming": CLAIMING},
                ),
                self._release(_slot_key(run.slot), run.run_id),
                self._release(_GATHERING, run.run_id),
                *([self._release(_PROBE, run.run_id)] if run.probes else []),
            ]
        )

    # Runs

    def run(self, run_id: str) -> Run | None:
        """Return the run, read consistently."""
        item = self._item(_run_key(run_id))
        return Run.from_item(item) if item else None

    def runs_to_look_at(self) -> list[Run]:
        """Return the runs that are not closed and whose time to be looked at has come."""
        condition = Key("queue").eq("open") & Key("due").lte(clock.to_text(self._now()))
        items = self._items(IndexName=QUEUE_INDEX, KeyConditionExpression=condition)
        return [Run.from_item(item) for item in items]

    def look_later(self, run: Run, look_again_s: float) -> bool:
        """Postpone the next look at a run; only one of those who try at once gets True."""
        return self._change(
            _run_key(run.run_id),
            "SET due = :later",
            condition="due = :seen AND queue = :open",
            values={
                ":later": self._later(look_again_s),
                ":seen": run.due,
                ":open": "open",
            },
        )

    def mark_running(self, run_id: str) -> None:
        """Note that the run's execution was started."""
        self._change(
            _run_key(run_id),
            "SET run_status = :to, started_at = :now",
            condition="run_status = :from",
            values={
                ":from": CLAIMED,
                ":to": RUNNING,
                ":now": clock.to_text(self._now()),
            },
        )

    def begin_finish(self, run: Run, execution: str) -> bool:
        """Note the execution that is to finish a run whose own has died."""
        return self._change(
            _run_key(run.run_id),
            "SET finishes = :next, execution = :execution",
            condition="run_status <> :closed AND execution = :seen",
            values={
                ":next": run.finishes + 1,
                ":execution": execution,
                ":seen": run.execution,
                ":closed": CLOSED,
            },
        )

    def close_run(self, run_id: str) -> bool:
        """Take a settled run off the list of those to look at."""
        return self._change(
            _run_key(run_id),
            "SET run_status = :to, closed_at = :now REMOVE queue, due",
            condition="run_status = :from",
            values={
                ":from": SETTLED,
                ":to": CLOSED,
                ":now": clock.to_text(self._now()),
            },
        )

    # Drops and runs are settled

    def entries(self, drops: Sequence[Drop]) -> Iterator[Entry]:
        """Yield where each of the drops stands now, read consistently, in their order."""
        for start in range(0, len(drops), _BATCH_GET_LIMIT):
            group = drops[start : start + _BATCH_GET_LIMIT]
            items = self._batch_get([_drop_key(drop) for drop in group])
            for drop in group:
                item = items.get((f"key#{drop.key}", f"drop#{drop.order}"))
                if item:
                    yield _entry_of(item, drop)

    def finish_drop(self, run_id: str, drop: Drop, *, output: str) -> bool:
        """The drop is done: its output is at key `output`."""
        return self._settle_drop(
            run_id,
            drop,
            "SET drop_status = :to, ended_at = :now, attempts = attempts + :one, "
            "prediction_key = :output REMOVE reason",
            {":to": DONE, ":output": output},
        )

    def fail_drop(self, run_id: str, drop: Drop, *, reason: str) -> bool:
        """The drop has failed for good."""
        return self._end_drop(run_id, drop, FAILED, reason)

    def overtake(self, run_id: str, drop: Drop) -> bool:
        """The drop is superseded: a newer version of its key came before its run was settled."""
        reason = f"a newer version of {drop.key!r} arrived before this one's run was settled"
        return self._end_drop(run_id, drop, SUPERSEDED, reason)

    def give_back(self, run_id: str, drop: Drop, *, reason: str, ages: bool, group: str) -> bool:
        """The drop waits again, unless a newer version of its key has arrived meanwhile.

        :param ages: the run counts as one of its attempts.
        :param group: with whom it is to be tried; empty: with whatever waits.
        """
        given = self._settle_drop(
            run_id,
            drop,
            "SET drop_status = :to, reason = :reason, attempts = attempts + :one, queue = :queue, "
            "due = :now, tried_with = :group, "
            "first_returned_at = if_not_exists(first_returned_at, :now)",
            {
                ":to": WAITING,
                ":reason": reason,
                ":one": int(ages),
                ":queue": _APART if group else _waiting_queue(drop.key),
                ":group": group,
            },
        )
        if given:
            self.supersede(drop)
        return given

    def prove(self) -> None:
        """Note that the model has just made an output."""
        self._change(
            _PROOF,
            "SET proven_at = :now",
            condition="attribute_not_exists(proven_at) OR proven_at < :now",
            values={":now": clock.to_text(self._now())},
        )

    def proven_at(self) -> str:
        """Return when the model has last made an output; empty if it never has."""
        item = self._item(_PROOF)
        return item["proven_at"] if item else ""

    def settling_since(self, run_id: str) -> str:
        """Return when the run's settlement began, which is now unless it was begun before."""
        self._change(
            _run_key(run_id),
            "SET settling_since = :now",
            condition="attribute_exists(pk) AND attribute_not_exists(settling_since)",
            values={":now": clock.to_text(self._now())},
        )
        item = self._item(_run_key(run_id))
        assert item is not None, "a run is never deleted once it has claimed"
        since: str = item["settling_since"]
        return since

    def settle_run(self, run: Run, result: Mapping[str, Any]) -> bool:
        """Write the run's result down and free its slot; return whether this call did so."""
        return not self._transact(
            [
                self._update(
                    _run_key(run.run_id),
                    "SET run_status = :to, #result = :result, settled_at = :now",
                    condition="run_status IN (:claimed, :running)",
                    values={
                        ":to": SETTLED,
                        ":claimed": CLAIMED,
                        ":running": RUNNING,
                        ":result": dict(result),
                        ":now": clock.to_text(self._now()),
                    },
                    names={"#result": "result"},
                ),
                self._release(_slot_key(run.slot), run.run_id),
                *([self._release(_PROBE, run.run_id)] if run.probes else []),
            ]
        )

    # How it is written

    def _end_drop(self, run_id: str, drop: Drop, status: str, reason: str) -> bool:
        return self._settle_drop(
            run_id,
            drop,
            "SET drop_status = :to, ended_at = :now, reason = :reason, attempts = attempts + :one",
            {":to": status, ":reason": reason},
        )

    def _settle_drop(self, run_id: str, drop: Drop, change: str, values: dict[str, Any]) -> bool:
        now = clock.to_text(self._now())
        return not self._transact(
            [
                self._update(
                    _drop_key(drop),
                    change,
                    condition="drop_status = :claimed AND run_id = :run",
                    values={":claimed": CLAIMED, ":run": run_id, ":one": 1, ":now": now, **values},
                ),
                self._release(_head_key(drop.key), run_id),
            ]
        )

    def _claim_writes(self, run_id: str, drop: Drop) -> tuple[dict[str, Any], dict[str, Any]]:
        return (
            self._update(
                _drop_key(drop),
                "SET drop_status = :claimed, run_id = :run REMOVE queue, due",
                condition="drop_status = :waiting OR (drop_status = :claimed AND run_id = :run)",
                values={":waiting": WAITING, ":claimed": CLAIMED, ":run": run_id},
            ),
            self._update(
                _head_key(drop.key),
                "SET run_id = :run",
                condition="attribute_not_exists(run_id) OR run_id = :run",
                values={":run": run_id},
            ),
        )

    def _release(self, key: dict[str, str], run_id: str) -> dict[str, Any]:
        return self._update(
            key,
            "REMOVE run_id, since",
            condition="run_id = :run",
            values={":run": run_id},
        )

    def _put(self, item: dict[str, Any], *, condition: str) -> dict[str, Any]:
        return {"Put": {"TableName": self._name, "Item": item, "ConditionExpression": condition}}

    def _update(
        self,
        key: dict[str, str],
        change: str,
        *,
        condition: str,
        values: dict[str, Any],
        names: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        update: dict[str, Any] = {
            "TableName": self._name,
            "Key": key,
            "UpdateExpression": change,
            "ConditionExpression": condition,
            "ExpressionAttributeValues": values,
        }
        if names:
            update["ExpressionAttributeNames"] = names
        return {"Update": update}

    def _delete(
        self, key: dict[str, str], *, condition: str, values: dict[str, Any]
    ) -> dict[str, Any]:
        return {
            "Delete": {
                "TableName": self._name,
                "Key": key,
                "ConditionExpression": condition,
                "ExpressionAttributeValues": values,
            }
        }

    def _transact(self, writes: list[dict[str, Any]]) -> set[int]:
        """Do all writes or none; return the positions of those whose condition does not hold."""
        for attempt in range(1, _TRIES + 1):
            try:
                self._client.transact_write_items(TransactItems=writes)
            except self._client.exceptions.TransactionCanceledException as error:
                reasons = [reason.get("Code") for reason in error.response["CancellationReasons"]]
                refused = {
                    position
                    for position, code in enumerate(reasons)
                    if code == "ConditionalCheckFailed"
                }
                if refused:
                    return refused
                if attempt == _TRIES:
                    raise
                # A conflict with another transaction, or a throttle: it says nothing of the items.
                _pause(attempt)
            else:
                return set()
        raise AssertionError("unreachable: the last try returns or raises")

    def _change(
        self, key: dict[str, str], change: str, *, condition: str, values: dict[str, Any]
    ) -> bool:
        """Update one item if the condition holds; return whether it did."""
        update = self._update(key, change, condition=condition, values=values)
        return self._attempt(self._client.update_item, update["Update"])

    def _attempt(self, call: Any, arguments: Mapping[str, Any]) -> bool:
        for attempt in range(1, _TRIES + 1):
            try:
                call(**arguments)
            except self._client.exceptions.ConditionalCheckFailedException:
                return False  # Somebody was here before, which is what the condition is for.
            except self._client.exceptions.TransactionConflictException:
                if attempt == _TRIES:
                    raise
                _pause(attempt)
            else:
                return True
        raise AssertionError("unreachable: the last try returns or raises")

    def _item(self, key: dict[str, str]) -> dict[str, Any] | None:
        item: dict[str, Any] | None = self._client.get_item(
            TableName=self._name, Key=key, ConsistentRead=True
        ).get("Item")
        return item

    def _versions(self, key: str, *, at_once: int) -> Iterator[dict[str, Any]]:
        """Yield the drops of a key, the newest first."""
        return self._items(
            KeyConditionExpression=Key("pk").eq(f"key#{key}") & Key("sk").begins_with("drop#"),
            ConsistentRead=True,
            ScanIndexForward=False,
            Limit=at_once,
        )

    def _items(self, **query: Any) -> Iterator[dict[str, Any]]:
        for page in self._pages(**query):
            yield from page

    def _pages(self, **query: Any) -> Iterator[list[dict[str, Any]]]:
        while True:
            page = self._client.query(TableName=self._name, **query)
            yield page["Items"]
            if "LastEvaluatedKey" not in page:
                return
            query["ExclusiveStartKey"] = page["LastEvaluatedKey"]

    def _queued(self, queue: str) -> Iterator[list[dict[str, Any]]]:
        condition = Key("queue").eq(queue)
        return self._pages(IndexName=QUEUE_INDEX, KeyConditionExpression=condition)

    def _batch_get(self, keys: list[dict[str, str]]) -> dict[tuple[str, str], dict[str, Any]]:
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for attempt in range(1, _TRIES + 1):
            request = {self._name: {"Keys": keys, "ConsistentRead": True}}
            answer = self._client.batch_get_item(RequestItems=request)
            for item in answer["Responses"].get(self._name, []):
                found[item["pk"], item["sk"]] = item
            keys = answer.get("UnprocessedKeys", {}).get(self._name, {}).get("Keys", [])
            if not keys:
                return found
            _pause(attempt)
        raise TimeoutError(
            f"DynamoDB must return every item that is asked for, {len(keys)} are left after "
            f"{_TRIES} tries; the call is repeated later"
        )

    def _later(self, seconds: float) -> str:
        return clock.to_text(self._now() + timedelta(seconds=seconds))


def _pause(attempt: int) -> None:
    time.sleep(random.uniform(0, 0.05 * 2**attempt))


def _drop_key(drop: Drop) -> dict[str, str]:
    return {"pk": f"key#{drop.key}", "sk": f"drop#{drop.order}"}


def _head_key(key: str) -> dict[str, str]:
    return {"pk": f"key#{key}", "sk": "head"}


def _run_key(run_id: str) -> dict[str, str]:
    return {"pk": f"run#{run_id}", "sk": "run"}


def _slot_key(number: int) -> dict[str, str]:
    return {"pk": "slot", "sk": f"{number:05d}"}


def _waiting_queue(key: str) -> str:
    return f"{WAITING}#{zlib.crc32(key.encode()) % _SHARDS}"


def _drop_of(item: Mapping[str, Any]) -> Drop:
    return Drop(
        key=item["object_key"],
        order=item["ordering"],
        size=int(item["size"]),
        etag=item["etag"],
        version_id=item["version_id"],
        dropped_at=item["dropped_at"],
    )


def _entry_of(item: Mapping[str, Any], drop: Drop) -> Entry:
    return Entry(
        drop=drop,
        status=item["drop_status"],
        attempts=int(item["attempts"]),
        run_id=item.get("run_id", ""),
        group=item.get("tried_with", ""),
        first_returned_at=item.get("first_returned_at"),
        reason=item.get("reason", ""),
    )


def _plain(value: Any) -> Any:
    """Return DynamoDB's numbers as Python's."""
    if isinstance(value, Mapping):
        return {name: _plain(member) for name, member in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_plain(member) for member in value]
    return value if isinstance(value, str | bool) or value is None else int(value)
