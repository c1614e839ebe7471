"""What the CDK CLI needs to find a local cloud."""

import os
import shlex
import sys
from pathlib import Path


def write_docker(state_dir: Path) -> Path:
    """Write the program that `CDK_DOCKER` names, for the cloud with that state directory."""
    script = state_dir / "docker"
    own_modules = Path(__file__).parent.parent
    command = [sys.executable, "-m", "local_cloud.docker_shim", str(state_dir / "images")]
    script.write_text(
        "#!/bin/sh\n"
        f'PYTHONPATH={shlex.quote(os.fspath(own_modules))} exec {shlex.join(command)} "$@"\n'
    )
    script.chmod(0o755)
    return script
