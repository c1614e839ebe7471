"""Looks at everything, in parallel; what cannot be looked at is a finding, too."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.pool import ThreadPool
from typing import Any, TypeVar

from botocore.exceptions import ConnectTimeoutError, ProfileNotFound, ReadTimeoutError

from batch_transform_cli.cloud import Cloud, is_local
from batch_transform_cli.doctor import (
    buckets,
    costs,
    deployments,
    keys,
    machine,
    models,
    networks,
    quotas,
)
from batch_transform_cli.doctor.assembly import AppStack
from batch_transform_cli.doctor.findings import Finding, Level, Place, skipped, warn
from batch_transform_cli.doctor.identity import (
    no_profile,
    other_accounts,
    region_finding,
    whose,
)
from batch_transform_cli.doctor.needs import needs_of, parameters_of
from batch_transform_cli.doctor.reader import Absent, Clients, NotAllowed, Reader, clients_of
from batch_transform_cli.doctor.site import Check, Deployment, Site
from batch_transform_cli.outside import AWS_ERRORS, one_line

CHECKS: Sequence[Check] = [
    check
    for module in (deployments, costs, quotas, models, buckets, keys, networks)
    for check in module.CHECKS
]
_TOPICS = [
    *("bootstrap", "stack", "parameter", "boundary", "quota", "model", "artifact", "image"),
    *("role", "bucket", "key", "network", "alarms", "budget"),
]
_AT_ONCE = 8
_ANY_REGION = "us-east-1"  # for the question whose credentials these are
_DEFAULT_BOOTSTRAP = {"/cdk-bootstrap/hnb659fds/version": 6}  # what CDK's templates ask for
_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """What was found in one place, or on this machine."""

    title: str
    place: Place | None
    findings: Sequence[Finding]


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """All that was found."""

    groups: Sequence[Group]

    def count(self, level: Level) -> int:
        """Return how many findings are of that level."""
        return sum(finding.level == level for group in self.groups for finding in group.findings)


def examine(stacks: Sequence[AppStack], endpoint: str | None, before: Sequence[Finding]) -> Report:
    """Look at this machine, the credentials, and each account and region of the app.

    :param before: what was found when the app was read.
    """
    try:
        cloud = Cloud(endpoint)
    except ProfileNotFound as error:
        return _report(
            [*before, *machine.machine_findings(stacks, is_local=False)], no_profile(error)
        )
    local = cloud.endpoint is not None and is_local(cloud.endpoint)
    here = [*before, *machine.machine_findings(stacks, is_local=local)]
    return examine_places(
        stacks, clients_of(cloud), cloud.session.region_name, here, is_local=local
    )


def examine_places(
    stacks: Sequence[AppStack],
    clients: Clients,
    region: str | None,
    here: Sequence[Finding],
    *,
    is_local: bool,
) -> Report:
    """Look at the credentials, and each account and region of the app.

    :param region: the one that is configured.
    :param here: what was found on this machine.
    """
    regions = [each.region for each in stacks]
    known = region or next((each for each in regions if each), _ANY_REGION)
    account, credentials = whose(Reader(Place(account="", region=known), clients))
    said = [credentials, region_finding(region, regions)]
    if not account:
        return _report(here, *said, skipped("app", "nothing in AWS was looked at"))
    if None in regions and region is None:
        return _report(here, *said, skipped("app", "nothing in AWS was looked at"))
    of_stacks: dict[Place, list[AppStack]] = {}
    for each in stacks:
        place = Place(account=each.account or account, region=each.region or known)
        of_stacks.setdefault(place, []).append(each)
    if not of_stacks and region is not None:
        of_stacks[Place(account=account, region=region)] = []
    if not is_local:
        said += other_accounts(account, [*of_stacks])
        of_stacks = {place: each for place, each in of_stacks.items() if place.account == account}
    groups = []
    seen: set[str] = set()
    for place, of_place in of_stacks.items():
        groups.append(
            _look(place, of_place, clients, is_local=is_local, is_first=place.account not in seen)
        )
        seen.add(place.account)
    return Report(groups=[_here([*here, *said]), *groups])


@dataclass(frozen=True, kw_only=True, slots=True)
class _Trouble:
    """Why something could not be looked at."""

    topic: str
    name: str
    why: str
    fix: str


def _look(
    place: Place, stacks: Sequence[AppStack], clients: Clients, *, is_local: bool, is_first: bool
) -> Group:
    reader = Reader(place, clients)
    troubles: list[_Trouble] = []
    names = [*dict.fromkeys(each.name for each in parameters_of(stacks))]

    def deployment(name: str) -> Deployment | None:
        return _tried("stack", name, lambda: deployments.read_deployment(reader, name), troubles)

    def read_parameters() -> Mapping[str, str]:
        return deployments.read_parameters(reader, names)

    needs = needs_of(place, stacks, _tried("parameter", "", read_parameters, troubles) or {})
    if not stacks:
        needs = replace(needs, bootstraps=_DEFAULT_BOOTSTRAP)
    deployed = _together(deployment, [each.name for each in stacks])
    site = Site(
        needs=needs,
        reader=reader,
        deployed={
            stack.name: each
            for stack, each in zip(stacks, deployed, strict=True)
            if each is not None
        },
        unread=frozenset(each.name for each in troubles if each.topic == "stack"),
        is_local=is_local,
        is_first=is_first,
    )
    findings: list[Finding] = []
    tasks: list[tuple[Check, str, Any]] = []
    for check in CHECKS:
        for name, item in check.items(site).items():
            if not (is_local and check.not_local):
                tasks.append((check, name, item))
            elif (untold := skipped(check.topic, check.not_local)) not in findings:
                findings.append(untold)

    def made(task: tuple[Check, str, Any]) -> list[Finding]:
        check, name, item = task
        found: list[Finding] = []
        _tried(check.topic, name, lambda: found.extend(check.examine(item, site)), troubles)
        return found

    findings += (each for found in _together(made, tasks) for each in found)
    return Group(title=str(place), place=place, findings=_by_topic([*findings, *_told(troubles)]))


def _tried(topic: str, name: str, look: Callable[[], _R], troubles: list[_Trouble]) -> _R | None:
    """Look; note why not, if that cannot be done."""
    try:
        return look()
    except NotAllowed as denied:
        why = f"needs {denied}"
        fix = f"allow {denied} to your credentials; docs/doctor.md has the whole policy"
    except Absent as absent:
        why, fix = str(absent), "look at it by hand"
    except (ReadTimeoutError, ConnectTimeoutError):
        why, fix = (
            "no answer in time",
            "run this once more; is there a proxy, or a VPN, in between?",
        )
    except AWS_ERRORS as error:
        why, fix = one_line(error), "run this once more, or look at it by hand"
    troubles.append(_Trouble(topic=topic, name=name, why=why, fix=fix))
    return None


def _told(troubles: Sequence[_Trouble]) -> Iterator[Finding]:
    """Tell of what has one reason in one finding."""
    names: dict[_Trouble, list[str]] = {}
    for each in troubles:
        names.setdefault(replace(each, name=""), []).append(each.name)
    for each, of in names.items():
        named = ", ".join(dict.fromkeys(name for name in of if name))
        found = f"{named}: " if named else ""
        yield warn(each.topic, f"{found}not looked at, {each.why}", each.fix)


def _together(do: Callable[[_T], _R], items: Iterable[_T]) -> list[_R]:
    # Of daemons, so that Ctrl-C need not wait for calls that nobody answers.
    with ThreadPool(_AT_ONCE) as pool:
        return pool.map(do, items, chunksize=1)


def _by_topic(findings: Sequence[Finding]) -> list[Finding]:
    # What several things need is found several times.
    return sorted(dict.fromkeys(findings), key=lambda finding: _TOPICS.index(finding.topic))


def _here(findings: Sequence[Finding]) -> Group:
    return Group(title="this machine", place=None, findings=findings)


def _report(here: Sequence[Finding], *said: Finding) -> Report:
    return Report(groups=[_here([*here, *said])])
