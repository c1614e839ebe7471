"""Hands jobs to the transform engine, whose instances are processes of their own."""

import contextlib
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from local_cloud.job_runner import ModelServer, Order, Outcome, Run
from transform_engine.engines import find_image
from transform_engine.errors import InstanceFailed
from transform_engine.job import Container, JobSpec, TransformJob

_ACCESS_KEY = "AWS_ACCESS_KEY_ID"
_DOCKER_HOST = "DOCKER_HOST"
_ENVIRONMENT = threading.Lock()
_LOG = logging.getLogger("local_cloud.engine")


@dataclass(frozen=True, slots=True)
class Engine:
    """Starts jobs.

    :param endpoint: where S3 and CloudWatch Logs answer.
    :param ping_timeout_s: how long a model server may take until its first 200 on /ping.
    :param container_engine: the command of docker or podman with its global options; empty is the
        first one on PATH that has the image.
    :param docker_host: where docker's daemon is, if its user says so; this process's own variable
        keeps the emulator away from it.
    """

    endpoint: str
    ping_timeout_s: float
    container_engine: tuple[str, ...]
    docker_host: str | None

    def launch(self, order: Order) -> Run:
        """Start the job's instances and return at once."""
        spec = JobSpec(
            job_name=order.request["TransformJobName"],
            request=order.request,
            containers=tuple(_container(server) for server in order.containers),
            work_dir=str(order.work_dir),
            s3_endpoint=self.endpoint,
            region=order.region,
            log_endpoint=self.endpoint,
            ping_timeout_s=self.ping_timeout_s,
            container_engine=self.container_engine,
        )
        job = TransformJob(spec)
        with _inherited({_ACCESS_KEY: order.account, _DOCKER_HOST: self.docker_host}):
            job.start()
        return _Run(job, spec.job_name)

    def why_not(self, image: str) -> str | None:
        """Say why the container engine cannot run an image, or None when it can."""
        environment = {**os.environ, _DOCKER_HOST: self.docker_host}
        try:
            find_image(
                self.container_engine,
                image,
                environment={
                    name: value for name, value in environment.items() if value is not None
                },
            )
        except InstanceFailed as failure:
            return failure.detail
        return None


def _container(server: ModelServer) -> Container:
    if server.image is None:
        return Container(
            image=server.uri,
            model_data_url=server.model_data_url,
            environment=server.environment,
            name=server.name,
        )
    return Container(
        command=tuple(server.image.command),
        cwd=str(server.image.directory),
        model_data_url=server.model_data_url,
        environment=server.environment,
        name=server.name,
    )


@contextlib.contextmanager
def _inherited(variables: Mapping[str, str | None]) -> Iterator[None]:
    """Let the processes that start now inherit these variables, and not those that are None.

    They take their account and their container engine from the environment, which is the server's.
    """
    with _ENVIRONMENT:
        own = {name: os.environ.get(name) for name in variables}
        _set(variables)
        try:
            yield
        finally:
            _set(own)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


class _Run:
    def __init__(self, job: TransformJob, name: str) -> None:
        self._job = job
        self._name = name

    def wait(self) -> Outcome:
        result = self._job.wait()
        if result.detail:
            _LOG.warning("job %s: %s", self._name, result.detail)
        return Outcome(result.status, result.failure_reason)

    def stop(self) -> None:
        self._job.stop()
