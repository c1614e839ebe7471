"""Which objects a job has, which of them are an instance's, and where their outputs go."""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transform_engine.errors import SEE_LOGS, InstanceFailed
from transform_engine.storage import LOCAL, Storage, split_uri, uri_of


@dataclass(frozen=True, slots=True)
class Task:
    """One object to transform; `relative` is its name below the input's prefix."""

    bucket: str
    key: str
    relative: str
    size: int | None

    @property
    def name(self) -> str:
        """The object as the data-log names it; a line break would forge log lines.

        A local file is named by its path.
        """
        return f"{self.bucket}/{self.key}".replace("\r", "\\r").replace("\n", "\\n")


def relative_name(prefix: str, key: str) -> str:
    """Return an object's name below the prefix of the S3Uri (reference §5.2)."""
    above = prefix
    ends_inside = not prefix.endswith("/") and key[len(prefix) : len(prefix) + 1] != "/"
    if prefix == key or (prefix and ends_inside):
        above = prefix[: prefix.rfind("/") + 1]
    return key[len(above) :].removeprefix("/")


def output_key(output_prefix: str, relative: str) -> str:
    """Return the key of an output below the key part of S3OutputPath."""
    above = output_prefix.removesuffix("/")
    return f"{above}/{relative}.out" if above else f"{relative}.out"


def enumerate_tasks(storage: Storage, source: Mapping[str, Any]) -> Iterator[Task]:
    """Every input object of an `S3DataSource`, in key order or the manifest's.

    Empty objects whose key ends in `/` are folder markers and no input.

    :raises InstanceFailed: the manifest is malformed.
    :raises StorageFailed: the input cannot be listed, or the manifest cannot be read.
    """
    bucket, prefix = split_uri(source["S3Uri"])
    if source["S3DataType"] == "ManifestFile":
        yield from _manifest(storage, bucket, prefix)
        return
    for found in storage.list(bucket, prefix):
        if found.size or not found.key.endswith("/"):
            yield Task(bucket, found.key, relative_name(prefix, found.key), found.size)


def deal(tasks: Iterable[Task], shares: Sequence[Path]) -> None:
    """Deal objects out like cards, so that equal ones make equal shares, into a file for each."""
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("w")) for path in shares]
        for file, task in zip(itertools.cycle(files), tasks, strict=False):
            file.write(f"{json.dumps([task.bucket, task.key, task.relative, task.size])}\n")


def read_share(path: Path) -> list[Task]:
    """Return the objects of a file that `deal` wrote."""
    with path.open() as lines:
        return [Task(*json.loads(line)) for line in lines]


def no_objects_message(uri: str, *, region: str, role: str) -> str:
    """Return what CreateTransformJob says when no object is under the S3Uri (reference §1.9)."""
    bucket, _ = split_uri(uri)
    return (
        f'No S3 objects found under S3 URL "{uri}" given in input data source. Please ensure that '
        f"the bucket exists in the selected region ({region}), that objects exist under that S3 "
        f'prefix, and that the role "{role}" has "s3:ListBucket" permissions on bucket "{bucket}".'
    )


def _manifest(storage: Storage, bucket: str, key: str) -> Iterator[Task]:
    uri = uri_of(bucket, key)
    with TemporaryDirectory() as folder:
        path = Path(folder, "manifest")
        storage.download(bucket, key, path)
        content = path.read_bytes()
    try:
        entries = json.loads(content)
        prefix, names = entries[0]["prefix"], entries[1:]
        if not all(isinstance(name, str) for name in (prefix, *names)):
            raise TypeError("a name is no string")
        if bucket != LOCAL and not prefix.startswith("s3://"):
            # Who writes to a bucket may not read this machine.
            raise ValueError(f"the prefix {prefix} is not in S3")
        tasks = [_named(prefix, name) for name in names]
    except Exception as error:
        raise InstanceFailed(
            SEE_LOGS,
            'the manifest must be a JSON array like [{"prefix": "s3://bucket/"}, "key", …], '
            f"got {error!r} from {uri}; write it so",
        ) from error
    yield from tasks


def _named(prefix: str, name: str) -> Task:
    """Return the object of a manifest's name: its URI is the prefix and the name, as they are."""
    if prefix.startswith("s3://"):
        bucket, key = split_uri(prefix + name)
    else:
        bucket, above = split_uri(prefix)  # Percent-encoded, which names are not.
        key = above + name
    return Task(bucket, key, name.removeprefix("/"), None)
