"""One instance as a process: `python -m transform_engine.instance SPEC.json [--end-with-stdin]`.

Prints one JSON line for each thing that happens, the last one `{"event": "ended", …}`. SIGTERM, or
the end of standard input if asked for, stops it: its servers are ended and nothing half is left,
nor, after the end of standard input, its folder.
Exit code: 0 completed, 1 failed or stopped.
"""

import asyncio
import ctypes
import json
import os
import select
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

import orjson
import uvloop

from transform_engine.agent import Event, InstanceResult, internal_error, run_instance
from transform_engine.data_log import CloudWatchLog, FileLog, LogSink, NoLog
from transform_engine.errors import INTERNAL_ERROR, InstanceFailed
from transform_engine.spec import InstanceSpec
from transform_engine.storage import open_storage, small_files

_TOGETHER_S = 0.05
# malloc.h; 32 MiB is the most that the first one takes.
_M_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES = -3, 32 * 2**20
_M_TRIM_THRESHOLD, _KEPT_BYTES = -1, 256 * 2**20


class _Printer:
    """Prints events: those of objects that end close together in one go, any other at once.

    What a kill loses is the last moment of the progress.
    """

    def __init__(self) -> None:
        self._waiting: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self, event: Event) -> None:
        try:
            line = orjson.dumps(event)
        except TypeError:  # A file's name may be no UTF-8.
            line = json.dumps(event).encode()
        self._waiting.append(line + b"\n")
        if event["event"] != "object":
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_TOGETHER_S, self.flush)

    def flush(self) -> None:
        """Print what waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines = b"".join(self._waiting)
        self._waiting.clear()
        while lines:
            lines = lines[os.write(sys.stdout.fileno(), lines) :]


async def _run(spec: InstanceSpec, printer: _Printer, *, end_with_stdin: bool) -> InstanceResult:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if end_with_stdin:

        def read() -> None:
            if not os.read(0, 4096):
                loop.remove_reader(0)
                stop.set()

        loop.add_reader(0, read)
    log: LogSink = NoLog()
    try:
        log = _open_log(spec)
        small = small_files(spec.job)
        storage = open_storage(spec.job, small)
        try:
            return await run_instance(spec, storage=storage, log=log, stop=stop, on_event=printer)
        finally:
            await small.close()
    except InstanceFailed as failure:
        return InstanceResult(
            ok=False, failure_reason=failure.failure_reason, detail=failure.detail
        )
    except Exception as error:  # The parent must learn how it ended, whatever broke.
        traceback.print_exc()
        return internal_error(error)
    finally:
        printer.flush()
        await asyncio.to_thread(log.close)


def _open_log(spec: InstanceSpec) -> LogSink:
    job = spec.job
    stream = f"{job.job_name}/{spec.instance_id}-{int(time.time())}"
    if job.log_endpoint is not None:
        return CloudWatchLog(endpoint=job.log_endpoint, region=job.region, stream=stream)
    if job.log_dir is None:
        return NoLog()
    try:
        return FileLog(Path(job.log_dir), stream)
    except OSError as error:
        raise InstanceFailed(
            INTERNAL_ERROR,
            f"the log's folder must be writable, got {error} for {job.log_dir}; name another",
        ) from error


def _keep_payloads_memory() -> None:
    """Let the next payload have the memory of the last one.

    Else glibc asks the kernel for the pages of each large payload and gives them back, which takes
    as long again as reading and sending it.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # Other libraries have none.
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES)
            mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def _is_orphan() -> bool:
    readable, _, _ = select.select([0], [], [], 0)
    return bool(readable) and not os.read(0, 1)


def main(arguments: list[str]) -> int:
    """Run the instance and say how it ended."""
    *paths, option = arguments if "--end-with-stdin" in arguments else [*arguments, ""]
    if len(paths) != 1:
        print(
            "usage: python -m transform_engine.instance SPEC.json [--end-with-stdin]",
            file=sys.stderr,
        )
        return 2
    spec = InstanceSpec.read(Path(paths[0]))
    _keep_payloads_memory()
    printer = _Printer()
    result = uvloop.run(_run(spec, printer, end_with_stdin=bool(option)))
    if option and _is_orphan():
        # Who would read how it ended and remove its files is gone.
        shutil.rmtree(spec.job.work_dir, ignore_errors=True)
        return 1
    printer(
        {
            "event": "ended",
            "ok": result.ok,
            "stopped": result.stopped,
            "failure_reason": result.failure_reason,
            "detail": result.detail,
        }
    )
    return 0 if result.ok else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
