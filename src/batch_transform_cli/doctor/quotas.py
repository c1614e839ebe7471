"""Whether the account may have as many instances as the pipelines may ask for at once."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from batch_transform_cli.doctor.findings import Finding, fail, ok, warn
from batch_transform_cli.doctor.needs import Jobs
from batch_transform_cli.doctor.site import Check, Site
from batch_transform_cli.screen import counted

_SERVICE = "sagemaker"
_ALL = "Number of instances across all transform jobs"
_OPEN = ("PENDING", "CASE_OPENED")
_OWNERS_SHOWN = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Demand:
    """Instances under one quota.

    :ivar at_once: by pipeline, what its runs may have together.
    :ivar largest_job: of all, the one that has the most.
    """

    at_once: Mapping[str, int]
    largest_job: int

    @property
    def total(self) -> int:
        """What all may have together."""
        return sum(self.at_once.values())


def demands(jobs: Sequence[Jobs]) -> dict[str, Demand]:
    """Return what is asked of each quota, by its name.

    A run has one job at a time. A state machine of yours counts as one execution.
    """
    names = {instance_type for each in jobs for instance_type in each.instances}
    found = {f"{name} for transform job usage": _demand(jobs, {name}) for name in sorted(names)}
    return {**found, _ALL: _demand(jobs, names)} if found else {}


def quota_findings(
    quotas: Mapping[str, tuple[str, float]],
    asked: Mapping[str, Demand],
    requested: Mapping[str, float],
    region: str,
) -> Iterator[Finding]:
    """Hold what is asked for against what there is.

    :param quotas: code and value by name.
    :param requested: the increases that AWS has been asked for, by name.
    """
    for name, demand in asked.items():
        if name not in quotas:
            if name != _ALL:  # which not every region lists
                yield fail(
                    "quota",
                    f"{name}: AWS has no quota of that name in {region}, so that this type may not "
                    "be for transform jobs there",
                    "choose another instance_type",
                )
            continue
        code, value = quotas[name]
        said = f"{name}: {value:g}, {_needed(demand)}"
        fix = (
            f"aws service-quotas request-service-quota-increase --service-code {_SERVICE} "
            f"--quota-code {code} --desired-value {demand.total} --region {region}"
        )
        if name in requested:
            said += f"; {requested[name]:g} is asked for already"
            fix = "wait for AWS, or look:\naws service-quotas list-requested-service-quota-change-"
            fix += f"history-by-quota --service-code {_SERVICE} --quota-code {code} "
            fix += f"--region {region}"
        if value >= demand.total:
            yield ok("quota", said)
        elif value < demand.largest_job:
            yield fail("quota", f"{said}: there are jobs that can never start", fix)
        else:
            yield warn("quota", f"{said}: jobs wait for each other", fix)


def _examine(asked: Mapping[str, Demand], site: Site) -> Iterator[Finding]:
    quotas: dict[str, tuple[str, float]] = {}
    # The first has what the account has, but only for quotas that were ever changed.
    for operation in ("list_service_quotas", "list_aws_default_service_quotas"):
        if asked.keys() <= quotas.keys():
            break
        listed = site.reader.each(
            "service-quotas", operation, "Quotas", ServiceCode=_SERVICE, MaxResults=100
        )
        for quota in listed:
            if quota["QuotaName"] in asked:
                quotas.setdefault(quota["QuotaName"], (quota["QuotaCode"], quota["Value"]))
            if asked.keys() <= quotas.keys():
                break
    requested = {}
    for name, (code, value) in quotas.items():
        if value < asked[name].total:
            for change in site.reader.each(
                "service-quotas",
                "list_requested_service_quota_change_history_by_quota",
                "RequestedQuotas",
                ServiceCode=_SERVICE,
                QuotaCode=code,
            ):
                if change["Status"] in _OPEN and change["DesiredValue"] > value:
                    requested[name] = change["DesiredValue"]
    yield from quota_findings(quotas, asked, requested, site.region)


def _demand(jobs: Sequence[Jobs], names: set[str]) -> Demand:
    at_once, largest = {}, 0
    for each in jobs:
        most = max((count for name, count in each.instances.items() if name in names), default=0)
        if most:
            at_once[each.owner] = most * (each.runs or 1)
            largest = max(largest, most)
    return Demand(at_once=at_once, largest_job=largest)


def _needed(demand: Demand) -> str:
    names = sorted(demand.at_once, key=lambda name: -demand.at_once[name])
    shown = [f"{name} {demand.at_once[name]}" for name in names[:_OWNERS_SHOWN]]
    if len(names) > _OWNERS_SHOWN:
        shown.append(f"{counted(len(names) - _OWNERS_SHOWN, 'other')}")
    return f"{demand.total} may be wanted at once ({', '.join(shown)})"


CHECKS = (
    Check(
        topic="quota",
        items=lambda site: {"quotas": asked} if (asked := demands(site.needs.jobs)) else {},
        examine=_examine,
        not_local="a local cloud has as many instances as are asked for",
    ),
)
