"""What a run keeps in the output bucket.

predictions/<key>.out           the predictions of a drop, put there whole, by settle
reports/<run>.json              what became of a run
reports/<run>.drops.jsonl       what became of each of its drops
reports/<run>.outputs.json      a manifest of the predictions that it made
runs/<run>/plan.json            the drops that the run may claim, written before it claims the first
runs/<run>/manifest-1.json      the objects that the transform job of step 1 reads
runs/<run>/step-1-of-2/         what that job writes: <key>.out
runs/<run>/manifest-2.json      those of them that step 2 reads: all that there are
runs/<run>/step-2-of-2/         what its job writes: <key>.out.out
runs/<run>/count/00000.json     a part of what there is to count
runs/<run>/counted/00000.json   what was counted of it
runs/<run>/overtaken.json       the keys that held another version when the run was settled
runs/<run>/index/00000.json     a part of the index work; all under runs/ expires

A folder says how many steps there are, so that a deployment which takes a step away cannot make
predictions of what a run that began before it has handed on.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from transform_lambdas.drops import Drop
from transform_lambdas.objects import Objects

_OUT = ".out"  # what SageMaker adds to the name of each object that it reads
_COPY_LIMIT_BYTES = 5 * 1024**3  # CopyObject takes no more; a larger one is copied in parts


@dataclass(frozen=True, slots=True)
class Step:
    """One of the transform jobs of a run, which has `of` of them; counted from 1."""

    number: int
    of: int
    name: str

    @property
    def is_last(self) -> bool:
        """Whether its outputs are the predictions."""
        return self.number == self.of

    def output_key(self, run_id: str, key: str) -> str:
        """Return where its job writes the output for the drop `key`."""
        return f"{self.prefix(run_id)}{key}{self.suffix}"

    def prefix(self, run_id: str) -> str:
        """Return under which prefix its job writes."""
        return f"runs/{run_id}/step-{self.number}-of-{self.of}/"

    @property
    def suffix(self) -> str:
        """What its outputs have after the key of the drop."""
        return _OUT * self.number

    def subject(self, key: str) -> str:
        """Return what a reason begins with: the drop, and the step if there are several."""
        return key if self.of == 1 else f"{key} in step {self.name!r}"


def prediction_key(prefix: str, key: str) -> str:
    """Return where a drop's predictions are."""
    return f"{prefix}{key}{_OUT}"


def in_turn(names: Sequence[str]) -> list[Step]:
    """Return the steps of these names."""
    return [Step(number, of=len(names), name=name) for number, name in enumerate(names, start=1)]


def step_input(run_id: str, step: int, *, objects: int, size_bytes: int) -> dict[str, Any]:
    """Return what the state machine begins a step with.

    :param objects: in the step's manifest; with their bytes they decide how many instances.
    """
    return {
        "run_id": run_id,
        "step": step,
        "objects": objects,
        "size_bytes": size_bytes,
        "shortages": 0,
    }


