"""What the stacks of an app ask for in one account and region: read from their templates."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from batch_transform_cli.doctor.assembly import AppStack
from batch_transform_cli.doctor.findings import Place
from batch_transform_cli.doctor.values import Values

_T = TypeVar("_T")

FACTS = "/batch-transform/"
_CREATE_JOB = "arn:aws:states:::sagemaker:createTransformJob"
_GET_PARAMETER = "arn:aws:states:::aws-sdk:ssm:getParameter"
_OF_BOOTSTRAP = "/cdk-bootstrap/"
_KEY = re.compile(r"arn:[^:]+:kms:[^:]+:\d{12}:key/[\w-]+")
_TYPE = re.compile(r"ml\.[a-z0-9-]+\.[a-z0-9]+")
_MOST = re.compile(r"(\d+)\]\) %}$")
# Who has to be able to use a key, by the kind of what is encrypted with it.
_KEY_USERS = {
    "AWS::SQS::Queue": "events.amazonaws.com",
    "AWS::Logs::LogGroup": "logs.{region}.amazonaws.com",
    "AWS::StepFunctions::StateMachine": "delivery.logs.amazonaws.com",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Jobs:
    """The transform jobs that a state machine may have at once.

    :ivar runs: how many executions at a time; `None` if nothing says so.
    :ivar instances: how many of each type one execution has at most.
    """

    owner: str
    runs: int | None
    instances: Mapping[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """A SageMaker model, of the app or there already.

    :ivar role: the ARN of its role; `None` if its stack makes it under the logical id `made_role`.
    """

    name: str
    stack: str
    containers: Sequence[Mapping[str, Any]]
    role: str | None
    made_role: str | None = None

    @property
    def owner(self) -> str:
        """Return what a person knows it by: its stack, or else its name."""
        return self.stack or self.name


@dataclass(frozen=True, kw_only=True, slots=True)
class Scoring:
    """A pipeline's use of a model.

    :ivar model: its name, or its logical id if the stack makes it.
    :ivar prefix: of what it scores.
    """

    pipeline: str
    stack: str
    model: str
    prefix: str

    @property
    def bucket_fact(self) -> str:
        """Return the parameter that has the input bucket's name."""
        return f"{FACTS}{self.pipeline}/input-bucket"


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """Subnets and security groups that exist already, and who is in them."""

    owner: str
    of_functions: bool
    subnets: tuple[str, ...]
    security_groups: tuple[str, ...]

    @property
    def who(self) -> str:
        """Return who is in it, for a person."""
        return f"{'functions' if self.of_functions else 'jobs'} of {self.owner}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Bucket:
    """A bucket that exists already.

    :ivar events: whether a pipeline waits for its uploads.
    """

    name: str
    owner: str
    events: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """An SSM parameter that a stack reads when it is deployed, or a run when it begins.

    :ivar made_by: the stack of the same app and place that makes it; empty if none does.
    """

    name: str
    stack: str
    names_model: bool
    made_by: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    """What is asked for in one place; things that the app makes itself are left out."""

    place: Place
    stacks: Sequence[AppStack]
    bootstraps: Mapping[str, int] = field(default_factory=dict)
    parameters: Sequence[Parameter] = ()
    buckets: Sequence[Bucket] = ()
    models: Sequence[Model] = ()
    model_names: Sequence[str] = ()
    scorings: Sequence[Scoring] = ()
    jobs: Sequence[Jobs] = ()
    keys: Mapping[str, frozenset[str]] = field(default_factory=dict)
    networks: Sequence[Network] = ()
    topics: Sequence[str] = ()
    boundaries: Mapping[str, str] = field(default_factory=dict)
    """By ARN the stack of the app that makes it; empty if none does."""
    facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    uploaded: frozenset[str] = frozenset()


def parameters_of(stacks: Sequence[AppStack]) -> list[Parameter]:
    """Return what the stacks of one place read from SSM when they are deployed."""
    makers = _makers(stacks)
    return [
        Parameter(
            name=parameter["Default"],
            stack=stack.name,
            names_model=False,
            made_by=makers.get(parameter["Default"], ""),
        )
        for stack in stacks
        for parameter in stack.template.get("Parameters", {}).values()
        if parameter["Type"].startswith("AWS::SSM::Parameter::Value")
        and not parameter.get("Default", _OF_BOOTSTRAP).startswith(_OF_BOOTSTRAP)
    ]


