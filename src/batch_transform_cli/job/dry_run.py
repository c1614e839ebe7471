"""What a job would read and send, found out with the engine's own splitting and packing.

Objects are read whole and in pieces; no model server is started and nothing is written. What is
kept is counts, so that memory does not grow with the input.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field

from batch_transform_cli.job.inputs import Inputs
from transform_engine.errors import BadInput, ObjectFailed
from transform_engine.object_run import pieces
from transform_engine.objects import Task
from transform_engine.packing import Payload
from transform_engine.records import Recipe
from transform_engine.settings import Settings, settings_for
from transform_engine.spec import JobSpec
from transform_engine.splitting import LineSplitter, Splitter, splitter
from transform_engine.storage import Storage, split_uri

_AT_ONCE = 4
_LISTED = 1000
_SAMPLES = 20
_SAMPLED_BYTES = 4096
_LONGEST_RECORD = 100 * 2**20
_GZIP = b"\x1f\x8b"


@dataclass(kw_only=True, slots=True)
class ObjectPlan:
    """What would become of one object.

    :param size: as it is stored; None when that is not known.
    :param read_bytes: after decompression.
    :param longest: its largest record before any filter, in bytes.
    :param problem: why it would fail, in the engine's words.
    """

    name: str
    size: int | None
    read_bytes: int = 0
    records: int = 0
    requests: int = 0
    longest: int = 0
    problem: str | None = None


@dataclass(slots=True)
class Share:
    """What one instance would get."""

    objects: int = 0
    bytes: int = 0
    requests: int = 0


@dataclass(kw_only=True, slots=True)
class Plan:
    """What a job would read and send.

    :param objects: the first thousand.
    :param failing: those that would fail, the first thousand.
    :param longest: the largest record before any filter, and its object.
    :param body_sizes: how many requests have a body of how many bytes.
    :param open_quotes: how many lines have a quote that does not end on them.
    :param gzipped: names of objects that come to the splitter compressed.
    :param samples: how some objects start, as the splitter gets them, by name.
    :param replaced: how many outputs exist already.
    """

    settings: Settings
    instances: list[Share]
    count: int
    replaced: int
    objects: list[ObjectPlan] = field(default_factory=list)
    failing: list[ObjectPlan] = field(default_factory=list)
    failing_count: int = 0
    empty: int = 0
    read_bytes: int = 0
    records: int = 0
    longest: tuple[int, str] = (0, "")
    body_sizes: Counter[int] = field(default_factory=Counter)
    blank: int = 0
    open_quotes: int = 0
    carriage_returns: int = 0
    gzipped: list[str] = field(default_factory=list)
    samples: dict[str, bytes] = field(default_factory=dict)

    @property
    def requests(self) -> int:
        """How many requests would be sent."""
        return self.body_sizes.total()

    @property
    def body_bytes(self) -> int:
        """The mean size of a request."""
        total = sum(size * number for size, number in self.body_sizes.items())
        return round(total / (self.requests or 1))


def plan(
    spec: JobSpec, storage: Storage, inputs: Inputs, *, on_read: Callable[[ObjectPlan], None]
) -> Plan:
    """Read all objects of a job and say what would be sent.

    Settings that only the model server knows (`/execution-parameters`) have their defaults.
    """
    return asyncio.run(_Reader(spec, storage, inputs).read(on_read))


class _Reader:
    def __init__(self, spec: JobSpec, storage: Storage, inputs: Inputs) -> None:
        self._storage = storage
        self._inputs = inputs
        self._settings = settings_for(spec.request, {}, spec.readings)
        self._recipe = Recipe(self._settings, started_at=0)
        instances = int(spec.request["TransformResources"]["InstanceCount"])
        self._plan = Plan(
            settings=self._settings,
            instances=[Share() for _ in range(instances)],
            count=len(inputs.tasks),
            replaced=_existing(storage, spec.request["TransformOutput"]["S3OutputPath"], inputs),
        )

    async def read(self, on_read: Callable[[ObjectPlan], None]) -> Plan:
        # A few at a time, since a small object in S3 is mostly waiting.
        reading: deque[asyncio.Task[ObjectPlan]] = deque()
        position = 0

        async def finish() -> None:
            nonlocal position
            found = await reading.popleft()
            # As the engine deals them out.
            self._add(found, self._plan.instances[position % len(self._plan.instances)])
            position += 1
            on_read(found)

        for task in self._inputs.tasks:
            reading.append(asyncio.create_task(self._object(task)))
            if len(reading) == _AT_ONCE:
                await finish()
        while reading:
            await finish()
        return self._plan

    def _add(self, found: ObjectPlan, share: Share) -> None:
        plan = self._plan
        share.objects += 1
        share.bytes += found.read_bytes
        share.requests += found.requests
        plan.read_bytes += found.read_bytes
        plan.records += found.records
        plan.empty += not found.read_bytes and found.problem is None
        plan.longest = max(plan.longest, (found.longest, found.name))
        if len(plan.objects) < _LISTED:
            plan.objects.append(found)
        if found.problem is not None:
            plan.failing_count += 1
            if len(plan.failing) < _LISTED:
                plan.failing.append(found)

    async def _object(self, task: Task) -> ObjectPlan:
        found = ObjectPlan(name=task.relative, size=self._inputs.sizes.get(task.key))
        meter = _Meter(self._settings, found, self._plan)
        try:
            self._recipe.check()
            packer = None if self._recipe.can_stream else self._recipe.packer()
            gzip = self._settings.gzip
            async with aclosing(pieces(self._storage, task, gzip=gzip)) as read:
                async for piece in read:
                    self._look(found, piece)
                    found.read_bytes += len(piece)
                    meter.feed(piece)
                    if packer is not None and found.problem is None:
                        try:
                            self._count(found, packer.feed(piece))
                        except BadInput as failure:
                            # Read on: how long the longest record is tells what would help.
                            found.problem = _told(failure)
            meter.end()
            if packer is None:
                self._count(found, [Payload(b"")] if found.read_bytes else [], found.read_bytes)
            elif found.problem is None:
                self._count(found, packer.end())
            if not found.read_bytes and self._settings.readings.empty_object_fails:
                found.problem = "the object must have a record, got an empty object; remove it"
        except ObjectFailed as failure:
            found.problem = found.problem or _told(failure)
        return found

    def _look(self, found: ObjectPlan, piece: bytes) -> None:
        if not found.read_bytes:
            if piece.startswith(_GZIP) and len(self._plan.gzipped) < _LISTED:
                self._plan.gzipped.append(found.name)
            if len(self._plan.samples) < _SAMPLES:
                self._plan.samples[found.name] = piece[:_SAMPLED_BYTES]

    def _count(self, found: ObjectPlan, payloads: Iterable[Payload], streamed: int = 0) -> None:
        for payload in payloads:
            self._plan.body_sizes[streamed or len(payload.body)] += 1
            found.requests += 1


def _existing(storage: Storage, output_uri: str, inputs: Inputs) -> int:
    bucket, prefix = split_uri(output_uri)
    try:
        return sum(each.key in inputs.outputs for each in storage.list(bucket, prefix))
    except ObjectFailed:
        # A job writes there and need not be allowed to list it.
        return 0


def _told(failure: ObjectFailed) -> str:
    """Return the failure's own words, without the data-log's lines around them."""
    lines = failure.lines[3:] if isinstance(failure, BadInput) else failure.lines
    return " ".join(filter(None, lines))


class _Meter:
    """Counts the records of one object, finds the longest, and notes what is odd about lines."""

    def __init__(self, settings: Settings, found: ObjectPlan, plan: Plan) -> None:
        self._lines = settings.split == "Line"
        self._splitter: Splitter | None = None
        if self._lines:
            skip_blank = not settings.readings.blank_line_is_record
            self._splitter = LineSplitter(framed=False, skip_blank=skip_blank)
        elif settings.split != "None":
            self._splitter = splitter(settings.split, framed=False)
        self._found = found
        self._plan = plan
        self._has_quotes = self._has_returns = self._over = False

    def feed(self, piece: bytes) -> None:
        found = self._found
        if self._splitter is None:
            found.records = 1
            found.longest += len(piece)
            return
        if self._over:
            return
        # Most objects have neither, and looking at each line takes as long as cutting it.
        self._has_quotes = self._has_quotes or b'"' in piece
        self._has_returns = self._has_returns or b"\r" in piece
        try:
            self._note(self._splitter.feed(piece))
        except BadInput:
            self._over = True  # Told by the packer, which reads the same.
            return
        found.longest = max(found.longest, self._splitter.pending)
        # No longer record can be sent, and memory need not hold it.
        self._over = self._splitter.pending > _LONGEST_RECORD

    def end(self) -> None:
        if self._splitter is not None and self._lines and not self._over:
            self._note(self._splitter.end())

    def _note(self, records: Iterable[bytes]) -> None:
        whole = list(records)
        found, plan = self._found, self._plan
        found.records += len(whole)
        found.longest = max(found.longest, max(map(len, whole), default=0))
        if self._lines:
            plan.blank += whole.count(b"")
            if self._has_returns:
                plan.carriage_returns += sum(line.endswith(b"\r") for line in whole)
            if self._has_quotes:
                plan.open_quotes += sum(line.count(b'"') & 1 for line in whole)
