"""One transform job: launches its instances, sums up what they say, ends them all.

    job = TransformJob(JobSpec(...), on_event=print)
    job.start()                     # returns at once; instances are processes
    result = job.wait()             # from any thread; JobResult
    job.stop()                      # from any thread; wait() then returns "Stopped"

No asyncio in the interface. Every process that a job starts is gone when `wait` returns, and also
when the process that holds the job dies: instances end when their standard input closes.
"""

import itertools
import json
import logging
import os
import selectors
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from transform_engine.agent import InstanceResult
from transform_engine.errors import INTERNAL_ERROR, EngineError
from transform_engine.objects import Task, deal, enumerate_tasks, output_key, read_share
from transform_engine.spec import Container, InstanceSpec, JobSpec
from transform_engine.storage import StorageFailed, open_storage, split_uri

_LOG = logging.getLogger("transform_engine.job")
_FAILURES = 1000
_MARGIN_S = 5

__all__ = ["Container", "JobResult", "JobSpec", "TransformJob", "summarise"]


@dataclass(frozen=True, kw_only=True, slots=True)
class JobResult:
    """How a job ended.

    :param failure_reason: DescribeTransformJob's FailureReason, in the service's words.
    :param detail: what a person needs to know beyond it, with the server's last log lines.
    :param done: how many objects have their output.
    :param failed: how many have none.
    :param failures: the first 1,000 of them, as key and reason.
    """

    status: Literal["Completed", "Failed", "Stopped"]
    failure_reason: str | None = None
    detail: str | None = None
    done: int = 0
    failed: int = 0
    failures: tuple[tuple[str, str], ...] = ()


def summarise(results: list[InstanceResult]) -> JobResult:
    """Sum up the instances: any failure fails the job, any stop stops it."""
    done = sum(result.done for result in results)
    failed = sum(result.failed for result in results)
    if any(result.stopped for result in results):
        return JobResult(status="Stopped", done=done, failed=failed)
    for result in results:
        if not result.ok:
            return JobResult(
                status="Failed",
                failure_reason=(result.failure_reason or INTERNAL_ERROR)[:1024],
                detail=result.detail,
                done=done,
                failed=failed,
            )
    return JobResult(status="Completed", done=done)


