"""Hands jobs to the transform engine, whose instances are processes of their own."""

import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from local_cloud.job_runner import Order, Outcome, Run
from transform_engine.job import Container, JobSpec, TransformJob

_ACCESS_KEY = "AWS_ACCESS_KEY_ID"
_ENVIRONMENT = threading.Lock()
_LOG = logging.getLogger("local_cloud.engine")


@dataclass(frozen=True, slots=True)
class Engine:
    """Starts jobs.

    :param endpoint: where S3 and CloudWatch Logs answer.
    :param ping_timeout_s: how long a model server may take until its first 200 on /ping.
    """

    endpoint: str
    ping_timeout_s: float

    def launch(self, order: Order) -> Run:
        """Start the job's instances and return at once."""
        spec = JobSpec(
            job_name=order.request["TransformJobName"],
            request=order.request,
            containers=tuple(
                Container(
                    command=tuple(container.image.command),
                    cwd=str(container.image.directory),
                    model_data_url=container.model_data_url,
                    environment=container.environment,
                    name=container.name,
                )
                for container in order.containers
            ),
            work_dir=str(order.work_dir),
            s3_endpoint=self.endpoint,
            region=order.region,
            log_endpoint=self.endpoint,
            ping_timeout_s=self.ping_timeout_s,
        )
        job = TransformJob(spec)
        with _as_account(order.account):
            job.start()
        return _Run(job, spec.job_name)


@contextlib.contextmanager
def _as_account(account: str) -> Iterator[None]:
    """Let the processes that start now act for that account.

    They take their credentials from the environment that they inherit, which is the server's.
    """
    with _ENVIRONMENT:
        own = os.environ[_ACCESS_KEY]
        os.environ[_ACCESS_KEY] = account
        try:
            yield
        finally:
            os.environ[_ACCESS_KEY] = own


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
