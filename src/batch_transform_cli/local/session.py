"""What `up` does: a local cloud that has the app as it is now, until somebody ends it."""

import dataclasses
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

from batch_transform_cli.cloud import Cloud
from batch_transform_cli.errors import CommandError, Interrupted, PipelineNotFound
from batch_transform_cli.local.file_watch import FileWatch
from batch_transform_cli.local.project_cloud import Claim, Place, claimed
from batch_transform_cli.outside import AWS_ERRORS, one_line
from batch_transform_cli.pipelines import views
from batch_transform_cli.pipelines.client import PipelineClient
from batch_transform_cli.pipelines.records import Drop, Run, Status
from batch_transform_cli.synthesis import settings_of, synthesize
from local_cloud import LocalCloud, LocalCloudError

_TICK_S = 0.25
_FILES_EVERY_S = 0.5
_LEDGER_EVERY_S = 1.0
_SHARE = 20  # Looking takes at most one part in so many of the time.
_SMALL_STEPS = ("claiming", "claimed", "settled")  # that the next step of a run tells anyway
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Outputs = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What the command line asks for.

    :param project: the folder of the app, in which other commands find the cloud.
    :param assembly: what is deployed; None is what the project's app makes.
    :param state_dir: where data stays; None is nowhere.
    :param images: folders that stand for images, by URI.
    :param watch: whether changes are deployed.
    """

    project: Path
    assembly: Path | None
    port: int | None
    state_dir: Path | None
    ping_timeout_s: float
    images: Mapping[str, Path]
    watch: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Something that happened.

    :ivar kind: `synthesizing`, `deploying`, `deployed`, `refused`, `changed`, `unwatched`, `left`,
        `unreadable`, `drop` or `run`.
    :ivar lines: that a person reads.
    :ivar facts: what a program reads.
    """

    kind: str
    lines: Sequence[str]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ready:
    """A cloud that has the app for the first time."""

    endpoint: str
    pipelines: Sequence[tuple[Place, PipelineClient]]
    watch: bool
    state_dir: Path | None


Say = Callable[[Event], None]
_Seen = TypeVar("_Seen")


def run(order: Order, say: Say, begin: Callable[[Ready], None]) -> NoReturn:
    """Start the cloud, deploy, and stay.

    :param begin: shows the cloud when it has the app.
    :raises Interrupted: by whoever ended it; nothing is left running then.
    :raises CommandError: it cannot start, or the cloud has died.
    """
    with (
        _until_a_signal(),
        claimed(order.project) as claim,
        tempfile.TemporaryDirectory() as folder,
    ):
        app = _App(order, Path(folder, "assembly"), say)
        try:
            assembly = app.assembly()
            cloud = LocalCloud(
                port=order.port, state_dir=order.state_dir, ping_timeout_s=order.ping_timeout_s
            )
            with cloud:
                _Session(order, app, cloud, claim, say).stay(assembly, begin)
        except LocalCloudError as error:
            raise CommandError(str(error)) from error


class _App:
    """What is deployed: the assemblies that the app makes, or the one that was named."""

    def __init__(self, order: Order, folder: Path, say: Say) -> None:
        self._order = order
        self._say = say
        self._folder = folder
        self.watch = FileWatch(
            [order.assembly or order.project, *order.images.values()],
            ignored=[order.state_dir] if order.state_dir is not None else [],
        )

    def assembly(self) -> Path:
        """Make an assembly of the app as it is now.

        :raises SynthesisFailed: it makes none.
        """
        if self._order.assembly is not None:
            return self._order.assembly
        settings_of(self._order.project)  # Nothing is begun where there is no app.
        self._say(Event(kind="synthesizing", lines=["synthesizing the app"]))
        # What was deployed has been copied by now.
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        before = self.watch.look()
        synthesize(self._order.project, self._folder)
        for name in self.watch.app_has_run(before):
            file = _relative(name, self._order.project)
            line = f"{file} is written by the app itself each time, so it is no longer watched"
            self._say(Event(kind="unwatched", lines=[line], facts={"file": file}))
        return self._folder


