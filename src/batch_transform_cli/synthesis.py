"""Makes a cloud assembly of a CDK app, as the CDK CLI does, without it."""

import json
import os
import subprocess
import sys
from pathlib import Path

from batch_transform_cli.errors import SynthesisFailed

_LIMIT_S = 300


def synthesize(project: Path, assembly: Path) -> None:
    """Run the app that `project/cdk.json` names, and let it write into `assembly`.

    :raises SynthesisFailed: there is no app, or it refuses; with the last line that it wrote.
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
    ended = subprocess.run(
        command,
        shell=isinstance(command, str),
        cwd=project,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_LIMIT_S,
    )
    if ended.returncode != 0:
        lines = [line.strip() for line in ended.stderr.splitlines() if line.strip()]
        raise SynthesisFailed(
            f"the app must synthesize, got: {lines[-1] if lines else 'nothing said'} "
            f"(exit code {ended.returncode}); mend it and run this again"
        )
