"""Whether stacks can be deployed, are deployed as a whole, and are found by their parameters."""

import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from batch_transform_cli.doctor.findings import Finding, fail, ok, warn
from batch_transform_cli.doctor.needs import Parameter
from batch_transform_cli.doctor.reader import Absent, Reader
from batch_transform_cli.doctor.site import Check, Deployment, Site
from batch_transform_cli.screen import counted

_QUALIFIER = re.compile(r"/cdk-bootstrap/([\w-]+)/version")
_DEFAULT_QUALIFIER = "hnb659fds"
_OF_ACCOUNT = "/batch-transform-account/"
_AT_ONCE = 10  # GetParameters takes no more names


def read_parameters(reader: Reader, names: list[str]) -> dict[str, str]:
    """Return the values of those SSM parameters that are there."""
    found: dict[str, str] = {}
    for start in range(0, len(names), _AT_ONCE):
        page = reader.read("ssm", "get_parameters", Names=names[start : start + _AT_ONCE])
        found |= {each["Name"]: each["Value"] for each in page["Parameters"]}
    return found


def read_deployment(reader: Reader, stack: str) -> Deployment | None:
    """Return a stack as it is deployed; `None` if it is not."""
    try:
        (found,) = reader.read("cloudformation", "describe_stacks", StackName=stack)["Stacks"]
    except Absent:
        return None
    resources = reader.each(
        "cloudformation", "list_stack_resources", "StackResourceSummaries", StackName=stack
    )
    return Deployment(
        status=found["StackStatus"],
        resources={
            each["LogicalResourceId"]: each["PhysicalResourceId"]
            for each in resources
            if "PhysicalResourceId" in each
        },
    )


def bootstrap_finding(name: str, needed: int, version: str | None, where: str) -> Finding:
    """Hold the version of a bootstrap against the one that is needed.

    :param version: `None` if there is none.
    """
    match = _QUALIFIER.fullmatch(name)
    qualifier = match[1] if match else _DEFAULT_QUALIFIER
    command = "cdk bootstrap"
    if qualifier != _DEFAULT_QUALIFIER:
        # docs/accounts.md says what else such a bootstrap is given.
        command += f" --qualifier {qualifier} --toolkit-stack-name CDKToolkit-{qualifier}"
    command += f" {where}"
    if version is None:
        return fail("bootstrap", f"none of qualifier {qualifier}", command)
    if not version.isdecimal() or int(version) < needed:
        found = f"version {version} of qualifier {qualifier}, {needed} is needed"
        return fail("bootstrap", found, command)
    return ok("bootstrap", f"version {version} of qualifier {qualifier}, {needed} is needed")


def stack_finding(name: str, deployment: Deployment | None, region: str) -> Finding:
    """Say how a stack is deployed."""
    if deployment is None:
        return ok("stack", f"{name} is not deployed yet")
    status = deployment.status
    found = f"{name} is {status}"
    events = (
        f"aws cloudformation describe-stack-events --stack-name {name} --region {region} --query "
        "\"StackEvents[?contains(ResourceStatus, 'FAILED')].[LogicalResourceId, "
        'ResourceStatusReason]" --output text'
    )
    if status.endswith("_IN_PROGRESS"):
        return warn("stack", found, "wait for the end of its deployment")
    if status == "UPDATE_ROLLBACK_COMPLETE":
        return warn("stack", f"{found}: the last deployment failed", f"see why:\n{events}")
    if "FAILED" in status or "ROLLBACK" in status:
        return fail("stack", found, f"see why:\n{events}")
    return ok("stack", found)


def fact_findings(
    written: Mapping[str, Any],
    there: Mapping[str, str],
    deployment: Deployment,
    *,
    stack: str,
    region: str,
) -> Iterator[Finding]:
    """Hold the parameters by which commands find a pipeline against the stack that made them."""
    wrong = 0
    for name, value in written.items():
        wanted = value if isinstance(value, str) else None
        if isinstance(value, dict) and [*value] == ["Ref"]:
            wanted = deployment.resources.get(value["Ref"])
        if name in there and wanted in (None, there[name]):
            continue
        wrong += 1
        how = f"is {there[name]}, and {wanted} is deployed" if name in there else "is not there"
        put = f"aws ssm put-parameter --name {name} --type String --overwrite --value"
        yield fail(
            "parameter",
            f"{name} {how}",
            f"deploy {stack}; if it says that nothing has changed:\n{put} {shlex.quote(wanted)} "
            f"--region {region}"
            if wanted
            else f"deploy {stack}",
        )
    if not wrong:
        yield ok("parameter", f"{counted(len(written), 'parameter')} of {stack} as deployed")


def parameter_findings(
    parameters: Sequence[Parameter], there: Collection[str], region: str
) -> Iterator[Finding]:
    """Say which parameters are missing that stacks or runs read.

    :param there: the names of those that exist.
    """
    found = [each.name for each in parameters if each.name in there]
    if found:
        yield ok("parameter", f"{counted(len(found), 'parameter')} that stacks read: there")
    missing: dict[str, list[str]] = {}
    for each in parameters:
        if each.name not in there:
            missing.setdefault(_remedy(each, region), []).append(each.name)
    for fix, names in missing.items():
        level = warn if fix.startswith("cdk deploy") else fail
        yield level("parameter", f"{', '.join(names)}: not there", fix)


def _remedy(parameter: Parameter, region: str) -> str:
    if parameter.made_by:
        return f"cdk deploy {parameter.made_by}, before the others"
    if parameter.name.startswith(_OF_ACCOUNT):
        return "deploy an AccountBaseline there first (docs/accounts.md)"
    put = f"aws ssm put-parameter --name {parameter.name} --type String --region {region}"
    return f"make it; {parameter.stack} reads it:\n{put} --value VALUE"


def _bootstrap(item: tuple[str, int], site: Site) -> Iterator[Finding]:
    name, needed = item
    version = read_parameters(site.reader, [name]).get(name)
    yield bootstrap_finding(name, needed, version, f"aws://{site.account}/{site.region}")


def _stack(name: str, site: Site) -> Iterator[Finding]:
    yield stack_finding(name, site.deployed.get(name), site.region)


def _facts(stack: str, site: Site) -> Iterator[Finding]:
    written = site.needs.facts[stack]
    there = read_parameters(site.reader, [*written])
    yield from fact_findings(written, there, site.deployed[stack], stack=stack, region=site.region)


def _parameters(parameters: Sequence[Parameter], site: Site) -> Iterator[Finding]:
    there = read_parameters(site.reader, [each.name for each in parameters])
    yield from parameter_findings(parameters, there.keys(), site.region)


CHECKS = (
    Check(
        topic="bootstrap",
        items=lambda site: {name: (name, most) for name, most in site.needs.bootstraps.items()},
        examine=_bootstrap,
        not_local="a local cloud bootstraps itself",
    ),
    Check(
        topic="stack",
        items=lambda site: {
            each.name: each.name for each in site.needs.stacks if each.name not in site.unread
        },
        examine=_stack,
    ),
    Check(
        topic="parameter",
        items=lambda site: {"all": site.needs.parameters} if site.needs.parameters else {},
        examine=_parameters,
    ),
    Check(
        topic="parameter",
        items=lambda site: {name: name for name in site.needs.facts if name in site.deployed},
        examine=_facts,
    ),
)
