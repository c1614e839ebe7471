"""The command `batch-transform run`: one transform job on this machine."""

import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console

from batch_transform_cli.errors import CommandError, Interrupted, JobRefused
from batch_transform_cli.job.advice import advise
from batch_transform_cli.job.documents import job_document, plan_document
from batch_transform_cli.job.dry_run import ObjectPlan, plan
from batch_transform_cli.job.inputs import Inputs, find_inputs, one_file_only, place
from batch_transform_cli.job.model import containers, wait_for_port
from batch_transform_cli.job.progress import Progress, shown
from batch_transform_cli.job.request import local_path
from batch_transform_cli.job.views import outcome, planned
from transform_engine.job import JobResult, TransformJob
from transform_engine.spec import JobSpec, Readings
from transform_engine.storage import open_storage

_PING_TIMEOUT_S = 120.0
_PORT_LIMIT_S = 3.0
_STOP_LIMIT_S = 600.0
_LOOK_S = 0.1
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What the command line asks for.

    :param request: a valid CreateTransformJob request with `file://` URIs for what is local.
    :param ping_timeout_s: None is the default.
    """

    request: Mapping[str, Any]
    models: Sequence[str]
    images: Sequence[str]
    model_url: str | None
    container_engine: Sequence[str]
    endpoint: str | None
    log_dir: Path | None
    ping_timeout_s: float | None
    readings: Readings
    as_json: bool

    @property
    def output(self) -> str:
        """Where outputs go."""
        return str(self.request["TransformOutput"]["S3OutputPath"])

    @property
    def input(self) -> str:
        """Where objects are."""
        return str(self.request["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"])

    @property
    def ends(self) -> dict[str, str]:
        """Where it reads and where it writes."""
        return {"input": self.input, "output": self.output}

    @property
    def places(self) -> list[str]:
        """Every URI of the job."""
        capture = self.request.get("DataCaptureConfig", {}).get("DestinationS3Uri", "")
        return [self.input, self.output, capture, *self.models]


def run_job(order: Order) -> int:
    """Run a job and show how it goes; return the exit code.

    :raises CommandError: it cannot be started.
    """
    with _prepared(order) as (spec, inputs):
        servers = containers(
            models=order.models,
            images=order.images,
            url=order.model_url,
            container_engine=order.container_engine,
            port_limit_s=order.ping_timeout_s or _PORT_LIMIT_S,
        )
        _make_folder("--output", local_path(order.output))
        _make_folder("--log-dir", spec.log_dir)
        spec = replace(spec, containers=servers)
        progress = Progress(
            "starting the model server", inputs.names, inputs.sizes, total=len(inputs.tasks)
        )
        begun = time.monotonic()
        result = _run(spec, progress)
    seconds = time.monotonic() - begun
    if order.as_json:
        told = job_document(spec, progress, result, places=order.ends, seconds=seconds)
        print(json.dumps(told, indent=1))
    else:
        Console(highlight=False).print(
            outcome(
                progress,
                status=result.status,
                failure_reason=result.failure_reason,
                detail=result.detail,
                output=place(order.output),
                log_dir=spec.log_dir,
            ),
            crop=False,
        )
    return {"Completed": 0, "Failed": 1, "Stopped": Interrupted.exit_code}[result.status]


def dry_run(order: Order) -> int:
    """Show what a job would read and send, and what is to be said about it; start nothing.

    :raises CommandError: the job would be refused.
    """
    with _prepared(order) as (spec, inputs):
        progress = Progress("reading", {}, inputs.sizes, total=len(inputs.tasks))
        progress.begin("reading")
        with shown(progress, Console(stderr=True)) as show:

            def on_read(found: ObjectPlan) -> None:
                progress.count(found.name, found.size or 0, found.records, found.problem)
                show()

            seen = plan(spec, open_storage(spec), inputs, on_read=on_read)
    advices = advise(seen, order.request)
    if order.as_json:
        print(json.dumps(plan_document(seen, advices, places=order.ends), indent=1))
    else:
        picture = planned(
            seen, advices, input_place=place(order.input), output_place=place(order.output)
        )
        Console(highlight=False).print(picture)
    return int(any(advice.kind == "wrong" for advice in advices))


@contextmanager
def _prepared(order: Order) -> Iterator[tuple[JobSpec, Inputs]]:
    """Give the job, still without containers, and its objects; afterwards nothing of it is left."""
    try:
        scratch = tempfile.TemporaryDirectory(prefix="batch-transform-")
    except OSError as error:
        raise JobRefused(
            f"there must be a folder for scratch files, got {error}; set TMPDIR"
        ) from error
    with scratch as folder:
        spec = JobSpec(
            job_name=order.request["TransformJobName"],
            request=one_file_only(order.request, Path(folder)),
            containers=(),
            container_engine=tuple(order.container_engine),
            work_dir=folder,
            log_dir=str(order.log_dir.absolute()) if order.log_dir is not None else None,
            ping_timeout_s=order.ping_timeout_s or _PING_TIMEOUT_S,
            readings=order.readings,
        )
        if any(uri.startswith("s3://") for uri in order.places):
            endpoint, region = _find_s3(order.endpoint)
            spec = replace(spec, s3_endpoint=endpoint, region=region)
        yield spec, find_inputs(spec, open_storage(spec))


def _find_s3(endpoint: str | None) -> tuple[str | None, str]:
    """Return S3's address and region; the instances inherit the credentials that are found."""
    # Takes half a second, which jobs with local files need not wait.
    import boto3

    from batch_transform_cli.cloud import LOCAL_ACCOUNT, LOCAL_REGION, Cloud, is_local
    from batch_transform_cli.outside import AWS_ERRORS, one_line

    try:
        cloud = Cloud(endpoint or os.environ.get(_ENDPOINTS[0]))
    except CommandError as error:
        raise JobRefused(str(error)) from error
    except AWS_ERRORS as error:
        raise JobRefused(one_line(error)) from error
    if cloud.endpoint is not None and is_local(cloud.endpoint):
        # At once: S3's clients would try for ten seconds.
        parts = urlsplit(cloud.endpoint)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        if (said := wait_for_port(parts.hostname or "", port, limit_s=0)) is not None:
            raise JobRefused(f"S3 must answer at {cloud.endpoint}, got {said}; is it running?")
    if cloud.endpoint is None:
        # The instances would take these: without --endpoint aws, neither is set.
        for name in _ENDPOINTS:
            os.environ.pop(name, None)
    elif cloud.is_of_project:
        # It was not asked for, so it gets no credentials of the user's.
        own = cloud.session.get_credentials()
        os.environ |= {"AWS_ACCESS_KEY_ID": own.access_key, "AWS_SECRET_ACCESS_KEY": own.secret_key}
        os.environ.pop("AWS_SESSION_TOKEN", None)
    elif not os.environ.get("AWS_ACCESS_KEY_ID"):
        # Something on this machine takes any, but may also be a store with keys of its own.
        os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
        found = boto3.Session().get_credentials()
        key, secret, token = (
            found.get_frozen_credentials() if found else (LOCAL_ACCOUNT, "local", None)
        )
        os.environ |= {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}
        if token:
            os.environ["AWS_SESSION_TOKEN"] = token
    return cloud.endpoint, cloud.session.region_name or LOCAL_REGION


