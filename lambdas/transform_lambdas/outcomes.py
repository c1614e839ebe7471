"""What becomes of a drop that has no output: pure rules, by the kind of what went wrong."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from transform_lambdas.transform_jobs import Job, refusal

_REASON_LIMIT = 1000
# The batch and one of its halves may fail before the other half shows that the model works.
_ATTEMPTS_TOGETHER = 3
_FEWEST_DROPS = 10  # of fewer, the first that fails would be a large fraction


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of failure and what it means for the drops that it left without output.

    :ivar again: another run may help.
    :ivar ages: that run counts as an attempt: it costs what this one has cost.
    :ivar apart: one of the drops, or the model, may be the cause: they are tried in two halves, and
        count against the error budget.
    :ivar marks: words of the service by which it is known.
    """

    name: str
    again: bool = True
    ages: bool = True
    apart: bool = True
    marks: tuple[str, ...] = ()

    def shows_in(self, text: str) -> bool:
        """Whether the service's words are those of this kind."""
        return any(mark in text for mark in self.marks)


# No job ran, so nothing was paid for and nothing is known of the drops: they wait as they were.
THROTTLED = Kind("throttled", ages=False, apart=False, marks=("ThrottlingException", "Rate exceed"))
LIMIT = Kind("limit exceeded", ages=False, apart=False, marks=("ResourceLimitExceeded",))
NO_CAPACITY = Kind("no capacity", ages=False, apart=False, marks=("CapacityError",))
NAME_IN_USE = Kind(
    "name in use", ages=False, apart=False, marks=("ResourceInUse", "already exists")
)
# A run that began before a deployment asks for the model that was deployed then.
MODEL_GONE = Kind("model gone", apart=False, marks=("Could not find model",))
REFUSED = Kind(
    "refused",
    again=False,  # the same call is refused again
    marks=("ValidationException", "States.Runtime", "not supported by Step Functions"),
)
NOT_CREATED = Kind("no job", apart=False)
# A job ran.
BAD_DATA = Kind("bad data", again=False, marks=("ClientError",))
SHORT = Kind("short", again=False)  # the same rows and the same model make the same again
NOT_READY = Kind(
    "model not ready",
    again=False,  # it would take half an hour again, and end the same
    marks=("failed to respond to ping", "respond to ping", "/ping"),
)
OUT_OF_MEMORY = Kind("out of memory", marks=("out of memory", "OutOfMemory", "oom", "MemoryError"))
STOPPED = Kind("stopped", apart=False)
TIMED_OUT = Kind("timed out", marks=("States.Timeout",))
MODEL = Kind("model failed")  # 5xx, no answer, or a server that died: who knows by which drop

#: In the order in which they are looked for.
OF_REFUSALS = (THROTTLED, LIMIT, NO_CAPACITY, NAME_IN_USE, MODEL_GONE, REFUSED)
OF_JOBS = (NO_CAPACITY, NOT_READY, OUT_OF_MEMORY)


@dataclass(frozen=True, slots=True)
class Missing:
    """Why a drop has no output."""

    reason: str
    kind: Kind


def explain(
    subject: str,
    *,
    jobs: Sequence[Job],
    complaint: str | None,
    error: Mapping[str, str],
) -> Missing:
    """Say why a drop has no output of a step.

    :param subject: what the reason begins with: the drop, and the step if there are several.
    :param jobs: the step's jobs, the newest first.
    :param complaint: what their data-logs say of the drop.
    :param error: `error` and `cause` that the state machine caught, empty if none.
    """
    if complaint is not None:
        # 4xx is the container's word that the data is at fault; 5xx and silence are the model's.
        bad = complaint.startswith(BAD_DATA.marks)
        return _missing(f"{subject}: {complaint}", BAD_DATA if bad else MODEL)
    if not jobs:
        why = refusal(error) or "the run ended before it created a transform job"
        kind = _kind_of(why, OF_REFUSALS) or NOT_CREATED
        return _missing(f"{subject}: no transform job could be created: {why}", kind)
    job = jobs[0]
    if job.status == "Completed":
        kind, why = (
            MODEL,
            "ended without an output for it; was the object deleted while the job ran?",
        )
    elif job.status == "Stopped":
        timed_out = error.get("error") in TIMED_OUT.marks
        kind, why = (TIMED_OUT, "took too long") if timed_out else (STOPPED, "was stopped")
    else:
        kind = _kind_of(job.failure_reason, OF_JOBS) or MODEL
        why = f"failed: {job.failure_reason or 'no reason given'}"
    return _missing(f"{subject}: transform job {job.name} {why}", kind)


