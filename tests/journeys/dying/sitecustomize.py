"""Python imports this in a Lambda worker whose PYTHONPATH leads here: it dies at its calls of AWS.

As often as the file DEATHS_ALLOWED says, of each function, just before a call or just after it.
"""

import fcntl
import os
import random
import signal
from pathlib import Path
from typing import Any

from botocore.client import BaseClient

_CHANCE = 1 / 6  # at a call, as long as it may

_make_api_call = BaseClient._make_api_call


def _call(client: Any, operation: str, parameters: dict[str, Any]) -> Any:
    if random.random() > _CHANCE:
        return _make_api_call(client, operation, parameters)
    if before := random.random() < 0.5:
        _die_if_allowed()
    answer = _make_api_call(client, operation, parameters)
    if not before:
        _die_if_allowed()
    return answer


def _die_if_allowed() -> None:
    allowed = Path(os.environ["DEATHS_ALLOWED"])
    name = os.environ["AWS_LAMBDA_FUNCTION_NAME"]
    with allowed.with_name(f"{name}.deaths").open("a+") as deaths:
        fcntl.flock(deaths, fcntl.LOCK_EX)
        deaths.seek(0)
        if len(deaths.read()) < int(allowed.read_text()):
            deaths.write("+")
            deaths.flush()
            os.kill(os.getpid(), signal.SIGKILL)


BaseClient._make_api_call = _call
