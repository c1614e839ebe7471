"""What a run keeps in the output bucket.

predictions/<key>.out           the predictions of a drop, put there whole, by settle
reports/<run>.json              what became of a run
runs/<run>/plan.json            the drops that the run may claim, written before it claims the first
runs/<run>/manifest-1.json      the objects that the transform job of step 1 reads
runs/<run>/step-1/<key>.out     what that job writes
runs/<run>/manifest-2.json      those of them that step 2 reads: all that there are
runs/<run>/step-2/<key>.out.out what its job writes: SageMaker adds `.out` to every name
runs/<run>/index/00000.json     a part of the index work; all under runs/ expires
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

from transform_lambdas.drops import Drop

_OUT = ".out"  # what SageMaker adds to the name of each object that it reads
_COPY_LIMIT_BYTES = 5 * 1024**3  # CopyObject takes no more; a larger one is copied in parts


class RunFiles:
    """Reads and writes them."""

    def __init__(self, s3: Any, bucket: str) -> None:
        self._s3 = s3
        self._bucket = bucket

    @property
    def bucket(self) -> str:
        """The output bucket."""
        return self._bucket

    def step_input(
        self, run_id: str, step: int, *, objects: int, size_bytes: int
    ) -> dict[str, Any]:
        """Return what the state machine begins a step with.

        :param objects: in the step's manifest; with their bytes they decide how many instances.
        """
        return {
            "run_id": run_id,
            "step": step,
            "manifest_uri": f"s3://{self._bucket}/{_manifest_key(run_id, step)}",
            "output_uri": f"s3://{self._bucket}/runs/{run_id}/step-{step}",
            "objects": objects,
            "size_bytes": size_bytes,
            "shortages": 0,
        }

    def report_uri(self, run_id: str) -> str:
        """Return where the run's report is."""
        return f"s3://{self._bucket}/reports/{run_id}.json"

    def write_plan(self, run_id: str, drops: Sequence[Drop]) -> None:
        """Note the drops that the run may claim."""
        self._write(f"runs/{run_id}/plan.json", [drop.to_dict() for drop in drops])

    def read_plan(self, run_id: str) -> list[Drop]:
        """Return the drops that the run may have claimed."""
        return [Drop.from_dict(values) for values in self._read(f"runs/{run_id}/plan.json")]

    def write_manifest(self, run_id: str, drops: Iterable[Drop], *, input_bucket: str) -> None:
        """Write what step 1 reads: a prefix, then strings that follow it."""
        head = {"prefix": f"s3://{input_bucket}/"}
        self._write(_manifest_key(run_id, 1), [head, *(drop.key for drop in drops)])

    def hand_on(self, run_id: str, step: int, keys: Iterable[str]) -> None:
        """Write what the step after `step` reads: its outputs for the drops of these keys."""
        head = {"prefix": f"s3://{self._bucket}/runs/{run_id}/step-{step}/"}
        names = (f"{key}{_OUT * step}" for key in keys)
        self._write(_manifest_key(run_id, step + 1), [head, *names])

    def output_sizes(self, run_id: str, step: int) -> dict[str, int]:
        """Return the keys of the drops that have an output of a step, and the outputs' bytes."""
        prefix, suffix = f"runs/{run_id}/step-{step}/", _OUT * step
        pages = self._s3.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=prefix
        )
        return {
            entry["Key"].removeprefix(prefix).removesuffix(suffix): entry["Size"]
            for page in pages
            for entry in page.get("Contents", [])
            if entry["Key"].endswith(suffix)
        }

    def promote(self, run_id: str, step: int, key: str, *, size: int) -> str:
        """Copy a drop's output to its place among the predictions, and return its key there."""
        source = {"Bucket": self._bucket, "Key": output_key(run_id, step, key)}
        target = f"predictions/{key}.out"
        if size <= _COPY_LIMIT_BYTES:
            self._s3.copy_object(CopySource=source, Bucket=self._bucket, Key=target)
        else:
            self._s3.copy(source, self._bucket, target)
        return target

    def write_report(self, run_id: str, report: Mapping[str, Any]) -> None:
        """Write what became of a run."""
        self._write(f"reports/{run_id}.json", report)

    def write_index_part(self, run_id: str, part: int, ranges: Sequence[Mapping[str, Any]]) -> None:
        """Write one part of the index work."""
        self._write(_index_key(run_id, part), list(ranges))

    def read_index_part(self, run_id: str, part: int) -> list[dict[str, Any]]:
        """Return one part of the index work."""
        ranges: list[dict[str, Any]] = self._read(_index_key(run_id, part))
        return ranges

    def chunks(self, key: str, *, start: int) -> Iterator[bytes]:
        """Yield an object's bytes from `start` on."""
        if start:
            body = self._s3.get_object(Bucket=self._bucket, Key=key, Range=f"bytes={start}-")
        else:
            body = self._s3.get_object(Bucket=self._bucket, Key=key)  # an empty object has no range
        with closing(body["Body"]) as stream:
            yield from stream.iter_chunks(1024 * 1024)

    def _write(self, key: str, value: Any) -> None:
        self._s3.put_object(
            Bucket=self._bucket,
            Key=key,
            Body=json.dumps(value, ensure_ascii=False).encode(),
            ContentType="application/json",
        )

    def _read(self, key: str) -> Any:
        return json.load(self._s3.get_object(Bucket=self._bucket, Key=key)["Body"])


def output_key(run_id: str, step: int, key: str) -> str:
    """Return where the transform job of a step writes the output for the drop `key`."""
    return f"runs/{run_id}/step-{step}/{key}{_OUT * step}"


def _manifest_key(run_id: str, step: int) -> str:
    return f"runs/{run_id}/manifest-{step}.json"


def _index_key(run_id: str, part: int) -> str:
    return f"runs/{run_id}/index/{part:05d}.json"
