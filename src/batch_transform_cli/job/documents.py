"""What a program reads of a job that has ended, or that a dry run has planned."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from batch_transform_cli.job.advice import Advice
from batch_transform_cli.job.dry_run import Plan
from batch_transform_cli.job.progress import Progress
from batch_transform_cli.job.request import local_path
from batch_transform_cli.job.views import flags
from transform_engine.job import JobResult
from transform_engine.spec import JobSpec


def job_document(
    spec: JobSpec,
    progress: Progress,
    result: JobResult,
    *,
    places: Mapping[str, str],
    seconds: float,
) -> dict[str, Any]:
    """Return the one JSON document of `run --json`.

    :param places: the URIs of input and output, by these names.
    :param seconds: from the job's start to its end.
    """
    running = progress.seconds
    per_s = {"objects": progress.ended, "records": progress.records, "bytes": progress.bytes}
    return {
        "job_name": spec.job_name,
        "status": result.status,
        "failure_reason": result.failure_reason,
        "detail": result.detail,
        **{name: local_path(uri) or uri for name, uri in places.items()},
        "log_dir": spec.log_dir,
        "objects": {
            "total": progress.total,
            "done": progress.done,
            "failed": progress.failed,
        },
        "records": progress.records,
        "records_estimated": progress.records_estimated,
        "bytes": progress.bytes,
        "failures": [asdict(failure) for failure in progress.failures],
        "failures_left_out": progress.failed - len(progress.failures),
        "seconds": {"total": round(seconds, 3), "transforming": round(running, 3)},
        "per_second": {
            name: round(count / running, 3) if running and count is not None else None
            for name, count in per_s.items()
        },
        "instances": progress.instances,
        "settings": progress.settings,
    }


def plan_document(
    seen: Plan, advices: Sequence[Advice], *, places: Mapping[str, str]
) -> dict[str, Any]:
    """Return the one JSON document of `run --dry-run --json`.

    :param places: the URIs of input and output, by these names.
    """
    return {
        **{name: local_path(uri) or uri for name, uri in places.items()},
        "objects": {"total": seen.count, "would_fail": seen.failing_count},
        "records": seen.records,
        "bytes": seen.read_bytes,
        "requests": seen.requests,
        "mean_request_bytes": seen.body_bytes,
        "largest_record_bytes": seen.longest[0],
        "largest_record_in": seen.longest[1] or None,
        "settings": {
            "MaxConcurrentTransforms": seen.settings.max_concurrent,
            "MaxPayloadInMB": seen.settings.max_payload_mb,
            "BatchStrategy": seen.settings.strategy,
        },
        "instances": [asdict(each) for each in seen.instances],
        "listed": [asdict(each) for each in seen.objects],
        "failing": [asdict(each) for each in seen.failing],
        "advice": [
            {
                "kind": advice.kind,
                "text": advice.text,
                "suggest": {".".join(member): value for member, value in advice.suggest.items()},
                "flags": flags(advice.suggest),
            }
            for advice in advices
        ],
    }
