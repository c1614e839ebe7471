"""The one module that names the emulator's own tables.

ministack has no interface for plug-ins, so we extend the tables by which it finds services,
resource types and task integrations. They can change with any release, hence one exact version.
Import this module only in the server's process, after `configure`: the emulator reads the
environment when it is imported.
"""

import asyncio
import contextlib
import copy
import importlib.metadata
import json
import os
import re
import resource
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from local_cloud.errors import EmulatorMismatch

VERSION = "1.5.33"
"""The release whose tables these are."""

TEMPORARY = ".local-cloud-tmp"
"""What a server unpacks and needs no longer than it runs, in its state directory."""

Response = tuple[int, dict[str, str], bytes]


class Service(Protocol):
    """What the emulator asks of a service."""

    async def handle_request(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes, query_params: Any
    ) -> Response:
        """Answer one request of the service's API."""

    def get_state(self) -> dict[str, Any]:
        """Hand out what to keep over a restart."""

    def load_persisted_state(self, data: dict[str, Any]) -> None:
        """Take back what was kept."""

    def reset(self) -> None:
        """Forget everything."""


def check_version() -> None:
    """Refuse an emulator that is not the one that we extend.

    :raises EmulatorMismatch: another version is installed, or none.
    """
    try:
        installed = importlib.metadata.version("ministack")
    except importlib.metadata.PackageNotFoundError:
        installed = "none"
    if installed != VERSION:
        raise EmulatorMismatch(
            f"the emulator must be ministack {VERSION}, whose tables the local cloud extends, "
            f"got {installed}; run: pip install ministack=={VERSION}"
        )


def configure(port: int, state_dir: Path) -> None:
    """Set what the emulator reads at import: where it listens, what it keeps, nothing else open."""
    temporary = state_dir / TEMPORARY
    shutil.rmtree(temporary, ignore_errors=True)  # of a server that could not end in order
    temporary.mkdir(parents=True)
    os.environ.update(
        {
            "GATEWAY_PORT": str(port),
            "BIND_HOST": "127.0.0.1",
            "MINISTACK_HOST": "localhost",
            "IOT_MTLS_ENABLED": "0",
            "SFTP_ENABLED": "0",
            "USE_SSL": "0",
            "LAMBDA_EXECUTOR": "local",
            # It removes containers that an emulator left, at every start: never a stranger's.
            "DOCKER_HOST": f"unix://{state_dir}/no-container-engine",
            "PERSIST_STATE": "1",
            "STATE_DIR": str(state_dir / "services"),
            "S3_PERSIST": "1",
            "S3_DATA_DIR": str(state_dir / "s3"),
            "TMPDIR": str(temporary),  # Lambda code is unpacked there, and goes with the cloud.
        }
    )


def add_service(name: str, target_prefix: str, service: Service) -> None:
    """Serve a JSON service that the emulator lacks, under its AWS target prefix."""
    from ministack import app
    from ministack.core import router

    app.SERVICE_REGISTRY[name] = {"module": name}
    app.SERVICE_HANDLERS[name] = app._lazy_handler(name)
    app._state_map[name] = name
    app._loaded_modules[name] = service
    router.SERVICE_PATTERNS[name] = {
        "target_prefixes": [target_prefix],
        "host_patterns": [rf"(api\.)?{re.escape(name)}\."],
    }


def add_sdk_integration(
    name: str, target_prefix: str, error_prefix: str, error_names: Mapping[str, str]
) -> None:
    """Let state machines call the service's API as `aws-sdk:<name>:<action>`.

    :param error_names: the names that Step Functions gives to the API's error codes.
    """
    from ministack.services import stepfunctions

    stepfunctions._AWS_SDK_SERVICE_MAP[name] = {
        "target_prefix": target_prefix.rstrip("."),
        "protocol": "json",
    }
    stepfunctions._AWS_SDK_ERROR_PREFIX[name] = error_prefix
    stepfunctions._AWS_SDK_ERROR_CODE_OVERRIDES[name] = dict(error_names)


def add_task(resource: str, run: Callable[[str, dict[str, Any]], dict[str, Any]]) -> None:
    """Run `run(resource, arguments)` for a state machine's task, on the execution's thread."""
    from ministack.services import stepfunctions

    stepfunctions._SERVICE_DISPATCH[resource] = run


def task_error(error: str, cause: str) -> Exception:
    """Make the exception by which a task tells the state machine its error name and cause."""
    from ministack.services import stepfunctions

    failure: Exception = stepfunctions._ExecutionError(error, cause)
    return failure


