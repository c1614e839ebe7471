"""The agent of one instance: its model servers, its share of the objects, its result.

At most MaxConcurrentTransforms requests are open at a time over all objects. Each object's replies
are written in record order, out of a window that bounds what is held in memory. An object fails
alone; its output appears whole or not at all.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from transform_engine.capture import write_manifests
from transform_engine.data_log import LogSink, agent_line
from transform_engine.errors import (
    INTERNAL_ERROR,
    SEE_LOGS,
    BadInput,
    InstanceFailed,
    ModelFailed,
    ModelRefused,
    NoAnswer,
    ObjectFailed,
)
from transform_engine.http_client import Body, HttpClient, NoReply, Reply, TimedOut
from transform_engine.objects import Task, enumerate_tasks, output_key
from transform_engine.packing import Payload
from transform_engine.records import Recipe, gunzip
from transform_engine.servers import ModelServers
from transform_engine.settings import Settings, settings_for
from transform_engine.spec import InstanceSpec
from transform_engine.storage import Output, Storage, split_uri

Event = Mapping[str, Any]
_FAILURES_IN_DETAIL = 5
_REASON_LENGTH = 2000


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
    total: int
    done: list[Task] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    # Texts, since an error holds on to the payload that it is about.
    failed: int = 0
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
            progress = _Progress(len(tasks))
            transform = _Transform(settings, self._spec, self._storage, servers)
            await self._all(transform, tasks, settings.max_concurrent, progress)
            progress.done.sort(key=lambda task: task.key)
            await self._capture(progress)
            return self._result(progress, servers)
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
        try:
            # Dealt out like cards, so that equal objects make equal shares.
            every = enumerate_tasks(self._storage, source)
            return list(islice(every, spec.instance_index, None, spec.instance_count))
        except InstanceFailed:
            raise
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

    async def _all(
        self, transform: "_Transform", tasks: Sequence[Task], concurrency: int, progress: _Progress
    ) -> None:
        left = iter(tasks)

        async def work() -> None:
            for task in left:
                await self._one(transform, task, progress)

        # Enough objects at a time to fill the requests when each object is one request.
        async with asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, len(tasks))):
                group.create_task(work())

    async def _one(self, transform: "_Transform", task: Task, progress: _Progress) -> None:
        key = output_key(self._out_prefix, task.relative)
        event: dict[str, Any] = {"event": "object", "key": task.key, "ok": True, "output": key}
        try:
            output = self._storage.output(
                self._out_bucket,
                key,
                scratch=self._spec.job.work_dir,
                kms_key_id=self._request["TransformOutput"].get("KmsKeyId") or None,
            )
            try:
                await transform.object(task, output)
                await self._commit(key, output)
            finally:
                output.discard()
        except ObjectFailed as failure:
            for line in failure.lines:
                self._log.agent(agent_line(f"{task.name}: {line}"))
            progress.failed += 1
            progress.failure_reason = progress.failure_reason or failure.failure_reason
            reason = str(failure)[:_REASON_LENGTH]
            if progress.failed <= _FAILURES_IN_DETAIL:
                progress.told.append(f"{task.name}: {reason}")
            event |= {"ok": False, "output": None, "reason": reason}
            # Its frames hold the payloads, and refer to it in turn: they would wait for the
            # collector, which counts objects and not bytes.
            failure.with_traceback(None)
        else:
            progress.done.append(task)
            progress.outputs.append(key)
        self._on_event(
            {
                **event,
                "done": len(progress.done),
                "failed": progress.failed,
                "total": progress.total,
            }
        )

    async def _commit(self, key: str, output: Output) -> None:
        try:
            if (visible := output.commit()) is not None:
                await visible
        except Exception as error:
            # Whatever a storage raises: this object has no output, and the others may.
            raise _unwritable(key, error) from error

    def _result(self, progress: _Progress, servers: ModelServers) -> InstanceResult:
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
        told += [server.last_words for server in servers.servers]
        return InstanceResult(
            ok=False, failure_reason=progress.failure_reason, detail="\n".join(told), **counts
        )


def _unwritable(key: str, error: Exception) -> ObjectFailed:
    return BadInput(f"the output {key} must be writable, got {error!r}; check the output path")


class _Transform:
    """Turns objects into outputs with one set of settings and servers."""

    def __init__(
        self, settings: Settings, spec: InstanceSpec, storage: Storage, servers: ModelServers
    ) -> None:
        self._settings = settings
        self._storage = storage
        self._recipe = Recipe(settings, started_at=spec.started_at)
        self._clients: list[HttpClient] = [server.http for server in servers.servers]
        self._requests = asyncio.Semaphore(settings.max_concurrent)
        # What is sent, waits to be sent, or waits for an earlier reply of its object.
        self._window = asyncio.Semaphore(2 * settings.max_concurrent + 2)

    async def object(self, task: Task, output: Output) -> None:
        """Transform one object.

        :raises ObjectFailed: it has no output.
        """
        self._recipe.check()
        if self._recipe.can_stream:
            await self._stream(task, output)
            return
        in_flight: deque[tuple[Payload, asyncio.Task[Reply]]] = deque()

        async def deliver() -> None:
            payload, invocation = in_flight[0]
            reply = await invocation
            in_flight.popleft()
            self._window.release()
            output.write(self._recipe.output(payload, reply))

        failed = asyncio.Event()
        try:
            async with aclosing(self._payloads(task)) as payloads:
                async for payload in payloads:
                    # Once a later payload has failed there is no output: nothing more is sent.
                    while in_flight and (
                        self._window.locked() or failed.is_set() or in_flight[0][1].done()
                    ):
                        await deliver()
                    await self._window.acquire()
                    invocation = asyncio.create_task(self._invoke(payload.body, failed))
                    in_flight.append((payload, invocation))
            while in_flight:
                await deliver()
        finally:
            for _, late in in_flight:
                late.cancel()
                self._window.release()
            await asyncio.gather(*(late for _, late in in_flight), return_exceptions=True)

    async def _stream(self, task: Task, output: Output) -> None:
        if not await self._has_bytes(task):
            return
        reply = await self._invoke(lambda: self._pieces(task), asyncio.Event())
        output.write(self._recipe.output(Payload(b""), reply))

    async def _has_bytes(self, task: Task) -> bool:
        async with aclosing(self._pieces(task)) as pieces:
            async for piece in pieces:
                if piece:
                    return True
        return False

    async def _pieces(self, task: Task) -> AsyncGenerator[bytes, None]:
        pieces = self._storage.chunks(task.bucket, task.key)
        try:
            async for piece in gunzip(pieces) if self._settings.gzip else pieces:
                yield piece
        except ObjectFailed:
            raise
        except Exception as error:
            # Whatever a storage raises: this object cannot be read, and the others may.
            raise BadInput(
                f"the object must be readable, got {error!r}; check that it exists"
            ) from error

    async def _payloads(self, task: Task) -> AsyncGenerator[Payload, None]:
        packer = self._recipe.packer()
        async with aclosing(self._pieces(task)) as pieces:
            async for piece in pieces:
                for payload in packer.feed(piece):
                    yield payload
        for payload in packer.end():
            yield payload

    async def _invoke(self, body: Body, failed: asyncio.Event) -> Reply:
        """Take a turn and send a payload, unless another of its object has `failed` meanwhile."""
        async with self._requests:
            # Turns are taken in order, so the failure is of an earlier payload and told by it.
            if failed.is_set():
                raise NoAnswer
            try:
                return await self._attempts(body)
            except ObjectFailed:
                failed.set()
                raise

    async def _attempts(self, body: Body) -> Reply:
        """Send a payload through all containers, again if it may be, and return the last reply."""
        for attempts_left in range(self._settings.max_retries, -1, -1):
            try:
                async with asyncio.timeout(self._settings.timeout_s):
                    reply = await self._chain(body)
            except (NoReply, TimedOut, TimeoutError):
                if not attempts_left:
                    raise NoAnswer from None
                continue
            if 200 <= reply.status < 300:
                return reply
            if 400 <= reply.status < 500:
                raise ModelRefused(reply.status, reply.body)
            retried = reply.status >= 500 and self._settings.readings.retry_5xx
            if not (retried and attempts_left):
                break
        raise ModelFailed(reply.status, reply.body)

    async def _chain(self, body: Body) -> Reply:
        settings = self._settings
        content_type, accept = settings.content_type, settings.accept
        chunked = settings.limit_bytes is None
        for number, client in enumerate(self._clients, 1):
            headers = {}
            if content_type:
                headers["Content-Type"] = content_type
            if accept and number == len(self._clients):
                headers["Accept"] = accept
            reply = await client.call(
                "POST",
                "/invocations",
                timeout_s=settings.timeout_s,
                headers=headers,
                body=body,
                chunked=chunked,
            )
            if not 200 <= reply.status < 300:
                return reply
            body, content_type = reply.body, reply.content_type or content_type
        return reply


def internal_error(error: Exception) -> InstanceResult:
    """Return the result of an instance that broke in a way nobody foresaw."""
    return InstanceResult(ok=False, failure_reason=INTERNAL_ERROR, detail=told_in_one_line(error))


def told_in_one_line(error: BaseException) -> str:
    """Return an error that nobody foresaw as one line, with what is inside a group of them."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(told_in_one_line(each) for each in error.exceptions)
    said = " ".join(repr(error).split())
    return f"the agent must not fail, got {said}; see the traceback in the server's log"
