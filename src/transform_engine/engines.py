"""Container engines, docker and podman, as far as a model server needs them."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Self

from transform_engine.errors import SEE_LOGS, InstanceFailed

_KNOWN = ("docker", "podman")
_ANSWER_S = 60
BINDS_LABEL = "com.amazonaws.sagemaker.capabilities.accept-bind-to-port"
"""With the value `true` an image says that it listens where `SAGEMAKER_BIND_TO_PORT` tells it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Engine:
    """A container engine: its command with global options, and options for each of its `run`s."""

    command: tuple[str, ...]
    run_options: tuple[str, ...] = ()

    @classmethod
    def of(cls, words: Sequence[str]) -> Self:
        """Read `podman --runtime runc run --network host`: global options, `run`, and its own."""
        command = tuple(words)
        if "run" not in command:
            return cls(command=command)
        at = command.index("run")
        return cls(command=command[:at], run_options=command[at + 1 :])

    @property
    def shares_network(self) -> bool:
        """Whether its containers listen on the machine's own ports."""
        options = " ".join(self.run_options).replace("=", " ").split()
        return any(pair in (("--network", "host"), ("--net", "host")) for pair in pairwise(options))

    def run(
        self,
        image: str,
        name: str,
        *,
        port: int,
        inside: int,
        model_dir: Path | None,
        environment: Mapping[str, str],
    ) -> tuple[str, ...]:
        """Return the command that runs `IMAGE serve` until SIGTERM ends it.

        :param port: the machine's port for the container's port `inside`, unless it shares them.
        :param model_dir: what the container finds at `/opt/ml/model`, and cannot change.
        """
        options = ["--rm", "--name", name, "--pull", "never"]
        # Our keeper waits for the container to end gently; when it removes it, that time is over.
        options += ["--stop-timeout", "0"]
        # What it writes is read here, and SELinux would keep it from the user's own folder.
        options += ["--log-driver", "none", "--security-opt", "label=disable"]
        if model_dir is not None:
            mount = f"type=bind,source={model_dir},destination=/opt/ml/model,readonly"
            options += ["--mount", mount]
        if not self.shares_network:
            options += ["--publish", f"127.0.0.1:{port}:{inside}"]
        for variable, value in environment.items():
            options += ["--env", f"{variable}={value}"]
        return (*self.command, "run", *options, *self.run_options, image, "serve")

    def remove(self, name: str) -> tuple[str, ...]:
        """Return the command that leaves nothing of a container."""
        return (*self.command, "rm", "--force", name)


@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    """An image that an engine has.

    :param binds: whether it says that it listens where `SAGEMAKER_BIND_TO_PORT` tells it to.
    """

    engine: Engine
    binds: bool


def find_image(
    engine: Sequence[str], image: str, *, environment: Mapping[str, str] | None = None
) -> Image:
    """Look an image up in an engine, or in the first of those on PATH that has it.

    :param environment: the engine's variables; None is this process's.
    :raises InstanceFailed: there is no engine, it does not work, or it does not have the image.
    """
    candidates = [Engine.of(engine)] if engine else [Engine(command=(name,)) for name in _KNOWN]
    found = [each for each in candidates if shutil.which(each.command[0])]
    if not found:
        wanted = " or ".join(each.command[0] for each in candidates)
        raise InstanceFailed(
            SEE_LOGS,
            f"a container engine must be there to run the image {image}, got no {wanted}; install "
            "one, or name a folder with the image's serve program",
        )
    answers = []
    for each in found:
        labels = _labels(each, image, environment)
        if not isinstance(labels, str):
            return Image(engine=each, binds=labels.get(BINDS_LABEL) == "true")
        answers.append(f"{each.command[0]}: {labels}")
    name = found[0].command[0]
    raise InstanceFailed(
        SEE_LOGS,
        f"the container engine must work and have the image {image}, got {'; '.join(answers)}; "
        f"start the engine, and build the image or fetch it with {name} pull {image}",
    )


def _labels(
    engine: Engine, image: str, environment: Mapping[str, str] | None
) -> Mapping[str, str] | str:
    """Return an image's labels, or why there are none."""
    try:
        done = subprocess.run(
            [*engine.command, "image", "inspect", image],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            env=environment,
            timeout=_ANSWER_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {_ANSWER_S} s"
    except OSError as error:
        return f"{os.strerror(error.errno or 0)}"
    if done.returncode == 0:
        try:
            return (json.loads(done.stdout)[0].get("Config") or {}).get("Labels") or {}
        except (ValueError, LookupError, AttributeError):
            return "an answer that is no image's description"
    said = done.stderr.decode(errors="replace").split()
    return " ".join(said) or f"exit code {done.returncode}"