def _make_folder(flag: str, path: str | None) -> None:
    if path is None:
        return
    try:
        os.makedirs(path, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise JobRefused(
            f"{flag} must be a folder that can be written, got {error}; choose another"
        ) from error


def _run(spec: JobSpec, progress: Progress) -> JobResult:
    job = TransformJob(spec, on_event=progress.on_event)
    console = Console(stderr=True)
    with stop_signals() as stopping, shown(progress, console) as show:
        try:
            job.start()
        except OSError as error:
            raise CommandError(
                f"the machine must be able to start {sys.executable}, got {error}; free memory or "
                "processes"
            ) from error
        while not stopping.is_set():
            try:
                return job.wait(_LOOK_S)
            except TimeoutError:
                show()
        console.print("stopping, and removing the outputs", highlight=False)
        job.stop()
        try:
            return job.wait(_STOP_LIMIT_S)
        except TimeoutError as error:
            raise CommandError(
                f"the job must stop within {_STOP_LIMIT_S:g} s, got no end; look for outputs that "
                f"it left in {place(spec.request['TransformOutput']['S3OutputPath'])}"
            ) from error


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """Give what Ctrl-C and its like set: the job then ends as StopTransformJob ends it."""
    stopping = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: stopping.set())
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) != signal.SIG_IGN  # As nohup wants it.
    }
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
