"""All there is to know of one run, or of one key.

Of a run that is settled its report tells most (docs/reports.md); before, the ledger and SageMaker.
"""

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from botocore.exceptions import ClientError

from batch_transform_cli.cloud import Cloud
from batch_transform_cli.errors import CommandError
from batch_transform_cli.outside import one_line
from batch_transform_cli.pipelines.client import PipelineClient
from batch_transform_cli.pipelines.records import Drop, Run

_NEAR_SHOWN = 3
_COMPARED = 2000  # names a second or so; in all the others only a part of the name is looked for
_DENIED = ("AccessDenied", "AccessDeniedException")


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One transform job of a run.

    :ivar instance_type: None if it is not known, as to who may not describe jobs.
    """

    name: str
    status: str
    instance_type: str | None
    instance_count: int | None
    failure_reason: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Fate:
    """What became of a drop in a run.

    :ivar output: the URI of its predictions; None if it is not done.
    """

    key: str
    status: str
    size: int
    attempts: int | None
    reason: str | None
    output: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunDetails:
    """A run, its jobs, its drops, and where more is told of it.

    :ivar outputs: how many objects its newest step has written; None when it is settled.
    :ivar report: as docs/reports.md describes it; None if it cannot be read.
    :ivar no_report: why it cannot; None if it was read.
    """

    pipeline_id: str
    run: Run
    outputs: int | None
    jobs: Sequence[Job]
    drops: Sequence[Fate]
    links: Mapping[str, str]
    report: Mapping[str, Any] | None
    no_report: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return all of it for programs."""
        told = dataclasses.asdict(self)
        return {"pipeline": told.pop("pipeline_id"), "kind": "run", **told}


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyDetails:
    """A key, its drops with the newest first, and what to do next.

    :ivar output: the URI of the newest predictions; None if no version is done.
    """

    pipeline_id: str
    key: str
    output: str | None
    versions: Sequence[Drop]
    next_steps: Sequence[str]

    def to_dict(self) -> dict[str, Any]:
        """Return all of it for programs."""
        told = dataclasses.asdict(self)
        return {"pipeline": told.pop("pipeline_id"), "kind": "key", **told}


def find(
    cloud: Cloud, client: PipelineClient, name: str, *, is_key: bool = False
) -> RunDetails | KeyDetails:
    """Find what has that name: a run, or else a key.

    :param name: the id of a run, or a key, also as the URI of an object in the input bucket.
    :param is_key: a run is not looked for.
    :raises CommandError: nothing has it.
    """
    if not is_key and (run := client.run(name)):
        return run_details(cloud, client, run)
    key = name.removeprefix(f"s3://{client.input_bucket}/")
    if versions := client.versions(key)[::-1]:
        return key_details(cloud, client, key, versions)
    raise unknown(client, name, "of a run or of a drop")


def run_named(client: PipelineClient, run_id: str) -> Run:
    """Return the run of that id.

    :raises CommandError: there is none.
    """
    if run := client.run(run_id):
        return run
    raise unknown(client, run_id, "of a run", keys=False)


def unknown(client: PipelineClient, name: str, what: str, *, keys: bool = True) -> CommandError:
    """Say that nothing has the name, and what has one that is near it."""
    status = client.status()
    names = [run.run_id for run in reversed(status.runs)]
    if keys:
        names = list(dict.fromkeys([*(drop.key for drop in reversed(status.drops)), *names]))
    near = nearest(name, names)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "see `batch-transform runs`"
    return CommandError(f"the name must be that {what}, got {name!r}; {hint}")


def nearest(name: str, names: Sequence[str]) -> list[str]:
    """Return names that hold this one, else such as are written alike, the best first.

    :param names: the likeliest first; of many only the first are compared letter by letter.
    """
    holding = [each for each in names if name in each]
    return holding[:_NEAR_SHOWN] or get_close_matches(name, names[:_COMPARED], _NEAR_SHOWN)


def run_details(cloud: Cloud, client: PipelineClient, run: Run) -> RunDetails:
    """Return what there is to know of a run."""
    report, no_report = _report(client, run)
    return RunDetails(
        pipeline_id=client.pipeline_id,
        run=run,
        outputs=None if run.outcome else client.outputs_of(run),
        jobs=jobs_of(cloud, run) if report is None else [_job(job) for job in report["jobs"]],
        drops=_drops(client, run) if report is None else _reported_drops(client, run),
        links=_links(client, run),
        report=report,
        no_report=no_report,
    )