class TransformJob:
    """A job that runs in processes of its own.

    :param on_event: called with each progress line of each instance, from a thread of the job:
        `{"event": "started"|"object"|"ended", "instance_id": …, …}`.
    """

    def __init__(
        self, spec: JobSpec, *, on_event: Callable[[Mapping[str, Any]], None] | None = None
    ) -> None:
        self._spec = spec
        self._on_event = on_event or (lambda event: None)
        self._instances: list[_Instance] = []
        self._started_at = 0
        self._stopping = threading.Event()
        self._ended = threading.Event()
        self._result: JobResult | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Launch the instances and return; several, once the objects are dealt out to them.

        :raises OSError: the machine cannot; nothing is left running then.
        """
        wanted = int(self._spec.request["TransformResources"]["InstanceCount"])
        count = max(1, min(wanted, self._spec.max_instances or os.cpu_count() or 1))
        self._started_at = int(time.time())
        if count == 1:
            self._launch([None])
        threading.Thread(
            target=self._supervise,
            args=(count,),
            name=f"transform-job {self._spec.job_name}",
            daemon=True,
        ).start()

    def _launch(self, shares: Sequence[Path | None]) -> None:
        with self._lock:
            for index, share in enumerate(shares):
                instance = InstanceSpec(
                    job=self._spec,
                    instance_id=f"i-{uuid.uuid4().hex[:17]}",
                    instance_index=index,
                    instance_count=len(shares),
                    started_at=self._started_at,
                    share=None if share is None else str(share),
                )
                self._instances.append(_Instance(instance, self._on_event))
            if self._stopping.is_set():
                for started in self._instances:
                    started.terminate()

    def _deal(self, folder: Path, count: int) -> Sequence[Path | None]:
        """Look up the objects once for all instances: if each did, a new one would shift shares."""
        source = self._spec.request["TransformInput"]["DataSource"]["S3DataSource"]
        shares = [folder / f"share-{index}.jsonl" for index in range(count)]
        try:
            deal(enumerate_tasks(open_storage(self._spec), source), shares)
        except (EngineError, ValueError):
            return [None] * count  # Each will find out what is wrong, and put it in its log.
        return shares

    def wait(self, timeout_s: float | None = None) -> JobResult:
        """Return the job's end.

        :raises TimeoutError: it has not ended within `timeout_s`.
        """
        if not self._ended.wait(timeout_s):
            raise TimeoutError(f"job {self._spec.job_name} still runs after {timeout_s} s")
        assert self._result is not None
        return self._result

    def stop(self) -> None:
        """Ask all instances to end; what the job has written so far is removed."""
        self._stopping.set()
        with self._lock:
            for instance in self._instances:
                instance.terminate()

    def _supervise(self, count: int) -> None:
        shares = Path(self._spec.work_dir, f"shares-{uuid.uuid4().hex[:8]}")
        try:
            if not self._instances:
                shares.mkdir()
                self._launch(self._deal(shares, count))
            results = [instance.wait(self._stopping) for instance in self._instances]
            told = [failure for each in self._instances for failure in each.failures]
            result = replace(summarise(results), failures=tuple(told[:_FAILURES]))
            try:
                self._tidy(result, results)
            except (StorageFailed, OSError) as error:
                left = f"what the job leaves must be removable, got: {error}"
                result = replace(result, detail="\n".join(filter(None, (result.detail, left))))
            self._result = result
        except Exception as error:  # A job must always end, whatever breaks here.
            self._result = JobResult(
                status="Failed", failure_reason=INTERNAL_ERROR, detail=repr(error)
            )
        finally:
            for instance in self._instances:
                instance.clean_up()
            shutil.rmtree(shares, ignore_errors=True)
            self._ended.set()

    def _tidy(self, result: JobResult, results: list[InstanceResult]) -> None:
        """Remove what must not stay: outputs of a stopped job, and what is half made."""
        request = self._spec.request
        stopped = result.status == "Stopped"
        lost = [each.folder for each in self._instances if each.was_killed or stopped]
        for each in self._instances:
            if each.was_killed:
                each.wait_for_the_rest()  # Which may still make files.
        keys = [key for each in results for key in each.outputs]
        if lost:
            storage = open_storage(self._spec)
            places = [request["TransformOutput"]["S3OutputPath"]]
            if capture := request.get("DataCaptureConfig"):
                places.append(capture["DestinationS3Uri"])
            for place in places:
                for folder in lost:
                    storage.sweep(*split_uri(place), str(folder))
        if keys and stopped:
            # StopTransformJob: a stopped job leaves no output in S3 (reference §2).
            bucket, _ = split_uri(request["TransformOutput"]["S3OutputPath"])
            open_storage(self._spec).delete(bucket, *keys)


def _environment(job: JobSpec) -> dict[str, str]:
    """Return the environment of an instance's process."""
    environment = dict(os.environ)
    source_root = str(Path(__file__).resolve().parents[1])
    paths = (source_root, environment.get("PYTHONPATH"))
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    if job.log_endpoint is not None:
        # An emulator takes any credentials, but the clients want some.
        environment.setdefault("AWS_ACCESS_KEY_ID", "local")
        environment.setdefault("AWS_SECRET_ACCESS_KEY", "local")
        environment["AWS_EC2_METADATA_DISABLED"] = "true"
    if job.s3_endpoint is not None:
        for name in ("NO_PROXY", "no_proxy"):
            environment[name] = ",".join(
                filter(None, (environment.get(name), "127.0.0.1,localhost"))
            )
    return environment


