"""Three ways to make transform jobs of a day's uploads, as processes in simulated time.

What comes in one second is one *group* in the simulation, or a few of them if it is much, so that a
hundred million uploads take little longer than a hundred thousand: see docs/scale.md.
"""

import math
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import simpy

from benchmarks.scale.inputs import Inputs, PipelineSettings
from transform_lambdas import clock
from transform_lambdas.batches import BatchPolicy, Waiting
from transform_lambdas.drops import Drop

DAY_S = 86_400.0
_GROUPS = 20_000  # of jobs one by one, if there are more
_GROUPS_A_BATCH = 5  # at least
_EVENTS_AT_ONCE, _INTAKES_AT_ONCE = 100, 10  # of the queue's event source mapping
Process = Generator[simpy.Event, Any, None]
_START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Group:
    """Uploads that come at about one time."""

    at_s: float
    uploads: int


@dataclass(slots=True)
class Day:
    """What became of a day's uploads.

    :ivar waits: from upload to output in seconds, each with how many uploads waited so long.
    :ivar most_instances: that were in use at once.
    """

    uploads: int
    jobs: int = 0
    instance_s: float = 0
    waits: list[tuple[float, int]] = field(default_factory=list)
    most_instances: int = 0

    @property
    def ended(self) -> int:
        """How many uploads have their output."""
        return sum(uploads for _, uploads in self.waits)

    def wait_s(self, share: float) -> float:
        """Return how long the share of the uploads that waited least has waited at most."""
        left = share * self.ended
        for wait_s, uploads in sorted(self.waits):
            left -= uploads
            if left <= 0:
                return wait_s
        raise ValueError("a day must have uploads, got none; give some")


def arrivals(inputs: Inputs, uploads: int, *, at_most: int) -> list[Group]:
    """Return a day's uploads, those of one second in groups of at most so many."""
    chance = np.random.default_rng(inputs.seed)
    edges = np.arange(DAY_S + 1)
    share = np.full(len(edges) - 1, (1 - inputs.share_in_bursts) / DAY_S)
    for begin in chance.uniform(0, DAY_S - inputs.burst_s, inputs.bursts_per_day):
        # How much of each second is in the burst.
        inside = np.diff(np.clip(edges, begin, begin + inputs.burst_s))
        share += inside * inputs.share_in_bursts / inputs.bursts_per_day / inputs.burst_s
    groups = []
    for second, count in enumerate(chance.multinomial(uploads, share / share.sum())):
        for first in range(0, int(count), at_most):
            groups.append(Group(second + 0.5, min(at_most, int(count) - first)))
    return groups


class _Cloud:
    """Instances up to the quota, and what they cost."""

    def __init__(self, inputs: Inputs, uploads: int) -> None:
        self.inputs = inputs
        self.time = simpy.Environment()
        self.free = simpy.Container(
            self.time, capacity=inputs.instance_quota, init=inputs.instance_quota
        )
        self.day = Day(uploads)

    def job(self, uploads: int, *, instances: int = 1) -> Process:
        """Score so many uploads with as many instances."""
        yield self.free.get(instances)
        in_use = self.inputs.instance_quota - int(self.free.level)
        self.day.most_instances = max(self.day.most_instances, in_use)
        work_s = self.inputs.billed_start_s + uploads * self.inputs.upload_s / instances
        yield self.time.timeout(self.inputs.job_start_s + work_s)
        yield self.free.put(instances)
        self.day.jobs += 1
        self.day.instance_s += work_s * instances

    def come(self, groups: Sequence[Group]) -> Iterator[tuple[simpy.Event, Group]]:
        """Give each group with the event of its time."""
        for group in groups:
            yield self.time.timeout(max(0.0, group.at_s - self.time.now)), group

    def ended(self, group: Group) -> None:
        """A group has its outputs."""
        self.day.waits.append((self.time.now - group.at_s, group.uploads))


