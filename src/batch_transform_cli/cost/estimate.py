"""How long instances will work on data that has not run yet, from its size and a measured rate."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Self

from batch_transform_cli.cost.usage import calls_of
from batch_transform_cli.errors import BadValue, CommandError
from batch_transform_cli.screen import counted, size

DEFAULT_START_S = Decimal(30)
"""What a container needs to start, as docs/scale.md assumes it."""

_SIZE = re.compile(r"([\d_]+(?:\.\d+)?)\s*([kKMGT]?)(i?)B?")
_LEAST, _MOST = Decimal("0.000001"), Decimal(1_000_000_000)
_MOST_BYTES = 10**18
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """How fast one instance here works.

    :ivar bytes_s: of input, a second.
    :ivar start_s: from a job's start to its first record, if that was measured.
    :ivar origin: who says so.
    """

    bytes_s: Decimal
    start_s: Decimal | None
    origin: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Input:
    """What is to be scored.

    :ivar objects: how many objects it is, if that is known.
    :ivar sizes: of each object in the order of their keys, if they are known.
    """

    total_bytes: int
    objects: int | None = None
    sizes: Sequence[int] | None = None

    @classmethod
    def of(cls, sizes: Iterable[int]) -> Self:
        """Return an input whose objects are known."""
        known = [*sizes]
        return cls(total_bytes=sum(known), objects=len(known), sizes=known)


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What is to run, and how fast.

    :param jobs: over which the input is spread evenly.
    :param speedup: how many times as fast as here an instance works there.
    :param start_s: of each job, in which its instances are billed and score nothing.
    """

    input: Input
    rate: Rate
    instance_type: str
    instance_count: int
    jobs: int
    speedup: Decimal
    start_s: Decimal

    @property
    def job_s(self) -> int:
        """How many seconds of a job are billed, on each of its instances."""
        return math.ceil(self.start_s + self._busiest_bytes / (self.rate.bytes_s * self.speedup))

    @property
    def instance_seconds(self) -> int:
        """How many seconds are billed, of all instances and jobs."""
        return self.job_s * self.instance_count * self.jobs

    @property
    def calls(self) -> dict[str, Decimal]:
        """How often each kind of call is made, about."""
        return calls_of(drops=self.input.objects or 0, jobs=self.jobs)

    @property
    def _busiest_bytes(self) -> Decimal:
        """What the instance reads that has most to do, on which the others wait."""
        data, count = self.input, self.instance_count
        if data.sizes is not None and self.jobs == 1:
            # Dealt out like cards, in the order of keys, as the local engine does it.
            return Decimal(max(sum(data.sizes[start::count]) for start in range(count)))
        whole = Decimal(data.total_bytes) / self.jobs
        if data.objects is None:
            return whole / count
        objects = math.ceil(data.objects / self.jobs)
        return whole * math.ceil(objects / count) / objects

    @property
    def assumptions(self) -> list[str]:
        """What the estimate takes for granted, a sentence each."""
        data = self.input
        objects = "objects of unknown number" if data.objects is None else None
        said = [
            f"{size(data.total_bytes)} in {objects or counted(data.objects or 0, 'object')}",
            f"one instance here reads {size(float(self.rate.bytes_s))}/s: {self.rate.origin}",
            f"an {self.instance_type} is {self.speedup:f} times as fast as an instance here "
            "(--speedup)",
            f"each job bills {self.start_s:f} s before it scores (--start-s): "
            + (
                "measured here, in the same job"
                if self.rate.start_s == self.start_s
                else "containers of some models need more"
            ),
            f"the input is spread over {counted(self.jobs, 'job')} (--jobs); nothing is retried",
        ]
        if self.instance_count > 1:
            known = data.sizes is not None and self.jobs == 1
            said.append(
                f"{self.instance_count} instances are dealt "
                + ("the objects by their keys" if known else "equal objects")
                + "; all are billed until the last one is done"
            )
        return said


def size_in_bytes(text: str, *, option: str) -> int:
    """Read `20GB`, `512 MiB` or a number of bytes.

    :raises BadValue: it is none of these, or nothing.
    """
    match = _SIZE.fullmatch(text.strip())
    unit = 1024 if match and match[3] else 1000
    found = match and int(
        Decimal(match[1].replace("_", "") or 0) * unit ** _POWERS[match[2].lower()]
    )
    if not found or found > _MOST_BYTES:
        raise BadValue(
            f"{option} must be a size such as 20GB or 512MiB, up to a million TB, got {text!r}; "
            "write it so"
        )
    return found


def positive(text: str, *, option: str, zero: bool = False) -> Decimal:
    """Read a number that is not too small and not too large to be meant.

    :param zero: 0 is not too small.
    :raises BadValue: it is none.
    """
    try:
        found = Decimal(text)
    except InvalidOperation:
        found = Decimal("NaN")
    least = Decimal(0) if zero else _LEAST
    if not found.is_finite() or not least <= found <= _MOST:
        raise BadValue(
            f"{option} must be a number from {least:f} to {_MOST:,f}, got {text!r}; correct it"
        )
    return found


def given_rate(text: str) -> Rate:
    """Read `12.5`, in MB/s of one instance.

    :raises BadValue: it is no such number.
    """
    mb_s = positive(text, option="--rate")
    return Rate(bytes_s=mb_s * 1_000_000, start_s=None, origin="--rate")


def measured_rate(path: Path) -> Rate:
    """Read what `batch-transform run --json` has printed of a job that was completed.

    :raises CommandError: the file is nothing of the kind.
    """
    try:
        told: Any = json.loads(path.read_bytes())
        status = told["status"]
        read, instances = int(told["bytes"]), int(told["instances"])
        total_s, busy_s = (
            Decimal(str(told["seconds"][name])) for name in ("total", "transforming")
        )
    except OSError as error:
        raise CommandError(
            f"--job must be a file that can be read, got {error.strerror} for {path}; correct it"
        ) from None
    except (ValueError, KeyError, TypeError, ArithmeticError):
        raise CommandError(
            f"--job must be what `batch-transform run --json` printed, got something else in "
            f"{path}; run a job with --json > FILE"
        ) from None
    if status != "Completed" or not (read and instances and busy_s > 0):
        raise CommandError(
            f"--job must be of a Completed job that read something, got {status} and "
            f"{counted(read, 'byte')} in {path}; mend the job first"
        )
    origin = f"{size(read)} in {busy_s:f} s on {counted(instances, 'instance')}, by {path}"
    return Rate(
        bytes_s=read / (busy_s * instances),
        start_s=max(Decimal(0), total_s - busy_s),
        origin=origin,
    )


def input_at(place: str, *, s3: Any) -> Input:
    """Look up how large the objects of a file, a folder or an `s3://` prefix are.

    :param s3: makes a client of S3.
    :raises CommandError: there are none.
    """
    found: Mapping[str, int]
    if place.startswith("s3://"):
        bucket, _, prefix = place.removeprefix("s3://").partition("/")
        pages = s3().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        found = {each["Key"]: each["Size"] for page in pages for each in page.get("Contents", [])}
    else:
        path = Path(place)
        files = [path] if path.is_file() else path.rglob("*")
        found = {str(each): each.stat().st_size for each in files if each.is_file()}
    objects = Input.of(found[key] for key in sorted(found))
    if not objects.total_bytes:
        raise CommandError(
            f"--input must have an object that is not empty, got none at {place}; check the path"
        )
    return objects