class RunFiles(Objects):
    """Reads and writes them."""

    def report_uri(self, run_id: str) -> str:
        """Return where the run's report is."""
        return f"s3://{self.bucket}/reports/{run_id}.json"

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

    def read_claimed(self, run_id: str) -> list[str]:
        """Return the keys of the drops that the run has claimed, which is what step 1 reads."""
        manifest: list[Any] = self._read(_manifest_key(run_id, 1))
        return manifest[1:]

    def hand_on(self, run_id: str, step: Step, keys: Iterable[str]) -> None:
        """Write what the step after `step` reads: its outputs for the drops of these keys."""
        head = {"prefix": f"s3://{self.bucket}/{step.prefix(run_id)}"}
        names = (f"{key}{step.suffix}" for key in keys)
        self._write(_manifest_key(run_id, step.number + 1), [head, *names])

    def output_sizes(self, run_id: str, step: Step) -> dict[str, int]:
        """Return the keys of the drops that have an output of a step, and the outputs' bytes."""
        prefix, suffix = step.prefix(run_id), step.suffix
        pages = self._s3.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=prefix
        )
        return {
            entry["Key"].removeprefix(prefix).removesuffix(suffix): entry["Size"]
            for page in pages
            for entry in page.get("Contents", [])
            if entry["Key"].endswith(suffix)
        }

    def write_overtaken(self, run_id: str, keys: Sequence[str]) -> list[str]:
        """Note which drops were overtaken, unless that was done before; return what was noted."""
        noted: list[str] = self._write_once(f"runs/{run_id}/overtaken.json", list(keys))
        return noted

    def promote(self, run_id: str, step: Step, key: str, *, size: int, prefix: str) -> str:
        """Copy a drop's output to its place under the output prefix, and return its key there."""
        source = {"Bucket": self.bucket, "Key": step.output_key(run_id, key)}
        target = prediction_key(prefix, key)
        if size <= _COPY_LIMIT_BYTES:
            self._s3.copy_object(CopySource=source, Bucket=self.bucket, Key=target)
        else:
            self._s3.copy(source, self.bucket, target)
        return target

    def write_outputs(self, run_id: str, keys: Iterable[str], *, prefix: str) -> str:
        """Write the manifest of what the run has promoted for drops of these keys; return its URI.

        A transform or training job takes it as a `ManifestFile`.
        """
        manifest = f"reports/{run_id}.outputs.json"
        head = {"prefix": f"s3://{self.bucket}/{prefix}"}
        self._write(manifest, [head, *(f"{key}{_OUT}" for key in keys)])
        return f"s3://{self.bucket}/{manifest}"

    def write_drops(self, run_id: str, drops: Iterable[Mapping[str, Any]]) -> str:
        """Write what became of each drop, as JSON Lines; return the URI."""
        key = f"reports/{run_id}.drops.jsonl"
        lines = (json.dumps(drop, ensure_ascii=False) + "\n" for drop in drops)
        self._s3.put_object(
            Bucket=self.bucket,
            Key=key,
            Body="".join(lines).encode(),
            ContentType="application/jsonlines",
        )
        return f"s3://{self.bucket}/{key}"

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

    def write_count_work(self, run_id: str, part: int, work: Sequence[Any]) -> None:
        """Write one part of what there is to count."""
        self._write(_count_key(run_id, part), list(work))

    def read_count_work(self, run_id: str, part: int) -> list[Any]:
        """Return one part of what there is to count."""
        work: list[Any] = self._read(_count_key(run_id, part))
        return work

    def write_counts(self, run_id: str, part: int, counts: Sequence[Any]) -> None:
        """Write what was counted of one part, unless it was counted before."""
        self._write_once(_counted_key(run_id, part), list(counts))

    def read_counts(self, run_id: str, part: int) -> list[Any]:
        """Return what was counted of one part."""
        counts: list[Any] = self._read(_counted_key(run_id, part))
        return counts

    def _write(self, key: str, value: Any, **more: str) -> None:
        self._s3.put_object(
            Bucket=self.bucket,
            Key=key,
            Body=json.dumps(value, ensure_ascii=False).encode(),
            ContentType="application/json",
            **more,
        )

    def _write_once(self, key: str, value: Any) -> Any:
        """Write what nobody has written yet; return what is there then."""
        try:
            self._write(key, value, IfNoneMatch="*")
        except ClientError as error:
            if error.response["Error"]["Code"] != "PreconditionFailed":
                raise
            return self._read(key)
        return value

    def _read(self, key: str) -> Any:
        return json.load(self.open(key))


def _manifest_key(run_id: str, step: int) -> str:
    return f"runs/{run_id}/manifest-{step}.json"


def _index_key(run_id: str, part: int) -> str:
    return f"runs/{run_id}/index/{part:05d}.json"


def _count_key(run_id: str, part: int) -> str:
    return f"runs/{run_id}/count/{part:05d}.json"


def _counted_key(run_id: str, part: int) -> str:
    return f"runs/{run_id}/counted/{part:05d}.json"
