"""Makes a cloud assembly of a CDK app, as the CDK CLI does, without it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from batch_transform_cli.errors import SynthesisFailed

_LIMIT_S = 300


def synthesize(project: Path, assembly: Path) -> None:
    """Run the app that `project/cdk.json` names, and let it write into `assembly`.

    :raises SynthesisFailed: there is no app, it never ends, or it refuses; with what it said.
    """
    try:
        settings = json.loads((project / "cdk.json").read_text("utf-8"))
        command = settings["app"]
    except (OSError, ValueError, KeyError, TypeError):
        raise SynthesisFailed(
            f"cdk.json must stand in {project} and name the app, got none that does; "
            "go to the app's folder, or pass --assembly"
        ) from None
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
            f"the app must synthesize, got: {_reason(said)} (exit code {app.returncode}); "
            "mend it and run this again"
        )


def _reason(said: str) -> str:
    """Return the end of a traceback, or all that an app says that refuses in its own words."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if not lines:
        return "nothing said"
    return lines[-1] if "Traceback (most recent call last):" in lines else "\n".join(lines)
