"""The handler of a function that is measured: calls the real one, and notes what that took."""

import importlib
import json
import os
import re
import time
from collections import Counter
from typing import Any

from botocore.client import BaseClient

_real = importlib.import_module(os.environ["METERED_MODULE"]).handle
_calls: Counter[str] = Counter()
_make_api_call = BaseClient._make_api_call


def _count_and_call(client: Any, operation: str, parameters: dict[str, Any]) -> Any:
    _calls[f"{client.meta.service_model.service_name}.{operation}"] += 1
    return _make_api_call(client, operation, parameters)


BaseClient._make_api_call = _count_and_call


def _peak_bytes() -> int:
    # Not ru_maxrss, which counts what the process had that started this one: the whole emulator.
    with open("/proc/self/status") as status:
        found = re.search(r"VmHWM:\s*(\d+) kB", status.read())
    assert found is not None
    return int(found[1]) * 1024


def handle(event: Any, context: Any) -> Any:
    """Do as the real one."""
    _calls.clear()
    began = time.monotonic()
    answer = _real(event, context)
    noted = {
        "function": os.environ["METERED_MODULE"].rpartition(".")[2],
        "seconds": time.monotonic() - began,
        "calls": dict(_calls),
        "peak_bytes": _peak_bytes(),
        "payload_bytes": max(len(json.dumps(event)), len(json.dumps(answer))),
    }
    with open(os.environ["METERED_NOTES"], "ab", buffering=0) as file:  # whole lines of many
        file.write(json.dumps(noted).encode() + b"\n")
    return answer