def explain_short(subject: str, *, records_in: int, records_out: int) -> Missing:
    """Say that a step has made fewer predictions than it has read records."""
    return _missing(
        f"{subject}: {records_in:,} records went in, {records_out:,} predictions came out, so some "
        "are missing and others may belong to another record; let the model answer every record "
        "with a line of its own, or set check_records=False if it leaves some out on purpose",
        SHORT,
    )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a drop without output.

    :ivar fails: why it ends; `None`: it is tried again.
    :ivar ages: the run counts as one of its attempts.
    """

    fails: str | None
    ages: bool = False


@dataclass(frozen=True, slots=True)
class ErrorBudget:
    """What part of a batch may be lost before nothing of it is tried again.

    :ivar max_failed_fraction: from 0 to below 1; `None`: there is no budget.
    """

    max_failed_fraction: float | None

    def overrun(self, missing: Iterable[Missing], *, drops: int, is_whole: bool) -> str | None:
        """Say by how much a run is over the budget; `None`: it is not.

        :param missing: all that the run has left without output.
        :param drops: that it had.
        :param is_whole: it is a batch as dispatch has cut it, not what is tried apart from another.
        """
        allowed = self.max_failed_fraction
        if allowed is None or not is_whole or drops < _FEWEST_DROPS:
            return None
        lost = sum(why.kind.apart for why in missing)
        if lost <= allowed * drops:
            return None
        return (
            f"{lost:,} of the {drops:,} drops of its run came out without predictions, more than "
            f"max_failed_fraction={allowed:g} allows, so none of them is tried again"
        )


def judge(
    missing: Missing,
    *,
    attempts: int,
    max_attempts: int,
    alone: bool,
    proven: bool,
    overrun: str | None = None,
) -> Verdict:
    """Decide whether a drop without output is tried again.

    Drops that fail together are tried in halves, so that a bad one among `n` costs 2 log2(n) runs
    and takes no other one down with it; that is no attempt of theirs. It is one when the model has
    not shown that it works: then every half would fail, and `n` drops would cost 2n runs.

    :param attempts: that the drop has had.
    :param alone: no other drop was in the run.
    :param proven: the model has made an output in this run, or since this drop first failed.
    :param overrun: by how much the run is over its error budget, if it is.
    """
    kind = missing.kind
    if not kind.again:
        return Verdict(missing.reason)
    if overrun and kind.apart:
        return Verdict(f"{missing.reason} ({overrun})")
    ages = kind.ages and (alone or not (kind.apart and proven))
    enough = max_attempts if alone else max(max_attempts, _ATTEMPTS_TOGETHER)
    if ages and attempts + 1 >= enough:
        return Verdict(f"{missing.reason} (given up after {attempts + 1} attempts)")
    return Verdict(None, ages)


def _kind_of(text: str, kinds: Sequence[Kind]) -> Kind | None:
    return next((kind for kind in kinds if kind.shows_in(text)), None)


def _missing(reason: str, kind: Kind) -> Missing:
    if len(reason) > _REASON_LIMIT:
        reason = reason[: _REASON_LIMIT - 1] + "…"
    return Missing(reason, kind)


def run_outcome(counts: Mapping[str, int]) -> str:
    """Return the outcome that is announced: Completed, PartiallyCompleted or Failed."""
    if not (counts["waiting"] or counts["failed"]):
        return "Completed"
    return "PartiallyCompleted" if counts["done"] else "Failed"
