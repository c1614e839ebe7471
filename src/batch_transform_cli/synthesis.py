"""Makes a cloud assembly of a CDK app, as the CDK CLI does, without it."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from batch_transform_cli.errors import SynthesisFailed

_LIMIT_S = 300
_FRAME = re.compile(r'^ *File "(.+)", line (\d+)', re.MULTILINE)


def settings_of(project: Path) -> dict[str, Any]:
    """Read `cdk.json`, which names the app.

    :raises SynthesisFailed: there is none, or it names none.
    """
    try:
        settings: dict[str, Any] = json.loads((project / "cdk.json").read_text("utf-8"))
        settings["app"]
    except (OSError, ValueError, KeyError, TypeError):
        raise SynthesisFailed(
            f"cdk.json must stand in {project} and name the app, got none that does; "
            "go to the app's folder, or pass --assembly"
        ) from None
    return settings


def synthesize(project: Path, assembly: Path) -> None:
    """Run the app that `project/cdk.json` names, and let it write into `assembly`.

    :raises SynthesisFailed: there is no app, it never ends, or it refuses; with what it said.
    """
    settings = settings_of(project)
    command = settings["app"]
    own = os.path.dirname(sys.executable)
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([own, os.environ.get("PATH", os.defpath)]),
        "CDK_OUTDIR": str(assembly.absolute()),
        "CDK_CONTEXT_JSON": json.dumps(settings.get("context", {})),
    }
    with subprocess.Popen(
        command,
        shell=isinstance(command, str),
        cwd=project,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # so that what the app starts can be ended with it
    ) as app:
        try:
            _, said = app.communicate(timeout=_LIMIT_S)
        except subprocess.TimeoutExpired:
            raise SynthesisFailed(
                f"the app must synthesize within {_LIMIT_S} s, got no end; "
                f"run {command!r} by hand to see where it waits"
            ) from None
        finally:
            if app.poll() is None:
                os.killpg(app.pid, signal.SIGKILL)
    if app.returncode != 0:
        raise SynthesisFailed(
            f"the app must synthesize, got: {_reason(said, project)} (exit code {app.returncode}); "
            "mend it"
        )


def _reason(said: str, project: Path) -> str:
    """Return the end of a traceback, or all that an app says that refuses in its own words."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if not lines:
        return "nothing said"
    if "Traceback (most recent call last):" not in lines:
        return "\n".join(lines)
    own = [place for place in _FRAME.findall(said) if _is_source_of(Path(place[0]), project)]
    where = f" at {own[-1][0]}:{own[-1][1]}" if own else ""
    return f"{lines[-1]}{where}"


def _is_source_of(file: Path, project: Path) -> bool:
    return file.is_relative_to(project) and "site-packages" not in file.parts
