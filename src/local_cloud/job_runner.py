"""Runs transform jobs with the engine, in processes outside the emulator's."""

import contextvars
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from local_cloud import emulator, processes
from local_cloud.errors import ImageRefused
from local_cloud.images import Image, ImageSources
from local_cloud.models import containers

_LOG = logging.getLogger("local_cloud.job_runner")

INTERNAL_ERROR = "InternalServerError: We encountered an internal error. Please try again."


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended: `Completed`, `Failed` or `Stopped`, and why it failed."""

    status: str
    failure_reason: str | None = None


@dataclass(frozen=True, slots=True)
class ModelServer:
    """One container of the model, with the image that serves it here.

    :param image: the directory with its `serve`; None when the container engine has it.
    """

    uri: str
    image: Image | None
    model_data_url: str | None
    environment: Mapping[str, str]
    name: str | None


@dataclass(frozen=True, slots=True)
class Order:
    """One job as the engine gets it."""

    request: Mapping[str, Any]
    containers: list[ModelServer]
    work_dir: Path
    region: str
    account: str


class Run(Protocol):
    """A job that the engine runs."""

    def wait(self) -> Outcome:
        """Block until every process of the job has ended."""

    def stop(self) -> None:
        """Ask it to end; `wait` then returns soon."""


class JobRunner:
    """Runs each job on a thread that waits for the engine's processes."""

    def __init__(
        self, images: ImageSources, launch: Callable[[Order], Run], *, work_root: Path
    ) -> None:
        self._images = images
        self._launch = launch
        self._work_root = work_root
        self._runs: dict[str, _Job] = {}

    def start(
        self,
        job_arn: str,
        request: Mapping[str, Any],
        model: Mapping[str, Any],
        *,
        on_start: Callable[[], None],
        on_end: Callable[[Outcome], None],
    ) -> None:
        """Start the job; `on_end` is called once, whatever happens."""
        job = _Job()
        self._runs[job_arn] = job

        def run() -> None:
            work_dir = Path()
            try:
                work_dir = self._work_dir(request["TransformJobName"])
                order = self._order(request, model, work_dir)
                on_start()
                outcome = job.run(self._launch, order)
            except ImageRefused as error:
                outcome = Outcome("Failed", f"ClientError: {error}")
            except Exception as error:
                # The job's fate must be told, or whoever waits for it waits for ever.
                _LOG.exception("job %s", request["TransformJobName"])
                outcome = Outcome("Failed", f"{INTERNAL_ERROR} ({error})")
            finally:
                del self._runs[job_arn]
                if work_dir != Path():
                    shutil.rmtree(work_dir, ignore_errors=True)
            on_end(outcome)

        # The account and the region of the call go with the thread.
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=[run], name=job_arn, daemon=True).start()

    def stop(self, job_arn: str) -> None:
        """Ask the job to end, if it is still running."""
        job = self._runs.get(job_arn)
        if job is not None:
            job.stop()

    def _work_dir(self, name: str) -> Path:
        self._work_root.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._work_root))

    def _order(self, request: Mapping[str, Any], model: Mapping[str, Any], work: Path) -> Order:
        ours = {processes.MARKER: os.environ[processes.MARKER]}
        served = []
        for container in containers(model):
            image = self._images.find(container["Image"])
            needed = image.environment if image is not None else {}
            served.append(
                ModelServer(
                    uri=container["Image"],
                    image=image,
                    model_data_url=container.get("ModelDataUrl"),
                    environment=needed | ours | container.get("Environment", {}),
                    name=container.get("ContainerHostname"),
                )
            )
        return Order(
            request=request,
            containers=served,
            work_dir=work,
            region=emulator.region(),
            account=emulator.account(),
        )


class _Job:
    """Joins the stop that can come at any time with the run that comes a little later."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._run: Run | None = None
        self._stopped = False

    def run(self, launch: Callable[[Order], Run], order: Order) -> Outcome:
        with self._lock:
            if self._stopped:
                return Outcome("Stopped")
            self._run = launch(order)
        # A stop can come too late: then the engine says how the job ended before it.
        return self._run.wait()

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            if self._run is not None:
                self._run.stop()