def add_resource_type(
    name: str,
    *,
    create: Callable[[str, dict[str, Any], str], tuple[str, dict[str, str]]],
    update: Callable[[str, dict[str, Any], dict[str, Any], str, str], tuple[str, dict[str, str]]],
    delete: Callable[[str, dict[str, Any]], None],
) -> None:
    """Let CloudFormation make, replace and delete resources of a type the emulator lacks."""
    from ministack.services.cloudformation import provisioners

    provisioners._RESOURCE_HANDLERS[name] = {
        "create": create,
        "update": update,
        "update_with_logical_id": True,
        "delete": delete,
    }


def delete_when_replaced(
    delete: Callable[[str, dict[str, Any]], None], physical_id: str, properties: dict[str, Any]
) -> None:
    """Delete what an update has replaced, once no rollback of the update needs it any more."""
    from ministack.services.cloudformation import provisioners

    provisioners._delete_predecessor(delete, physical_id, properties)


def scoped_dict() -> Any:
    """Make a dict that keeps every account's and region's entries apart, and over restarts."""
    from ministack.core.responses import AccountRegionScopedDict

    return AccountRegionScopedDict()


def copy_of(store: Any) -> Any:
    """Copy a scoped dict in all its depth, while other threads add to it."""
    return copy.deepcopy(type(store).from_dict(store.to_dict()))


def scope(account: str, region: str) -> contextlib.AbstractContextManager[None]:
    """Work for that account and region, outside any request of theirs."""
    from ministack.core.responses import request_scope

    entered: contextlib.AbstractContextManager[None] = request_scope(account, region)
    return entered


def account() -> str:
    """Name the account of the request that this thread or task works on."""
    from ministack.core.responses import get_account_id

    return str(get_account_id())


def region() -> str:
    """Name the region of the request that this thread or task works on."""
    from ministack.core.responses import get_region

    return str(get_region())


def put_event(source: str, detail_type: str, resource: str, detail: Mapping[str, Any]) -> None:
    """Send an event of an AWS service to the account's default bus."""
    from ministack.services import eventbridge

    entry = {
        "Source": source,
        "DetailType": detail_type,
        "Detail": json.dumps(detail),
        "Resources": [resource],
    }
    eventbridge._put_events({"Entries": [entry]}, allow_aws_source=True)


async def has_objects(bucket: str, prefix: str) -> bool:
    """Tell whether at least one object of the bucket starts with that prefix."""
    from ministack import app

    query = {"list-type": ["2"], "prefix": [prefix], "max-keys": ["1"]}
    status, _, body = await app.SERVICE_HANDLERS["s3"]("GET", f"/{bucket}", {}, b"", query)
    return status == 200 and b"<Key>" in (body if isinstance(body, bytes) else body.encode())


def call(name: str, target: str, request: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """Call a service from a thread of the server, in that thread's account and region."""
    from ministack import app

    headers = {"x-amz-target": target, "content-type": "application/x-amz-json-1.1"}
    status, _, body = app.call_service_handler_sync(
        app.SERVICE_HANDLERS[name], "POST", "/", headers, json.dumps(request).encode(), {}
    )
    return status, json.loads(body) if body else {}


def serve(port: int, listen_fd: int | None = None) -> None:
    """Run the emulator until SIGTERM or SIGINT, and save what it keeps.

    This is the emulator's own `main` without its pid file and without its wait for threads that
    still work for somebody who is gone: a Lambda that sleeps, a stack that waits.
    """
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"127.0.0.1:{port}" if listen_fd is None else f"fd://{listen_fd}"]
    config.keep_alive_timeout = 75
    config.graceful_timeout = 1
    config.loglevel = "WARNING"
    _allow_many_connections()
    # Not asyncio.run, which waits for the threads.
    asyncio.new_event_loop().run_until_complete(_serve(config))


async def _serve(config: Any) -> None:
    from hypercorn.asyncio import serve as serve_asgi
    from ministack import app
    from ministack.core.persistence import save_all

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = asyncio.ensure_future(serve_asgi(app.app, config, shutdown_trigger=stop.wait))
    told = asyncio.ensure_future(stop.wait())
    await asyncio.wait({server, told}, return_when=asyncio.FIRST_COMPLETED)
    done, _ = await asyncio.wait({server}, timeout=config.graceful_timeout + 1)
    if server in done:
        server.result()  # Raises what kept it from starting.
    else:
        # From Python 3.12 on it waits for every request to end, such as a long poll.
        save_all(app._build_persistence_save_dict())


def _allow_many_connections() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError):
            pass  # macOS names a limit that it does not grant; the default does for most.
