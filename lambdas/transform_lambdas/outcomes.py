"""What becomes of a drop that has no output: pure rules."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transform_lambdas.transform_jobs import Job, refusal

_REASON_LIMIT = 1000
# The caller's doing: the same call is refused again. All else may pass by itself.
_LASTING_REFUSALS = ("ValidationException", "States.Runtime", "not supported by Step Functions")
_PASSING_REFUSALS = (
    "ThrottlingException",
    "Rate exceeded",
    "ResourceLimitExceeded",
    # A run that began before a deployment asks for the model that was deployed then.
    "Could not find model",
)


@dataclass(frozen=True, slots=True)
class Missing:
    """Why a drop has no output, and whether another run could help."""

    reason: str
    may_pass: bool


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
        lasting = complaint.startswith("ClientError")
        return _missing(f"{subject}: {complaint}", may_pass=not lasting)
    if not jobs:
        why = refusal(error) or "the run ended before it created a transform job"
        passing = any(mark in why for mark in _PASSING_REFUSALS)
        lasting = any(mark in why for mark in _LASTING_REFUSALS)
        return _missing(
            f"{subject}: no transform job could be created: {why}",
            may_pass=passing or not lasting,
        )
    job = jobs[0]
    if job.status == "Completed":
        why = "ended without an output for it; was the object deleted while the job ran?"
    elif job.status == "Stopped":
        why = "was stopped"
    else:
        why = f"failed: {job.failure_reason or 'no reason given'}"
    return _missing(f"{subject}: transform job {job.name} {why}", may_pass=True)


def _missing(reason: str, *, may_pass: bool) -> Missing:
    if len(reason) > _REASON_LIMIT:
        reason = reason[: _REASON_LIMIT - 1] + "…"
    return Missing(reason, may_pass)


def run_outcome(counts: Mapping[str, int]) -> str:
    """Return the outcome that is announced: Completed, PartiallyCompleted or Failed."""
    if not (counts["waiting"] or counts["failed"]):
        return "Completed"
    return "PartiallyCompleted" if counts["done"] else "Failed"
