"""The local cloud's server: `python -m local_cloud.server --port N --state-dir DIR`.

One process: the emulator with SageMaker plugged in. It ends with its parent, so that a killed
test run or demo leaves nothing behind, and it ends what it started: Lambda workers, jobs.
"""

import argparse
import os
import shlex
import shutil
import signal
import sys
import threading
import time
import uuid
from pathlib import Path

from local_cloud import emulator, processes
from local_cloud.cloud import ACCOUNT
from local_cloud.errors import LocalCloudError

_PARENT_POLL_S = 0.5
_SHUTDOWN_LIMIT_S = 10.0


def main(arguments: list[str] | None = None) -> int:
    """Serve until told to stop; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m local_cloud.server", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--listen-fd", type=int, help="open socket that listens on that port")
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument(
        "--parent",
        type=int,
        default=os.getppid(),
        help="process to end with (default: the one that starts this; 0: none)",
    )
    parser.add_argument(
        "--ping-timeout-s",
        type=float,
        default=1800,
        help="seconds a model server may take to answer its first ping (default: as on AWS)",
    )
    parser.add_argument(
        "--instance-quota",
        type=int,
        help="instances of a type that an account may use for transform jobs (default: no limit)",
    )
    parser.add_argument(
        "--no-capacity",
        nargs="*",
        default=[],
        help="instance types that are never to be had (default: none)",
    )
    parser.add_argument(
        "--container-engine",
        type=shlex.split,
        default=[],
        help="command of docker or podman, with its options, for images that are no directories "
        "(default: the first one that has the image)",
    )
    parser.add_argument(
        "--forget",
        action="store_true",
        help="remove the state directory with the process that started this, which cannot any more",
    )
    options = parser.parse_args(arguments)
    try:
        emulator.check_version()
    except LocalCloudError as error:
        print(f"local_cloud.server: {error}", file=sys.stderr)
        return 2
    marker = os.environ.setdefault(processes.MARKER, uuid.uuid4().hex)
    os.environ.setdefault("AWS_ACCESS_KEY_ID", ACCOUNT)
    os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "local")
    state_dir = options.state_dir.resolve()
    docker_host = os.environ.get("DOCKER_HOST")
    emulator.configure(options.port, state_dir)
    orphaned = threading.Event()
    if options.parent:
        _watch(options.parent, marker, orphaned)
    _plug_in(options, state_dir, docker_host)
    try:
        emulator.serve(options.port, options.listen_fd)
    finally:
        processes.end(marker, grace_s=2.0)
        if options.forget and orphaned.is_set():
            shutil.rmtree(state_dir, ignore_errors=True)
    # Worker threads of the emulator can block for ever; everything is saved by now.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _plug_in(options: argparse.Namespace, state_dir: Path, docker_host: str | None) -> None:
    """Add what the emulator lacks. Imported late: the emulator reads the environment at import."""
    from local_cloud import patches, sagemaker
    from local_cloud.engine import Engine
    from local_cloud.images import Images, ImageSources

    patches.apply()
    engine = Engine(
        endpoint=f"http://127.0.0.1:{options.port}",
        ping_timeout_s=options.ping_timeout_s,
        container_engine=tuple(options.container_engine),
        docker_host=docker_host,
    )
    sagemaker.plug_in(
        launch=engine.launch,
        images=ImageSources(Images(state_dir / "images"), engine.why_not),
        state_dir=state_dir,
        instance_quota=options.instance_quota,
        no_capacity=options.no_capacity,
    )


def _watch(parent: int, marker: str, orphaned: threading.Event) -> None:
    ours = os.getppid() == parent

    def wait_for_its_end() -> None:
        # A parent that ended hands us to another one, even before somebody asks for its exit code.
        while os.getppid() == parent if ours else _exists(parent):
            time.sleep(_PARENT_POLL_S)
        print("local_cloud.server: the process that started this has ended, so this ends too")
        orphaned.set()
        threading.Timer(_SHUTDOWN_LIMIT_S, _end_hard, [marker]).start()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait_for_its_end, name="parent-watch", daemon=True).start()


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # It exists and is another user's.
    return True


def _end_hard(marker: str) -> None:
    processes.end(marker, grace_s=0.5)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