class _Instance:
    """One process of `transform_engine.instance` and the thread that reads what it says."""

    def __init__(self, spec: InstanceSpec, on_event: Callable[[Mapping[str, Any]], None]) -> None:
        self._spec = spec
        self._on_event = on_event
        # Each instance has a disk of its own, as on AWS.
        self.folder = Path(
            spec.job.work_dir, f"instance-{spec.instance_index}-{uuid.uuid4().hex[:8]}"
        )
        self.folder.mkdir(parents=True)
        self._errors = self.folder / "stderr.log"
        # uvloop lets all that an instance starts inherit it: it closes with the last of them.
        self._lifeline, lifeline = os.pipe()
        try:
            self._process = self._start(lifeline)
        except OSError:
            os.close(self._lifeline)
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        finally:
            os.close(lifeline)
        self._last: Mapping[str, Any] | None = None
        self._outputs: list[str] = []
        self.failures: list[tuple[str, str]] = []
        self._total = self._failed = 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _start(self, lifeline: int) -> "subprocess.Popen[bytes]":
        path = self.folder / "spec.json"
        job = replace(self._spec.job, work_dir=str(self.folder))
        replace(self._spec, job=job).write(path)
        with self._errors.open("wb") as errors:
            return subprocess.Popen(
                [sys.executable, "-m", "transform_engine.instance", str(path), "--end-with-stdin"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=_environment(job),
                pass_fds=(lifeline,),
                start_new_session=True,
            )

    @property
    def was_killed(self) -> bool:
        """Whether it could not tidy up, even if it has said how it ended."""
        return self._last is None or self._process.returncode < 0

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                event = json.loads(line)
            except ValueError:
                continue  # Not ours: a library that prints.
            if not isinstance(event, dict) or "event" not in event:
                continue
            if event["event"] == "started":
                self._total = event["total"]
            elif event["event"] == "object":
                if event["ok"]:
                    self._outputs.append(event["output"])
                else:
                    self._failed += 1
                    if len(self.failures) < _FAILURES:
                        self.failures.append((event["key"], event["reason"]))
            elif event["event"] == "ended":
                self._last = event
            try:
                self._on_event({**event, "instance_id": self._spec.instance_id})
            except Exception:  # The caller's; unread lines would block the instance.
                _LOG.exception("on_event must not raise")

    def terminate(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def wait(self, stopping: threading.Event) -> InstanceResult:
        # An instance that is asked to stop gets its servers' time and some; then it is killed,
        # and the keepers of its servers end those.
        deadline: float | None = None
        while self._process.poll() is None:
            if stopping.is_set() and deadline is None:
                deadline = time.monotonic() + self._spec.job.server_stop_timeout_s + _MARGIN_S
            if deadline is not None and time.monotonic() > deadline:
                os.killpg(self._process.pid, signal.SIGKILL)
            try:
                self._process.wait(0.2)
            except subprocess.TimeoutExpired:
                continue
        self._reader.join(10)
        done = len(self._outputs)
        counts: Any = {"done": done, "failed": self._failed, "outputs": tuple(self._outputs)}
        if self._last is None:
            if stopping.is_set():
                return InstanceResult(ok=False, stopped=True, **counts)
            # All that it had before it has failed with it.
            counts["failed"] = max(self._total - done, self._failed)
            many = min(counts["failed"] - self._failed, _FAILURES)
            left = itertools.islice(self._unfinished(), many)
            self.failures += [(task.key, INTERNAL_ERROR) for task in left]
            tail = self._errors.read_bytes()[-2000:].decode(errors="replace")
            return InstanceResult(
                ok=False,
                failure_reason=INTERNAL_ERROR,
                detail=f"instance {self._spec.instance_index} must end by itself, got "
                f"{_how_it_ended(self._process.returncode)}; its last words: {tail or 'none'}",
                **counts,
            )
        return InstanceResult(
            ok=self._last["ok"],
            failure_reason=self._last["failure_reason"],
            detail=self._last.get("detail"),
            stopped=self._last.get("stopped", False),
            **counts,
        )

    def _unfinished(self) -> Iterator[Task]:
        """Return the objects of its share that it has said nothing of."""
        spec, request = self._spec, self._spec.job.request
        _, prefix = split_uri(request["TransformOutput"]["S3OutputPath"])
        done, failed = {*self._outputs}, {key for key, _ in self.failures}
        share: Iterator[Task]
        try:
            if spec.share is None:
                source = request["TransformInput"]["DataSource"]["S3DataSource"]
                every = enumerate_tasks(open_storage(spec.job), source)
                share = itertools.islice(every, spec.instance_index, None, spec.instance_count)
            else:
                share = iter(read_share(Path(spec.share)))
            for task in share:
                if output_key(prefix, task.relative) not in done and task.key not in failed:
                    yield task
        except EngineError:
            return  # They cannot be looked up any more; their number is known.

    def wait_for_the_rest(self) -> None:
        """Wait until what it has started has ended, too."""
        # The servers of a killed instance are ended by their keepers, which takes its time.
        with selectors.DefaultSelector() as selector:
            selector.register(self._lifeline, selectors.EVENT_READ)
            if not selector.select(self._spec.job.server_stop_timeout_s + _MARGIN_S):
                _LOG.warning("a process of %s does not end", self.folder)

    def clean_up(self) -> None:
        """End what is left of it, with all that it started."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._reader.join(10)
        self._process.stdin.close()
        self._process.stdout.close()
        self.wait_for_the_rest()
        os.close(self._lifeline)
        shutil.rmtree(self.folder, ignore_errors=True)


def _how_it_ended(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code} ({signal.strsignal(-code)})"