def needs_of(place: Place, stacks: Sequence[AppStack], parameters: Mapping[str, str]) -> Needs:
    """Return what the stacks of one place ask for.

    :param parameters: the values of SSM parameters that are there.
    """
    found = [_StackNeeds(stack, place, parameters) for stack in stacks]
    bootstraps: dict[str, int] = {}
    keys: dict[str, frozenset[str]] = {}
    for each in found:
        if each.stack.bootstrap_parameter is not None:
            name = each.stack.bootstrap_parameter
            bootstraps[name] = max(bootstraps.get(name, 0), each.stack.bootstrap_version)
        for key, users in each.keys().items():
            keys[key] = keys.get(key, frozenset()) | users
    makers = _makers(stacks)
    read = [parameter for each in found for parameter in each.model_parameters(makers)]
    return Needs(
        place=place,
        stacks=stacks,
        bootstraps=bootstraps,
        parameters=_first([*parameters_of(stacks), *read], key=lambda each: each.name),
        buckets=_buckets(found),
        models=[model for each in found for model in each.models()],
        model_names=[*dict.fromkeys(name for each in found for name in each.model_names())],
        scorings=[scoring for each in found for scoring in each.scorings()],
        jobs=[jobs for each in found for jobs in each.jobs()],
        keys=keys,
        networks=_first(
            [network for each in found for network in each.networks()],
            key=lambda each: (each.of_functions, each.subnets, each.security_groups),
        ),
        topics=[*dict.fromkeys(topic for each in found for topic in each.topics())],
        boundaries={
            arn: next((made.stack.name for made in found if made.makes_policy(arn)), "")
            for each in found
            for arn in each.boundaries()
            if not each.makes_policy(arn)
        },
        facts={each.stack.name: each.facts() for each in found if each.facts()},
        uploaded=frozenset(name for each in found for name in each.uploaded()),
    )


