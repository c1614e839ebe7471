"""Writes a starter project: the files of `starter/`, under a pipeline's name of one's own."""

import importlib.metadata
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from batch_transform.pipelines_file import schema
from batch_transform_cli.errors import CommandError, NothingTried

_FILES = Path(__file__).with_name("starter")
_PACKAGE = "batch-transform"
_EXTRAS = "[cli,local]"
_NAME = "Starter"
"""What the pipeline is called there."""
_VALID = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,59}")
_SCHEMA = "pipelines.schema.json"
_LEFT_OUT = "__pycache__"  # where the package is installed, its Python is compiled


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """A project that was written, with its files relative to the folder."""

    folder: Path
    pipeline: str
    files: list[str]


def write(folder: Path, name: str | None = None) -> Written:
    """Write a project into a folder that is new or empty.

    :param name: of the pipeline. Default: the folder's, in one word.
    :raises NothingTried: the folder has files, or the name is none for a stack.
    :raises CommandError: it cannot be written.
    """
    pipeline = _pipeline_name(folder, name)
    _check_empty(folder)
    written = []
    try:
        for relative, content in _contents(pipeline):
            path = folder / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            if content.startswith(b"#!"):
                path.chmod(0o755)
            written.append(relative)
    except OSError as error:
        raise CommandError(
            f"the folder must be one that can be written, got {error}; name another"
        ) from error
    return Written(folder=folder, pipeline=pipeline, files=sorted(written))


def _pipeline_name(folder: Path, name: str | None) -> str:
    words = re.split(r"[^A-Za-z0-9]+", folder.absolute().name)
    found = name or "".join(word[:1].upper() + word[1:] for word in words)
    if not _VALID.fullmatch(found):
        raise NothingTried(
            "--name must begin with a letter, and be letters, digits and hyphens, at most 60, "
            f"got {found!r}; give one, such as --name Churn"
        )
    return found


def _check_empty(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise NothingTried(f"FOLDER must be a folder, got the file {str(folder)!r}; name another")
    there = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    if set(there) - {".git"}:
        raise NothingTried(
            f"FOLDER must be new or empty, got {str(folder)!r}, which holds {there[0]!r}; "
            "name another"
        )


def _contents(pipeline: str) -> Iterator[tuple[str, bytes]]:
    """Yield each file of the project."""
    for path in sorted(_FILES.rglob("*")):
        relative = path.relative_to(_FILES)
        if path.is_dir() or _LEFT_OUT in relative.parts:
            continue
        content = path.read_bytes()
        match relative.as_posix():
            case "gitignore":  # under its own name it would be git's here, too
                yield ".gitignore", content
            case "requirements.txt":
                own = f"{_PACKAGE}{_EXTRAS}".encode()
                yield "requirements.txt", content.replace(own, requirement().encode())
            case _ as name:
                yield name, content.replace(_NAME.encode(), pipeline.encode())
    yield _SCHEMA, f"{json.dumps(schema(), indent=1)}\n".encode()


def requirement() -> str:
    """Return what installs this package again: from an index, or from where it was taken."""
    package = f"{_PACKAGE}{_EXTRAS}"
    try:
        installed = importlib.metadata.distribution(_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return package  # it runs from its sources
    origin = installed.read_text("direct_url.json")  # PEP 610
    if origin is None:
        return f"{package}=={installed.version}"
    told = json.loads(origin)
    versioned = told.get("vcs_info")
    if versioned is None:
        return f"{package} @ {told['url']}"
    return f"{package} @ {versioned['vcs']}+{told['url']}@{versioned['commit_id']}"