def job_per_upload(inputs: Inputs, uploads: int) -> Day:
    """Have each upload be a job of its own, in their order, as soon as the quota allows."""
    cloud = _Cloud(inputs, uploads)
    one_s = inputs.job_start_s + inputs.billed_start_s + inputs.upload_s

    def run(group: Group) -> Process:
        # Its uploads follow each other on one instance, which makes a difference only where the
        # quota holds them up anyway, for longer than that.
        yield cloud.free.get(1)
        in_use = inputs.instance_quota - int(cloud.free.level)
        cloud.day.most_instances = max(cloud.day.most_instances, in_use)
        yield cloud.time.timeout(one_s * (group.uploads + 1) / 2)
        cloud.ended(group)  # in the middle
        yield cloud.time.timeout(one_s * (group.uploads - 1) / 2)
        yield cloud.free.put(1)
        cloud.day.jobs += group.uploads
        cloud.day.instance_s += group.uploads * (inputs.billed_start_s + inputs.upload_s)

    def live() -> Process:
        at_most = max(1, uploads // _GROUPS)
        for comes, group in cloud.come(arrivals(inputs, uploads, at_most=at_most)):
            yield comes
            cloud.time.process(run(group))

    cloud.time.process(live())
    cloud.time.run()
    return cloud.day


def windows(inputs: Inputs, uploads: int) -> Day:
    """Have what comes in each window be a job, if it is anything."""
    cloud = _Cloud(inputs, uploads)
    came: list[Group] = []

    def run(groups: Sequence[Group]) -> Process:
        amount = sum(group.uploads for group in groups)
        yield from cloud.job(amount, instances=inputs.windows.instances)
        for group in groups:
            cloud.ended(group)

    def live() -> Process:
        for comes, group in cloud.come(arrivals(inputs, uploads, at_most=uploads)):
            yield comes
            came.append(group)

    def close() -> Process:
        while cloud.time.now < DAY_S:
            yield cloud.time.timeout(inputs.windows.window_s)
            if came:
                cloud.time.process(run([*came]))
                came.clear()

    cloud.time.process(live())
    cloud.time.process(close())
    cloud.time.run()
    return cloud.day


class _Pipeline:
    """A pipeline of this project: intake, dispatch with its own policy, runs in slots, settle."""

    def __init__(self, inputs: Inputs, settings: PipelineSettings, uploads: int) -> None:
        self.cloud = _Cloud(inputs, uploads)
        self._inputs = inputs
        self._time = self.cloud.time
        objects = min(settings.max_objects, max(1, inputs.max_bytes // inputs.object_bytes))
        self._at_most = max(1, objects // _GROUPS_A_BATCH)
        # It cuts groups here, whose uploads are counted where it counts bytes.
        self._policy = BatchPolicy(
            max_wait_s=settings.max_wait_s, max_objects=objects, max_bytes=objects
        )
        self._look_every_s = max(1.0, settings.max_wait_s / 60)
        self._looks = False
        self._slots = settings.max_concurrent_runs
        self._waiting: deque[tuple[Group, Waiting]] = deque()
        self._gathering = False
        self._wakes_at = math.inf

    def run(self) -> Day:
        """Live through the day, and until all has ended."""
        self._time.process(self._live())
        self._time.run()
        return self.cloud.day

    def _live(self) -> Process:
        groups = arrivals(self._inputs, self.cloud.day.uploads, at_most=self._at_most)
        event_s = self._inputs.intake_s / (_EVENTS_AT_ONCE * _INTAKES_AT_ONCE)
        for number, (comes, group) in enumerate(self.cloud.come(groups)):
            yield comes
            # Intake is as fast as its invocations: what comes faster waits in its queue.
            yield self._time.timeout(group.uploads * event_s)
            drop = Drop(
                key=str(number),
                order="",
                size=group.uploads,
                etag="",
                version_id="",
                dropped_at="",
            )
            self._waiting.append((group, Waiting(drop, clock.to_text(self._moment(group.at_s)))))
            if not self._looks:
                self._looks = True
                self._time.process(self._look())

    def _look(self) -> Process:
        yield self._time.timeout(self._look_every_s)
        self._looks = False
        self._dispatch()

    def _moment(self, at_s: float) -> datetime:
        return _START + timedelta(seconds=at_s)

    def _dispatch(self) -> None:
        """Start a run if a batch is due and a slot is free; be woken again when one may be."""
        if self._gathering or not self._slots or not self._waiting:
            return
        batch = self._policy.cut(entry for _, entry in self._waiting)
        left_s = self._policy.wait_left_s(batch, now=self._moment(self._time.now), marked_at=None)
        if left_s > 0:
            wakes_at = self._time.now + left_s
            if wakes_at < self._wakes_at:
                self._wakes_at = wakes_at
                self._time.process(self._wake(left_s))
            return
        self._slots -= 1
        self._gathering = True
        groups = [self._waiting.popleft()[0] for _ in batch.drops]
        self._time.process(self._run(groups))

    def _wake(self, after_s: float) -> Process:
        yield self._time.timeout(after_s)
        self._wakes_at = math.inf
        self._dispatch()

    def _run(self, groups: Sequence[Group]) -> Process:
        uploads = sum(group.uploads for group in groups)
        yield self._time.timeout(uploads * self._inputs.claim_s)
        self._gathering = False
        self._dispatch()
        yield from self.cloud.job(uploads)
        yield self._time.timeout(uploads * self._inputs.settle_s)
        for group in groups:
            self.cloud.ended(group)
        self._slots += 1
        self._dispatch()


def ours(inputs: Inputs, settings: PipelineSettings, uploads: int) -> Day:
    """Have a pipeline of this project make runs of them."""
    return _Pipeline(inputs, settings, uploads).run()