class _Session:
    def __init__(self, order: Order, app: _App, cloud: LocalCloud, claim: Claim, say: Say) -> None:
        self._order = order
        self._app = app
        self._cloud = cloud
        self._claim = claim
        self._say = say
        self._outputs: dict[str, Mapping[str, str]] = {}
        self._pipelines: list[tuple[Place, PipelineClient]] = []
        self._seen: dict[str, Status] = {}
        self._left: set[str] = set()
        self._unreadable: set[tuple[str, str]] = set()

    def stay(self, assembly: Path, begin: Callable[[Ready], None]) -> NoReturn:
        self._claim.announce(self._cloud.endpoint)
        self._deploy(assembly)
        if self._order.state_dir is not None:
            self._look(silent=True)  # What was there before is no news.
        begin(
            Ready(
                endpoint=self._cloud.endpoint,
                pipelines=self._pipelines,
                watch=self._order.watch,
                state_dir=self._order.state_dir,
            )
        )
        files, ledger = _Pace(_FILES_EVERY_S), _Pace(_LEDGER_EVERY_S)
        while True:
            if self._order.watch:
                names = files.when_due(self._app.watch.changed)
                if names:
                    self._redeploy(names)
            ledger.when_due(self._look)
            self._cloud.check()
            time.sleep(_TICK_S)

    def _redeploy(self, names: Sequence[str]) -> None:
        """Deploy the app as it is now; what refuses it leaves what was deployed."""
        said = [_relative(name, self._order.project) for name in names]
        self._say(Event(kind="changed", lines=[_listed(said)], facts={"files": said}))
        begun = time.monotonic()
        try:
            assembly = self._app.assembly()
            gone = self._deploy(assembly, names)
        except (CommandError, LocalCloudError) as error:
            self._cloud.check()
            lines = f"not deployed: {error}".splitlines()
            after = "what was deployed runs on; the next change is tried again"
            self._say(Event(kind="refused", lines=[*lines, after], facts={"reason": str(error)}))
            return
        seconds = round(time.monotonic() - begun, 1)
        self._say(
            Event(kind="deployed", lines=[f"deployed in {seconds:g} s"], facts={"seconds": seconds})
        )
        for stack in gone:
            line = f"stack {stack} is not in the app any more, and stays, as it does on AWS"
            self._say(Event(kind="left", lines=[line], facts={"stack": stack}))

    def _deploy(self, assembly: Path, changed: Sequence[str] | None = None) -> list[str]:
        """Deploy, and return the stacks that are newly left over.

        :param changed: files. Default: all have.
        """
        self._say(Event(kind="deploying", lines=["deploying"]))
        for uri, directory in self._order.images.items():
            # A job may run in what is registered, so it is not replaced without need.
            if changed is None or any(_is_below(name, directory) for name in changed):
                self._cloud.images.register(uri, directory)
        outputs = self._cloud.deploy(assembly)
        before, self._left = self._left, self._outputs.keys() - outputs.keys()
        self._outputs |= outputs
        self._unreadable.clear()
        places = places_of(self._outputs)
        self._claim.announce(self._cloud.endpoint, places)
        self._pipelines = [each for place in places for each in self._pipelines_in(place)]
        return sorted(self._left - before)

    def _pipelines_in(self, place: Place) -> list[tuple[Place, PipelineClient]]:
        try:
            found = PipelineClient.find_all(Cloud(self._cloud.endpoint, place=place))
        except PipelineNotFound:
            return []  # A state machine of another kind.
        return [(place, client) for client in found]

    def _look(self, *, silent: bool = False) -> None:
        """Tell what is new in the ledgers."""
        for place, client in self._pipelines:
            name = client.pipeline_id if len(self._pipelines) > 1 else ""
            where = f"{place.account}/{place.region}/{client.pipeline_id}"
            try:
                status = client.status()
            except AWS_ERRORS as error:
                # Somebody changes the pipeline, or the cloud has died: the check tells that.
                self._cloud.check()
                self._say_unreadable(client.pipeline_id, one_line(error))
                continue
            before = self._seen.get(where, Status(drops=[], runs=[]))
            self._seen[where] = status
            if not silent:
                for event in _news(before, status, client.pipeline_id, name):
                    self._say(event)

    def _say_unreadable(self, pipeline_id: str, problem: str) -> None:
        if (pipeline_id, problem) in self._unreadable:
            return
        self._unreadable.add((pipeline_id, problem))
        line = f"{pipeline_id} cannot be read: {problem}"
        facts = {"pipeline": pipeline_id, "reason": problem}
        self._say(Event(kind="unreadable", lines=[line], facts=facts))


class _Pace:
    """How often to look, and less often when a look takes long."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._due = 0.0

    def when_due(self, look: Callable[[], _Seen]) -> _Seen | None:
        begun = time.monotonic()
        if begun < self._due:
            return None
        seen = look()
        ended = time.monotonic()
        self._due = ended + max(self._every_s, _SHARE * (ended - begun))
        return seen


def _news(before: Status, after: Status, pipeline_id: str, name: str) -> Iterator[Event]:
    """Tell of the drops and runs that have changed: a program of each, a person of many at once.

    :param name: that stands before lines; empty if there is only one pipeline.
    """
    drops, runs = views.changed(before, after)
    lines = views.told(
        [drop for drop in drops if drop.status not in _SMALL_STEPS],
        [run for run in runs if run.status not in _SMALL_STEPS],
    )
    lines = [f"{name}  {line}" if name else line for line in lines]
    items: list[tuple[str, Drop | Run]] = [
        *(("drop", drop) for drop in drops),
        *(("run", run) for run in runs),
    ]
    for kind, item in items:
        facts = {"pipeline": pipeline_id, **dataclasses.asdict(item)}
        yield Event(kind=kind, lines=lines, facts=facts)
        lines = []


def places_of(outputs: Outputs) -> list[Place]:
    """Return each account and region that has a pipeline."""
    arns = [value for values in outputs.values() for value in values.values()]
    return [
        *dict.fromkeys(
            Place(account=arn.split(":")[4], region=arn.split(":")[3])
            for arn in arns
            if ":stateMachine:" in arn
        )
    ]


def _is_below(name: str, folder: Path) -> bool:
    return Path(name).is_relative_to(folder.absolute())


def _relative(name: str, project: Path) -> str:
    path = Path(name)
    return str(path.relative_to(project)) if path.is_relative_to(project) else name


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"changed: {shown}{more}"


@contextmanager
def _until_a_signal() -> Iterator[None]:
    """Let the first signal that asks to end do so in order, and no later one disturb that.

    :raises Interrupted: there was one.
    """
    ended_by: list[int] = []

    def end(number: int, _: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        ended_by.append(number)
        raise KeyboardInterrupt

    before = {
        number: signal.signal(number, end)
        for number in _SIGNALS
        if signal.getsignal(number) != signal.SIG_IGN  # As nohup wants it.
    }
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted("stopped; nothing is left running", *ended_by) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