def key_details(
    cloud: Cloud, client: PipelineClient, key: str, versions: Sequence[Drop]
) -> KeyDetails:
    """Return what there is to know of a key.

    :param versions: its drops, the newest first.
    """
    # A version that is done later has its predictions in the place of those before.
    outputs = (drop.output_key for drop in versions if drop.output_key)
    output = next((_uri(client.output_bucket, key) for key in outputs), None)
    at = f" --endpoint-url {cloud.endpoint}" if cloud.endpoint else ""
    return KeyDetails(
        pipeline_id=client.pipeline_id,
        key=key,
        output=output,
        versions=versions,
        next_steps=next_steps(
            versions[0],
            pipeline_id=client.pipeline_id,
            read=f"aws s3 cp {shlex.quote(output or '')} -{at}",
        ),
    )


def next_steps(newest: Drop, *, pipeline_id: str, read: str) -> list[str]:
    """Return what somebody can do about a key, as sentences and commands.

    :param newest: its newest version.
    :param read: the command that prints its predictions.
    """
    command, of = "batch-transform", f"--pipeline {pipeline_id}"
    match newest.status:
        case "done":
            return [f"read its predictions: {read}"]
        case "failed":
            logs = f" (see {command} logs {newest.run_id} {of})" if newest.run_id else ""
            return [
                f"if the file is at fault, mend it and upload it again{logs}",
                "if the model or a permission was, mend that and try again: "
                f"{command} redrive --key {shlex.quote(newest.key)} {of}",
            ]
        case "claimed":
            return [f"wait for its run: {command} show {newest.run_id} {of}"]
        case "waiting":
            return [f"wait for its batch, or for a free slot: {command} status {of}"]
        case _:
            return []


def _report(client: PipelineClient, run: Run) -> tuple[Mapping[str, Any] | None, str | None]:
    if not run.outcome:
        return None, "it is written when the run is settled"
    try:
        report = client.report(run.run_id)
    except ClientError as error:
        if error.response["Error"]["Code"] not in _DENIED:
            raise
        # Who may only watch sees the ledger all the same.
        return None, one_line(error)
    return report, None if report else "somebody has removed it"


def _reported_drops(client: PipelineClient, run: Run) -> list[Fate]:
    return [
        Fate(
            key=told["key"],
            status=told["status"],
            size=told["bytes"],
            attempts=told["attempts"],
            reason=told["reason"],
            output=_uri(client.output_bucket, told["output_key"]) if told["output_key"] else None,
        )
        for told in client.reported_drops(run.run_id)
    ]


def _drops(client: PipelineClient, run: Run) -> list[Fate]:
    return [
        Fate(
            key=drop.key,
            status=drop.status,
            size=drop.size,
            attempts=drop.attempts,
            reason=drop.reason or None,
            output=_uri(client.output_bucket, drop.output_key) if drop.output_key else None,
        )
        for drop in client.drops_of(run.run_id)
    ]


def _job(told: Mapping[str, Any]) -> Job:
    return Job(
        name=told["name"],
        status=told["status"],
        instance_type=told["instance_type"],
        instance_count=told["instance_count"],
        failure_reason=told["failure_reason"],
    )


def jobs_of(cloud: Cloud, run: Run) -> list[Job]:
    """Return the jobs of a run as SageMaker tells them, the newest first."""
    sagemaker = cloud.client("sagemaker")
    pages = sagemaker.get_paginator("list_transform_jobs").paginate(
        NameContains=f"{run.run_id}-s", SortBy="CreationTime", SortOrder="Descending"
    )
    return [
        Job(
            name=summary["TransformJobName"],
            status=summary["TransformJobStatus"],
            failure_reason=summary.get("FailureReason"),
            **_instances(sagemaker, summary["TransformJobName"]),
        )
        for page in pages
        for summary in page["TransformJobSummaries"]
    ]


def _instances(sagemaker: Any, job: str) -> dict[str, Any]:
    try:
        told = sagemaker.describe_transform_job(TransformJobName=job)["TransformResources"]
    except ClientError as error:
        if error.response["Error"]["Code"] not in _DENIED:
            raise
        told = {}
    return {
        "instance_type": told.get("InstanceType"),
        "instance_count": told.get("InstanceCount"),
    }


def _links(client: PipelineClient, run: Run) -> dict[str, str]:
    bucket, run_id = client.output_bucket, run.run_id
    links = {
        "execution": client.execution_arn(run_id),
        "manifest": _uri(bucket, f"runs/{run_id}/manifest-1.json"),
        "logs": f"batch-transform logs {run_id} --pipeline {client.pipeline_id}",
    }
    if run.finishes:
        links["settled by"] = client.execution_arn(run.execution)
    if run.outcome:
        links["report"] = _uri(bucket, f"reports/{run_id}.json")
    return links


def _uri(bucket: str, key: str) -> str:
    return f"s3://{bucket}/{key}"