class _StackNeeds:
    """Reads one template."""

    def __init__(self, stack: AppStack, place: Place, parameters: Mapping[str, str]) -> None:
        self.stack = stack
        self._place = place
        known = {}
        for name, parameter in stack.template.get("Parameters", {}).items():
            if "Default" not in parameter:
                continue
            text = parameter["Default"]
            if parameter["Type"].startswith("AWS::SSM::Parameter::Value"):
                if text not in parameters:
                    continue
                text = parameters[text]
            is_list = "List<" in parameter["Type"] or parameter["Type"].endswith("List")
            known[name] = text.split(",") if is_list else text
        self._values = Values(place, known)
        self._machines = [*self._state_machines()]

    def facts(self) -> dict[str, Any]:
        """Return the values of the parameters by which pipelines are found, as they are written."""
        return {
            properties["Name"]: properties["Value"]
            for properties in self._all("AWS::SSM::Parameter")
            if isinstance(properties.get("Name"), str) and properties["Name"].startswith(FACTS)
        }

    def jobs(self) -> Iterator[Jobs]:
        """Yield what each state machine may run at once."""
        for owner, states in self._machines:
            most: dict[str, int] = {}
            for arguments in _arguments(states, _CREATE_JOB):
                resources = arguments.get("TransformResources", {})
                count = _most(resources.get("InstanceCount", 1))
                for each in _TYPE.findall(str(resources.get("InstanceType", ""))):
                    most[each] = max(most.get(each, 0), count)
            if most:
                yield Jobs(
                    owner=owner,
                    runs=self._settings(owner).get("max-concurrent-runs"),
                    instances=most,
                )

    def scorings(self) -> Iterator[Scoring]:
        """Yield which pipeline scores what it gets with which model."""
        for owner, states in self._machines:
            # What steps after the first read is their own.
            for arguments in [*_arguments(states, _CREATE_JOB)][:1]:
                prefix = self._settings(owner).get("input-prefix")
                if prefix is not None:
                    yield Scoring(
                        pipeline=owner,
                        stack=self.stack.name,
                        model=arguments.get("ModelName", "").removeprefix("?"),
                        prefix=prefix,
                    )

    def _settings(self, pipeline_id: str) -> Mapping[str, Any]:
        """Return a pipeline's settings; none of a state machine that is no pipeline's."""
        written = self.facts().get(f"{FACTS}{pipeline_id}/settings")
        found: Mapping[str, Any] = {}
        if written is not None:
            found = json.loads(self._values.document(written))
        return found

    def models(self) -> Iterator[Model]:
        """Yield the models that the stack makes."""
        for name, resource in self._resources("AWS::SageMaker::Model"):
            properties = resource.get("Properties", {})
            primary = properties.get("PrimaryContainer")
            several = properties.get("Containers", [])
            role = properties.get("ExecutionRoleArn")
            yield Model(
                name=name,
                stack=self.stack.name,
                containers=[self._values.of(each) for each in ([primary] if primary else several)],
                role=self._values.text(role),
                made_role=role["Fn::GetAtt"][0] if "Fn::GetAtt" in (role or {}) else None,
            )

    def model_names(self) -> Iterator[str]:
        """Yield the names of models that jobs use and that are there already."""
        for _, states in self._machines:
            for arguments in _arguments(states, _CREATE_JOB):
                name = arguments.get("ModelName", "?")
                if not any(sign in name for sign in "?{"):
                    yield name

    def model_parameters(self, makers: Mapping[str, str]) -> Iterator[Parameter]:
        """Yield the parameters from which runs read a model's name."""
        for _, states in self._machines:
            for arguments in _arguments(states, _GET_PARAMETER):
                name = arguments.get("Name", "?")
                if "?" not in name:
                    yield Parameter(
                        name=name,
                        stack=self.stack.name,
                        names_model=True,
                        made_by=makers.get(name, ""),
                    )

    def buckets(self) -> Iterator[tuple[str, str]]:
        """Yield the buckets of pipelines that exist already, and whose they are."""
        for name, value in self.facts().items():
            owner, _, fact = name.removeprefix(FACTS).partition("/")
            bucket = self._values.text(value)
            if fact in ("input-bucket", "output-bucket") and bucket is not None:
                yield bucket, owner

    def watched(self) -> Iterator[str]:
        """Yield the buckets whose uploads a rule waits for."""
        for properties in self._all("AWS::Events::Rule"):
            pattern = properties.get("EventPattern", {})
            if isinstance(pattern, dict) and "aws.s3" in pattern.get("source", []):
                names = pattern.get("detail", {}).get("bucket", {}).get("name", [])
                yield from self._values.texts(names)

    def keys(self) -> dict[str, frozenset[str]]:
        """Return the keys that exist already, with the services that have to use them."""
        found: dict[str, frozenset[str]] = {}
        for resource in self.stack.template.get("Resources", {}).values():
            user = _KEY_USERS.get(resource["Type"], "").format(region=self._place.region)
            of_resource = _keys_in(self._values.of(resource.get("Properties", {})))
            # A state machine's definition has the keys of its jobs; its logs have its own.
            if resource["Type"] == "AWS::StepFunctions::StateMachine":
                own = resource.get("Properties", {}).get("EncryptionConfiguration", {})
                for key in _keys_in(self._values.of(own)):
                    found[key] = found.get(key, frozenset()) | {user}
                user = ""
            for key in of_resource:
                found[key] = found.get(key, frozenset()) | ({user} if user else frozenset())
        return found

    def networks(self) -> Iterator[Network]:
        """Yield the networks of models and functions that exist already."""
        for kind, subnets in (
            ("AWS::SageMaker::Model", "Subnets"),
            ("AWS::Lambda::Function", "SubnetIds"),
        ):
            for properties in self._all(kind):
                config = properties.get("VpcConfig") or {}
                known = self._values.texts(config.get(subnets, []))
                if known:
                    yield Network(
                        owner=self.stack.name,
                        of_functions=kind == "AWS::Lambda::Function",
                        subnets=tuple(known),
                        security_groups=tuple(
                            self._values.texts(config.get("SecurityGroupIds", []))
                        ),
                    )

    def topics(self) -> Iterator[str]:
        """Yield the topics that exist already and are told of alarms."""
        for properties in self._all("AWS::CloudWatch::Alarm"):
            for action in self._values.texts(properties.get("AlarmActions", [])):
                if ":sns:" in action:
                    yield action

    def boundaries(self) -> Iterator[str]:
        """Yield the policies that bound roles."""
        for properties in self._all("AWS::IAM::Role"):
            arn = self._values.text(properties.get("PermissionsBoundary"))
            if arn is not None:
                yield arn

    def makes_policy(self, arn: str) -> bool:
        """Whether the stack makes the policy of that ARN."""
        return any(
            arn.endswith(f":policy/{self._values.text(each.get('ManagedPolicyName'))}")
            for each in self._all("AWS::IAM::ManagedPolicy")
        )

    def uploaded(self) -> Iterator[str]:
        """Yield what a deployment uploads and pushes before it begins: URIs."""
        for bucket, key in self.stack.files:
            yield str(self._values.substituted(f"s3://{bucket}/{key}"))
        for repository, tag, _ in self.stack.images:
            yield str(self._values.substituted(f"{repository}:{tag}"))

    def _state_machines(self) -> Iterator[tuple[str, Any]]:
        for name, resource in self._resources("AWS::StepFunctions::StateMachine"):
            properties = resource.get("Properties", {})
            try:
                definition = properties.get("Definition") or json.loads(
                    self._values.document(properties["DefinitionString"])
                )
            except (ValueError, KeyError):
                continue  # It is in S3, or made by a deployment.
            yield _pipeline(definition) or f"{self.stack.name}.{name}", definition

    def _all(self, kind: str) -> Iterator[Mapping[str, Any]]:
        return (_properties(each) for each in _of_type(self.stack, kind))

    def _resources(self, kind: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for name, resource in self.stack.template.get("Resources", {}).items():
            if resource["Type"] == kind:
                yield name, resource


def _makers(stacks: Sequence[AppStack]) -> dict[str, str]:
    """Return which stack makes which SSM parameter."""
    names = (
        (_properties(each).get("Name"), stack.name)
        for stack in stacks
        for each in _of_type(stack, "AWS::SSM::Parameter")
    )
    return {name: stack for name, stack in names if isinstance(name, str)}


def _of_type(stack: AppStack, kind: str) -> Iterator[Mapping[str, Any]]:
    return (each for each in stack.template.get("Resources", {}).values() if each["Type"] == kind)


def _properties(resource: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = resource.get("Properties", {})
    return found


def _buckets(found: Sequence[_StackNeeds]) -> list[Bucket]:
    owners: dict[str, str] = {}
    watched = {bucket for each in found for bucket in each.watched()}
    for each in found:
        for bucket, owner in each.buckets():
            owners.setdefault(bucket, owner)
        for bucket in each.watched():
            owners.setdefault(bucket, each.stack.name)
    return [
        Bucket(name=name, owner=owner, events=name in watched) for name, owner in owners.items()
    ]


def _members(value: Any) -> Iterator[Mapping[str, Any]]:
    """Yield every object in a document."""
    if isinstance(value, Mapping):
        yield value
        for each in value.values():
            yield from _members(each)
    elif isinstance(value, list):
        for each in value:
            yield from _members(each)


def _arguments(states: Any, resource: str) -> Iterator[Mapping[str, Any]]:
    for state in _members(states):
        if str(state.get("Resource", "")).startswith(resource):
            arguments = state.get("Arguments", state.get("Parameters", {}))
            if isinstance(arguments, Mapping):
                yield arguments


def _pipeline(definition: Any) -> str:
    """Return the id of the pipeline whose outcome a state machine announces; empty if none."""
    for member in _members(definition):
        if member.get("Source") == "batch-transform" and isinstance(member.get("Detail"), Mapping):
            return str(member["Detail"].get("pipeline", ""))
    return ""


def _most(count: Any) -> int:
    """Return the most instances that a count comes to; the constructs write it last."""
    if isinstance(count, int):
        return count
    found = _MOST.search(str(count))
    return int(found[1]) if found else 1


def _keys_in(value: Any) -> set[str]:
    return {*_KEY.findall(json.dumps(value, default=str))}


def _first(things: Sequence[_T], *, key: Callable[[_T], Any]) -> list[_T]:
    kept: dict[Any, _T] = {}
    for thing in things:
        kept.setdefault(key(thing), thing)
    return list(kept.values())
