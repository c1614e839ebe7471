"""Bugs as somebody could write them; each must be found, or the simulation shows nothing."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from batch_transform_cli.pipelines.dead_letters import DeadLetters
from transform_lambdas import settle
from transform_lambdas.dispatch import Dispatcher
from transform_lambdas.drops import Drop, Listed
from transform_lambdas.inputs import Inputs
from transform_lambdas.intake import Receiver
from transform_lambdas.ledger import Ledger
from transform_lambdas.record_counts import Compared, RecordCounts
from transform_lambdas.run_files import RunFiles, Step

_update, _put, _transact = Ledger._update, Ledger._put, Ledger._transact
_receive = Receiver.receive
_ALWAYS = "attribute_exists(pk) OR attribute_not_exists(pk)"


def _without_condition(text: str, *, of: str = "") -> AbstractContextManager[Any]:
    """Drop a condition from every update that has it, of items whose `pk` begins so."""

    def update(self: Ledger, key: Any, change: str, *, condition: str, **more: Any) -> Any:
        if condition.startswith(text) and key["pk"].startswith(of):
            condition = _ALWAYS
        return _update(self, key, change, condition=condition, **more)

    return patch.object(Ledger, "_update", update)


def a_claim_takes_whatever_is_there() -> AbstractContextManager[Any]:
    return _without_condition("drop_status = :waiting OR")


def two_runs_may_hold_a_key() -> AbstractContextManager[Any]:
    return _without_condition("attribute_not_exists(run_id) OR run_id = :run")


def a_slot_is_taken_without_a_look() -> AbstractContextManager[Any]:
    return _without_condition("attribute_not_exists", of="slot")


def an_upload_told_twice_is_written_twice() -> AbstractContextManager[Any]:
    def put(self: Ledger, item: dict[str, Any], *, condition: str) -> dict[str, Any]:
        if "drop_status" in item:
            condition = _ALWAYS
        return _put(self, item, condition=condition)

    return patch.object(Ledger, "_put", put)


def a_run_is_settled_while_its_job_runs() -> AbstractContextManager[Any]:
    return patch.object(settle, "UNFINISHED", frozenset())


def a_drop_is_done_before_its_predictions_are_there() -> AbstractContextManager[Any]:
    def promote(
        self: RunFiles, run_id: str, step: Step, key: str, *, size: int, prefix: str
    ) -> str:
        return f"{prefix}{key}.out"

    return patch.object(RunFiles, "promote", promote)


def what_came_meanwhile_is_not_looked_for() -> AbstractContextManager[Any]:
    return patch.object(Inputs, "is_overtaken", lambda self, drop: False)


def only_events_tell_of_dead_runs() -> AbstractContextManager[Any]:
    return patch.object(Dispatcher, "look_after_open_runs", lambda self: None)


def a_settled_run_keeps_its_slot() -> AbstractContextManager[Any]:
    def transact(self: Ledger, writes: list[dict[str, Any]]) -> set[int]:
        settles = any("settled_at" in str(write) for write in writes)
        return _transact(self, writes[:1] if settles else writes)

    return patch.object(Ledger, "_transact", transact)


def a_job_reads_what_was_planned_and_not_what_was_claimed() -> AbstractContextManager[Any]:
    write_manifest = RunFiles.write_manifest

    def write(self: RunFiles, run_id: str, drops: Iterable[Drop], **more: Any) -> None:
        write_manifest(self, run_id, self.read_plan(run_id), **more)

    return patch.object(RunFiles, "write_manifest", write)


def a_message_that_failed_is_deleted() -> AbstractContextManager[Any]:
    def receive(self: Receiver, messages: Sequence[Any], **more: Any) -> tuple[Any, list[str]]:
        return _receive(self, messages, **more)[0], []

    return patch.object(Receiver, "receive", receive)


def a_backfill_takes_what_it_finds_for_known() -> AbstractContextManager[Any]:
    return patch.object(Listed, "is_known", lambda self, newest, listed_at: True)


def what_a_backfill_finds_is_below_what_is_known() -> AbstractContextManager[Any]:
    to_drop = Listed.to_drop
    return patch.object(Listed, "to_drop", lambda self, *, after: to_drop(self, after=None))


def the_newest_version_is_superseded_too() -> AbstractContextManager[Any]:
    versions = Ledger._versions

    def more(self: Ledger, key: str, *, at_once: int) -> Any:
        if at_once > 1:
            yield {"drop_status": "done", "ordering": "~"}  # is passed over in its place
        yield from versions(self, key, at_once=at_once)

    return patch.object(Ledger, "_versions", more)


def an_execution_that_died_is_taken_for_done() -> AbstractContextManager[Any]:
    return patch.object(Ledger, "begin_finish", lambda self, run, execution: False)


def a_redrive_takes_whatever_is_there() -> AbstractContextManager[Any]:
    return _without_condition("drop_status = :failed AND")


def a_redrive_told_twice_is_done_twice() -> AbstractContextManager[Any]:
    def update(self: Ledger, key: Any, change: str, *, condition: str, **more: Any) -> Any:
        condition = condition.replace(" AND ended_at = :failed_at", "")
        return _update(self, key, change, condition=condition, **more)

    return patch.object(Ledger, "_update", update)


def a_redrive_leaves_a_drop_as_old_as_it_was() -> AbstractContextManager[Any]:
    def update(self: Ledger, key: Any, change: str, *, condition: str, **more: Any) -> Any:
        change = change.replace("attempts = :none", "attempts = attempts")
        return _update(self, key, change, condition=condition, **more)

    return patch.object(Ledger, "_update", update)


def fewer_predictions_than_records_are_good_enough() -> AbstractContextManager[Any]:
    return patch.object(RecordCounts, "compare", lambda self, run_id, keys, **_: _unknown(keys))


def _unknown(keys: Iterable[str]) -> dict[str, Compared]:
    return {key: Compared() for key in keys}


def records_are_compared_before_they_are_counted() -> AbstractContextManager[Any]:
    return patch.object(RecordCounts, "plan", lambda self, run_id, drops: 0)


def each_settlement_decides_anew_what_was_overtaken() -> AbstractContextManager[Any]:
    return patch.object(RunFiles, "write_overtaken", lambda self, run_id, keys: keys)


def a_dead_letter_is_deleted_before_it_is_sent() -> AbstractContextManager[Any]:
    move_back = DeadLetters.move_back

    class Hasty:
        def __init__(self, sqs: Any) -> None:
            self._sqs = sqs

        def __getattr__(self, name: str) -> Any:
            return getattr(self._sqs, name)

        def receive_message(self, **arguments: Any) -> Any:
            received = self._sqs.receive_message(**arguments)
            self._sqs.delete_message_batch(Entries=received["Messages"])
            return received

    return patch.object(DeadLetters, "move_back", lambda self, sqs: move_back(self, Hasty(sqs)))


def each_execution_counts_anew() -> AbstractContextManager[Any]:
    def write_counts(self: RunFiles, run_id: str, part: int, counts: Sequence[Any]) -> None:
        self._write(f"runs/{run_id}/counted/{part:05d}.json", list(counts))

    return patch.object(RunFiles, "write_counts", write_counts)


MUTATIONS: tuple[Callable[[], AbstractContextManager[Any]], ...] = (
    a_claim_takes_whatever_is_there,
    two_runs_may_hold_a_key,
    a_slot_is_taken_without_a_look,
    an_upload_told_twice_is_written_twice,
    a_run_is_settled_while_its_job_runs,
    a_drop_is_done_before_its_predictions_are_there,
    what_came_meanwhile_is_not_looked_for,
    only_events_tell_of_dead_runs,
    a_settled_run_keeps_its_slot,
    a_job_reads_what_was_planned_and_not_what_was_claimed,
    a_message_that_failed_is_deleted,
    a_backfill_takes_what_it_finds_for_known,
    what_a_backfill_finds_is_below_what_is_known,
    the_newest_version_is_superseded_too,
    an_execution_that_died_is_taken_for_done,
    a_redrive_takes_whatever_is_there,
    a_redrive_told_twice_is_done_twice,
    a_redrive_leaves_a_drop_as_old_as_it_was,
    a_dead_letter_is_deleted_before_it_is_sent,
    fewer_predictions_than_records_are_good_enough,
    records_are_compared_before_they_are_counted,
)
