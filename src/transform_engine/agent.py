"""The agent of one instance: its model servers, its share of the objects, its result.

At most MaxConcurrentTransforms requests are open at a time over all objects (lanes). Each object's
replies are written in record order (object_run). An object fails alone; its output appears whole or
not at all.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from transform_engine.capture import write_manifests
from transform_engine.data_log import LogSink, agent_line
from transform_engine.errors import INTERNAL_ERROR, SEE_LOGS, InstanceFailed, NoAnswer, ObjectFailed
from transform_engine.http_client import HttpClient
from transform_engine.object_run import ObjectRun
from transform_engine.objects import Task, enumerate_tasks, output_key, read_share
from transform_engine.records import Recipe
from transform_engine.servers import ModelServers
from transform_engine.settings import Settings, settings_for
from transform_engine.small_files import ON_THEIR_WAY
from transform_engine.spec import InstanceSpec
from transform_engine.storage import LOCAL, Storage, StorageFailed, split_uri
from transform_engine.workload import Workload

Event = Mapping[str, Any]
_FAILURES_IN_DETAIL = 5
_REASON_LENGTH = 2000
_PROGRESS_S = 0.5
_END_SEEN_S = 0.5
# Large outputs, which take memory, may be among them.
_UPLOADS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class InstanceResult:
    """How one instance ended; `outputs` are the keys it wrote."""

    ok: bool
    failure_reason: str | None = None
    detail: str | None = None
    stopped: bool = False
    done: int = 0
    failed: int = 0
    outputs: tuple[str, ...] = ()


async def run_instance(
    spec: InstanceSpec,
    *,
    storage: Storage,
    log: LogSink,
    stop: asyncio.Event,
    on_event: Callable[[Event], None] = lambda event: None,
) -> InstanceResult:
    """Do an instance's share of a job and end its servers, however it ends.

    :param stop: when set, the work is given up and the result says stopped.
    """
    work = asyncio.create_task(_Agent(spec, storage, log, on_event).run())
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((work, stopping), return_when=asyncio.FIRST_COMPLETED)
    finally:
        # Also when the caller gives up: its servers must not outlive it.
        stopping.cancel()
        if not work.done():
            work.cancel()
            await asyncio.wait((work,))
    if work.cancelled():
        return InstanceResult(ok=False, stopped=True)
    return work.result()


@dataclass(slots=True)
class _Progress:
    done: list[Task] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    # Texts, since an error holds on to the payload that it is about.
    failed: int = 0
    lost: bool = False
    failure_reason: str | None = None
    told: list[str] = field(default_factory=list)


class _Agent:
    def __init__(
        self,
        spec: InstanceSpec,
        storage: Storage,
        log: LogSink,
        on_event: Callable[[Event], None],
    ) -> None:
        self._spec = spec
        self._request = spec.job.request
        self._storage = storage
        self._log = log
        self._on_event = on_event
        self._out_bucket = self._out_prefix = ""

    async def run(self) -> InstanceResult:
        try:
            return await self._run()
        except InstanceFailed as failure:
            self._say(failure.detail)
            return InstanceResult(
                ok=False, failure_reason=failure.failure_reason, detail=failure.detail
            )
        except Exception as error:
            # Nobody foresaw it, so the log has all that a person will find.
            self._say(told_in_one_line(error))
            raise

    async def _run(self) -> InstanceResult:
        servers = ModelServers(self._spec.job, self._log)
        try:
            self._out_bucket, self._out_prefix = self._output_path()
            tasks = await asyncio.to_thread(self._share)
            await servers.start(self._storage, Path(self._spec.job.work_dir))
            offered = await servers.servers[0].parameters()
            settings = settings_for(self._request, offered, self._spec.job.readings)
            self._say(settings.log_line)
            self._on_event(
                {
                    "event": "started",
                    "total": len(tasks),
                    "MaxConcurrentTransforms": settings.max_concurrent,
                    "MaxPayloadInMB": settings.max_payload_mb,
                    "BatchStrategy": settings.strategy,
                    "InvocationsTimeoutInSeconds": settings.timeout_s,
                    "InvocationsMaxRetries": settings.max_retries,
                }
            )
            progress = await self._transform(tasks, settings, servers)
            progress.done.sort(key=lambda task: task.key)
            await self._capture(progress)
            return await self._result(progress, servers)
        finally:
            # Also when the work is cancelled: nothing may be left running.
            await asyncio.shield(servers.stop())

    def _output_path(self) -> tuple[str, str]:
        try:
            return split_uri(self._request["TransformOutput"]["S3OutputPath"])
        except ValueError as error:
            raise InstanceFailed(SEE_LOGS, f"S3OutputPath: {error}") from error

    def _share(self) -> list[Task]:
        source = self._request["TransformInput"]["DataSource"]["S3DataSource"]
        spec = self._spec
        if spec.share is not None:
            return read_share(Path(spec.share))
        try:
            # Dealt out like cards, so that equal objects make equal shares.
            every = enumerate_tasks(self._storage, source)
            return list(islice(every, spec.instance_index, None, spec.instance_count))
        except InstanceFailed:
            raise
        except StorageFailed as failure:
            raise InstanceFailed(SEE_LOGS, f"the input: {failure}") from failure
        except Exception as error:
            # Whatever a storage raises: without its objects the job has no work.
            raise InstanceFailed(
                SEE_LOGS,
                f"the input must be readable, got {error!r} for {source['S3Uri']}; check that the "
                "bucket exists and that the model's role may list it",
            ) from error

    async def _capture(self, progress: _Progress) -> None:
        try:
            await write_manifests(
                self._storage, self._request, progress.done, self._spec.started_at
            )
        except StorageFailed as failure:
            raise InstanceFailed(INTERNAL_ERROR, f"the data capture: {failure}") from failure
        except Exception as error:
            # Whatever a storage raises: the outputs are there, but not what was asked for.
            uri = self._request["DataCaptureConfig"]["DestinationS3Uri"]
            raise InstanceFailed(
                INTERNAL_ERROR,
                f"the data capture must be writable, got {error!r} for {uri}; check the bucket",
            ) from error

    def _say(self, text: str) -> None:
        for line in text.splitlines():
            self._log.agent(agent_line(line))

    async def _transform(
        self, tasks: Sequence[Task], settings: Settings, servers: ModelServers
    ) -> _Progress:
        progress = _Progress()
        several = len(servers.servers) > 1
        clients = [
            HttpClient(server.port, server.host, tell_types=several) for server in servers.servers
        ]
        begin = self._storage.outputs(
            self._out_bucket,
            scratch=self._spec.job.work_dir,
            kms_key_id=self._request["TransformOutput"].get("KmsKeyId") or None,
        )
        work = Workload(
            tasks,
            recipe=Recipe(settings, started_at=self._spec.started_at),
            settings=settings,
            storage=self._storage,
            clients=clients,
            output_of=lambda task: begin(output_key(self._out_prefix, task.relative)),
            ending=ON_THEIR_WAY if self._out_bucket == LOCAL else _UPLOADS,
            on_end=partial(self._object_ended, progress),
        )
        telling = asyncio.create_task(self._tell_progress(work))
        try:
            await work.run()
        finally:
            telling.cancel()
            for client in clients:
                client.close()
        return progress

    async def _tell_progress(self, work: Workload) -> None:
        while True:
            await asyncio.sleep(_PROGRESS_S)
            size, records = work.unfinished
            try:
                self._on_event({"event": "progress", "bytes": size, "records": records})
            except Exception as error:
                work.broke(error)

    def _object_ended(
        self, progress: _Progress, run: ObjectRun, failure: ObjectFailed | None
    ) -> None:
        task = run.task
        event: dict[str, Any] = {
            "event": "object",
            "key": task.key,
            "ok": failure is None,
            "output": run.output.key if failure is None else None,
            "bytes": run.bytes_read,
            "records": run.records,
            "records_estimated": run.records_estimated,
        }
        if failure is None:
            progress.done.append(task)
            progress.outputs.append(run.output.key)
        else:
            for line in failure.lines:
                self._log.agent(agent_line(f"{task.name}: {line}"))
            progress.failed += 1
            progress.lost = progress.lost or isinstance(failure, NoAnswer)
            progress.failure_reason = progress.failure_reason or failure.failure_reason
            reason = event["reason"] = failure.reason[:_REASON_LENGTH]
            if progress.failed <= _FAILURES_IN_DETAIL:
                progress.told.append(f"{task.name}: {reason}")
        self._on_event(event)

    async def _result(self, progress: _Progress, servers: ModelServers) -> InstanceResult:
        counts: Any = {
            "done": len(progress.done),
            "failed": progress.failed,
            "outputs": tuple(progress.outputs),
        }
        if not progress.failed:
            return InstanceResult(ok=True, **counts)
        told = [*progress.told]
        more = progress.failed - len(told)
        if more:
            told.append(f"and {more} more objects")
        for server in servers.servers:
            if progress.lost and server.is_started_here:
                await server.wait_ended(_END_SEEN_S)  # Its connections are lost a little earlier.
            told += [said for said in (server.ended(), server.last_words) if said is not None]
        return InstanceResult(
            ok=False, failure_reason=progress.failure_reason, detail="\n".join(told), **counts
        )


def internal_error(error: Exception) -> InstanceResult:
    """Return the result of an instance that broke in a way nobody foresaw."""
    return InstanceResult(ok=False, failure_reason=INTERNAL_ERROR, detail=told_in_one_line(error))


def told_in_one_line(error: BaseException) -> str:
    """Return an error that nobody foresaw as one line, with what is inside a group of them."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(told_in_one_line(each) for each in error.exceptions)
    said = " ".join(repr(error).split())
    return f"the agent must not fail, got {said}; see the traceback in the server's log"
