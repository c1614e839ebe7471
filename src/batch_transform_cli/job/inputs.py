"""Which objects a job will read, known before anything of it starts."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batch_transform_cli.errors import JobRefused
from batch_transform_cli.job.request import local_path
from transform_engine.errors import EngineError
from transform_engine.objects import Task, enumerate_tasks, output_key
from transform_engine.spec import JobSpec
from transform_engine.storage import LOCAL, Storage, split_uri


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """The objects of a job, in the order in which they are dealt out.

    :param names: what a person calls them: their names below the input, by key.
    :param sizes: as they are stored, by key; without those that a manifest names.
    :param outputs: the keys of all outputs.
    """

    tasks: list[Task]
    names: Mapping[str, str]
    sizes: Mapping[str, int]
    outputs: frozenset[str]

    @property
    def size_bytes(self) -> int | None:
        """The size of all of them; None when a manifest does not tell."""
        return sum(self.sizes.values()) if len(self.sizes) == len(self.tasks) else None


def one_file_only(request: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
    """Return the request with a manifest if its input is one local file.

    As the start of a key, as S3 takes it, `a.csv` would also mean `a.csv.bak` beside it.

    :param folder: where the manifest may stand as long as the job runs.
    """
    source = request["TransformInput"]["DataSource"]["S3DataSource"]
    path = local_path(source["S3Uri"])
    if source["S3DataType"] != "S3Prefix" or path is None or not os.path.isfile(path):
        return request
    manifest = folder / "input.manifest"
    above = source["S3Uri"].rpartition("/")[0]
    manifest.write_text(json.dumps([{"prefix": f"{above}/"}, os.path.basename(path)]))
    one = {"S3DataType": "ManifestFile", "S3Uri": manifest.as_uri()}
    return {
        **request,
        "TransformInput": {**request["TransformInput"], "DataSource": {"S3DataSource": one}},
    }


def find_inputs(spec: JobSpec, storage: Storage) -> Inputs:
    """Look up the objects of a job.

    :raises JobRefused: there are none, or outputs would be inputs of the next run.
    """
    source = spec.request["TransformInput"]["DataSource"]["S3DataSource"]
    input_uri, output_uri = source["S3Uri"], spec.request["TransformOutput"]["S3OutputPath"]
    path = local_path(output_uri)
    if path is not None and os.path.isfile(path.rstrip("/")):
        raise JobRefused(
            f"--output must be a folder, got the file {path.rstrip('/')}; name another"
        )
    try:
        in_bucket, prefix = split_uri(input_uri)
        out_bucket, out_prefix = split_uri(output_uri)
        tasks = list(enumerate_tasks(storage, source))
    except (EngineError, ValueError) as error:
        raise JobRefused(str(error)) from error
    if not tasks:
        raise JobRefused(
            "the input must have an object, got none whose name starts with "
            f"{place(input_uri)}; check the path"
        )
    outputs = frozenset(output_key(out_prefix, task.relative) for task in tasks)
    by_prefix = source["S3DataType"] == "S3Prefix" and in_bucket == out_bucket
    if by_prefix and any(key.startswith(prefix) for key in outputs):
        raise JobRefused(
            f"outputs must not be inputs of the next run, got {place(output_uri)} for them, "
            f"which all that starts with {place(input_uri)} takes in; choose another --output"
        )
    return Inputs(
        tasks=tasks,
        names={task.key: task.relative for task in tasks},
        sizes={task.key: size for task in tasks if (size := _size(storage, task)) is not None},
        outputs=outputs,
    )


def _size(storage: Storage, task: Task) -> int | None:
    if task.size is None and task.bucket == LOCAL:
        try:
            return storage.size(task.bucket, task.key)
        except EngineError:
            return None  # The job will say what is wrong with it.
    return task.size


def place(uri: str) -> str:
    """Return a place as a person writes it: local ones as paths, from here if they are below."""
    path = local_path(uri)
    return uri if path is None else path.removeprefix(f"{os.getcwd()}/") or "./"
