"""The files of pipelines and of accounts, read and checked without CDK.

What `define_pipelines` does with them at synth, `batch-transform validate` checks as far as it can
be known without an account and without Node.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, Field, ValidationError, create_model

from batch_transform.plan import Plan
from batch_transform.tokens import Later
from batch_transform.yaml_existing import (
    BucketEntry,
    Entry,
    Existing,
    Reading,
    SsmParameter,
    Written,
)
from batch_transform.yaml_forms import Pipeline, pipeline_form
from batch_transform.yaml_text import Place, Problem, YamlError, YamlText

ACCOUNTS_FILE = "accounts.yaml"

_T = TypeVar("_T", bound=Entry)

_NAME = re.compile(r"\$?\$\{([^{}]*)\}")
_GIVEN_NAMES = ("account", "region", "stage")
_BUCKETS = ("input_bucket", "output_bucket")


def _names(names: dict[str, Any]) -> dict[str, Any]:
    taken = [name for name in names if name in _GIVEN_NAMES]
    if taken:
        raise ValueError(
            f"names must be others than {', '.join(_GIVEN_NAMES)}, got {taken[0]!r}; rename it"
        )
    return names


StackName = Annotated[
    str,
    Written(
        r"[A-Za-z][A-Za-z0-9-]{0,63}", "at most 64 letters, digits and hyphens, a letter first"
    ),
]
Amount = Annotated[int, Field(ge=0)]
NameOfValue = Annotated[str, Written(r"[A-Za-z]\w*", "letters, digits and _, a letter first")]
Value = str | int | float | bool | list[str]


class Limits(Entry):
    """What the pipelines of an account may ask for at once, all together."""

    instances: dict[str, Amount] = Field(
        default={},
        description="Of each type, such as the account's quota `ml.m5.large for transform job "
        "usage`; 0 forbids it. A type that is not named has no limit.",
    )
    total_instances: Amount | None = Field(
        default=None, description="Of all types, as the account's quota over all transform jobs."
    )


class Account(Entry):
    """An account and region, which becomes a stage."""

    account: Annotated[str, Written(r"[0-9]{12}", "twelve digits in quotes")] = Field(
        description="Its twelve digits, in quotes."
    )
    region: Annotated[str, Written(r"[a-z]{2}(-[a-z]+)+-\d", "a region such as eu-west-1")] = Field(
        description="Such as eu-west-1."
    )
    names: Annotated[dict[NameOfValue, Value], AfterValidator(_names)] = Field(
        default={},
        description="What differs from account to account: `${key}` in a pipeline is "
        "what stands here under `key`. `${account}`, `${region}` and `${stage}` are there already.",
    )
    tags: dict[str, str] = Field(default={}, description="Of every stack in the account.")
    permissions_boundary: str | None = Field(
        default=None, description="The name, or the ARN, of the policy that bounds every role."
    )
    limits: Limits = Limits()


class AccountsFile(Entry):
    """Where the pipelines are deployed; each pipeline in all of them, or in its `accounts`."""

    accounts: Annotated[dict[StackName, Account], Field(min_length=1)]


class _Shape(Entry):
    """What is asked of the file as a whole, before each account's pipelines are read."""

    pipelines: Annotated[dict[StackName, Any], Field(min_length=1)]


@cache
def _file_type() -> type[Entry]:
    pipeline: Any = pipeline_form()
    return create_model(
        "PipelinesFile",
        __base__=Entry,
        __doc__="Pipelines by the names of their stacks.",
        pipelines=(dict[StackName, pipeline], ...),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Deployment:
    """The pipelines of one account, or of whatever account is deployed to.

    :param stage: the account's name in the file.
    :param members: the pipelines as the file has them, with the account's names filled in.
    """

    text: YamlText
    stage: str | None
    account: Account | None
    members: Mapping[str, Any]

    def read(self, name: str, existing: Existing) -> Pipeline:
        """Return one of the pipelines, with what it names made by `existing`.

        :raises YamlError: that refuses it.
        """
        reading = Reading(folder=self.text.path.parent, existing=existing)
        one = {"pipelines": {name: self.members[name]}}
        file: Any = _validated(self.text, _file_type(), reading, one)
        pipeline: Pipeline = file.pipelines[name]
        return pipeline

    def refused(self, name: str, error: ValueError) -> YamlError:
        """Return what a rule says of a pipeline, with the place in the file."""
        place = ("pipelines", name)
        return YamlError(*(self.text.refusal(place, line) for line in str(error).splitlines()))


def load(path: Path, accounts: Path | None = None) -> list[Deployment]:
    """Return what the file at `path` deploys: once, or in each account of the file of accounts.

    :param accounts: Default: `accounts.yaml` beside `path`, if there is one.
    :raises YamlError: with every problem of both files.
    """
    if accounts is None and (path.parent / ACCOUNTS_FILE).exists():
        accounts = path.parent / ACCOUNTS_FILE
    text = YamlText(path)
    shape = _validated(text, _Shape)
    stages: Mapping[str | None, Account | None] = {None: None}
    accounts_text = None
    if accounts is not None:
        accounts_text = YamlText(accounts)
        stages = {name: each for name, each in load_accounts(accounts_text).items()}
    problems: dict[Problem, list[str | None]] = defaultdict(list)
    for problem in _unknown_accounts(text, shape, stages):
        problems[problem] += stages
    deployments = []
    for stage, account in stages.items():
        here = {
            name: members
            for name, members in shape.pipelines.items()
            if stage is None or stage in _accounts_of(members, stages)
        }
        names = _Names(text, stage, account)
        filled = {name: names.fill(("pipelines", name), each) for name, each in here.items()}
        deployments.append(Deployment(text=text, stage=stage, account=account, members=filled))
        for problem in names.problems or _check(deployments[-1], accounts_text):
            problems[problem].append(stage)
    for problem in () if problems else _buckets_of_several_accounts(deployments):
        problems[problem] += stages
    if problems:
        raise YamlError(
            *sorted(
                (_told(problem, where, stages) for problem, where in problems.items()),
                key=lambda problem: (problem.file, problem.line),
            )
        )
    return deployments


def load_accounts(text: YamlText) -> Mapping[str, Account]:
    """Return the accounts of a file.

    :raises YamlError: with every problem of it.
    """
    return _validated(text, AccountsFile).accounts


def schema(of: type[Entry] | None = None) -> dict[str, Any]:
    """Return the JSON Schema for editors, of the file of pipelines by default."""
    made = _without_noise((of or _file_type()).model_json_schema())
    if of is None:
        made = _with_names(made)
        made["$defs"]["WithNamesOfTheAccount"] = {
            "description": "With `${name}`, which is what the account's `names` say.",
            "pattern": r"\$\{[^{}]+\}",
            "type": "string",
        }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}


def _without_noise(node: Any) -> Any:
    """Leave out titles, which repeat names, and defaults of null."""
    if isinstance(node, list):
        return [_without_noise(each) for each in node]
    if not isinstance(node, dict):
        return node
    noise = [
        key
        for key in ("title", "default")
        if isinstance(node.get(key), str | None) and (key == "title" or node.get(key) is None)
    ]
    return {key: _without_noise(value) for key, value in node.items() if key not in noise}


def _with_names(node: Any) -> Any:
    """Let a text with a name of the account stand for what is not text of any form."""
    if isinstance(node, list):
        return [_with_names(each) for each in node]
    if not isinstance(node, dict):
        return node
    # A name is text, and so may be of more than one form.
    node = {"anyOf" if key == "oneOf" else key: _with_names(each) for key, each in node.items()}
    if (
        node.get("type") in ("integer", "number", "boolean", "array")
        or "pattern" in node
        or "enum" in node
    ):
        about = {key: node.pop(key) for key in ("description", "default") if key in node}
        return {**about, "anyOf": [node, {"$ref": "#/$defs/WithNamesOfTheAccount"}]}
    return node


def _validated(text: YamlText, of: type[_T], context: object = None, members: Any = None) -> _T:
    try:
        return of.model_validate(text.members if members is None else members, context=context)
    except ValidationError as refused:
        raise YamlError(*_problems(refused, text, of)) from refused


# What pydantic says, in the words of our other errors.


def _problems(refused: ValidationError, text: YamlText, of: type[Entry]) -> Iterator[Problem]:
    for error in refused.errors():
        # Pydantic adds the branch that it took, and the word [key], which are not in the file.
        place = tuple(
            part for part in error["loc"] if part != "[key]" and not str(part).startswith("<")
        )
        if error["type"] == "value_error":
            for line in str(error["ctx"]["error"]).splitlines():
                yield text.refusal(place, line)
        else:
            yield text.problem(place, _sentence(error, place, text, of))


def _sentence(error: Mapping[str, Any], place: Place, text: YamlText, of: type[Entry]) -> str:
    kind, got = error["type"], error["input"]
    if kind == "extra_forbidden":
        return _unknown(place, text, of)
    if kind == "missing":
        return "must be given, got nothing; add it"
    if kind in ("dict_type", "model_type"):
        out = "leave it out, or " if got is None else ""
        return f"must have members, got {got!r}; {out}write them indented below it"
    if kind == "too_short":
        return "must have a member, got none; add the first"
    message = str(error["msg"]).replace("Input should", "must").replace("String should", "must")
    if kind == "string_type" and not isinstance(got, list | dict | None):
        return f"{message}, got {got!r}; put it in quotes"
    remedy = "leave it out" if got is None else "correct it"
    return f"{message}, got {got!r}; {remedy}"


def _unknown(place: Place, text: YamlText, of: type[Entry]) -> str:
    got = str(place[-1])
    if place == ("accounts",):
        return f"must stand in {ACCOUNTS_FILE}, got it in the file of pipelines; move it there"
    siblings: Any = text.members
    for part in place[:-1]:
        siblings = siblings[part]
    ways = _known_members(of, place[:-1])
    taken = max(ways, key=lambda way: len(way & siblings.keys()))
    if any(got in way for way in ways):
        beside = ", ".join(sorted(taken & siblings.keys()))
        return f"must not stand beside {beside}, got {got!r}; leave one of them out"
    near = get_close_matches(got, taken, n=1)
    remedy = (
        f"write {near[0]}" if near else f"remove it, or write one of {', '.join(sorted(taken))}"
    )
    return f"must be a member that exists, got {got!r}; {remedy}"


def _known_members(of: type[Entry], place: Place) -> list[set[str]]:
    """Return which members may stand at a place together: a list of every way."""
    schema = of.model_json_schema()

    def branches(nodes: Iterable[Any]) -> Iterator[Mapping[str, Any]]:
        for node in nodes:
            if "$ref" in node:
                yield from branches([schema["$defs"][node["$ref"].rpartition("/")[2]]])
            else:
                yield node
                yield from branches(node.get("oneOf", ()))

    def below(node: Mapping[str, Any], part: str | int) -> Iterator[Any]:
        named = node.get("properties", {}).get(part)
        of_any_name = [*node.get("patternProperties", {}).values(), node.get("items")]
        yield from filter(None, [named] if named else of_any_name)

    nodes = [schema]
    for part in place:
        nodes = [each for node in branches(nodes) for each in below(node, part)]
    return [{*node["properties"]} for node in branches(nodes) if "properties" in node]


# Accounts: which pipelines are in one, what it calls things, and what it lets them ask for.


def _accounts_of(members: Any, stages: Iterable[str | None]) -> list[Any]:
    listed = members.get("accounts") if isinstance(members, dict) else None
    return listed if isinstance(listed, list) else [*stages]


def _unknown_accounts(
    text: YamlText, shape: _Shape, stages: Mapping[str | None, Account | None]
) -> Iterator[Problem]:
    known = [stage for stage in stages if stage is not None]
    for name, members in shape.pipelines.items():
        for number, stage in enumerate(_accounts_of(members, known)):
            if stage not in known:
                near = get_close_matches(str(stage), known, n=1)
                remedy = f"write {near[0]}" if near else f"add it to {ACCOUNTS_FILE}"
                yield text.problem(
                    ("pipelines", name, "accounts", number),
                    f"must be one of {', '.join(known) or 'no accounts'}, got {stage!r}; {remedy}",
                )


class _Names:
    """What an account's names stand for; `problems` are those that it does not have."""

    def __init__(self, text: YamlText, stage: str | None, account: Account | None) -> None:
        self.problems: list[Problem] = []
        self._text = text
        self._values: Mapping[str, Any] = {}
        if account is not None:
            given = {"account": account.account, "region": account.region, "stage": stage}
            self._values = {**account.names, **given}

    def fill(self, place: Place, value: Any) -> Any:
        """Return a value with every `${name}` in it replaced, and `$${` as `${`."""
        match value:
            case dict():
                return {key: self.fill((*place, key), each) for key, each in value.items()}
            case list():
                return [self.fill((*place, at), each) for at, each in enumerate(value)]
            case str() if whole := _NAME.fullmatch(value):
                return self._value(place, whole)
            case str():
                return _NAME.sub(lambda found: self._text_of(place, found), value)
            case _:
                return value

    def _text_of(self, place: Place, found: re.Match[str]) -> str:
        """Return what stands in the middle of a text."""
        value = self._value(place, found)
        if isinstance(value, list):
            self.problems.append(
                self._text.problem(
                    place,
                    f"must have a name of text or a number inside text, got {found[0]!r}, which is "
                    "a list; let it stand alone",
                )
            )
        return str(value).lower() if isinstance(value, bool) else str(value)  # as YAML has it

    def _value(self, place: Place, found: re.Match[str]) -> Any:
        if found[0].startswith("$$"):
            return found[0][1:]
        if found[1] in self._values:
            return self._values[found[1]]
        near = get_close_matches(found[1], self._values, n=1)
        remedy = f"write ${{{near[0]}}}" if near else f"add it to names in {ACCOUNTS_FILE}"
        self.problems.append(
            self._text.problem(
                place,
                f"must be a name that the account has, got {found[0]!r}; {remedy}, or write "
                f"${found[0]} for the text itself",
            )
        )
        return found[0]


def _check(deployment: Deployment, accounts_text: YamlText | None) -> list[Problem]:
    """Return what is wrong with the pipelines of one account."""
    if not deployment.members:
        return []
    reading = Reading(folder=deployment.text.path.parent, existing=_Unmade())
    try:
        file: Any = _validated(
            deployment.text, _file_type(), reading, {"pipelines": deployment.members}
        )
    except YamlError as refused:
        return [*refused.problems]
    if deployment.account is None or accounts_text is None:
        return []
    place = ("accounts", str(deployment.stage), "limits")
    return [
        accounts_text.problem((*place, *below), sentence)
        for below, sentence in _beyond(deployment.account.limits, file.pipelines)
    ]


def _beyond(limits: Limits, pipelines: Mapping[str, Pipeline]) -> Iterator[tuple[Place, str]]:
    """Yield the limits that the pipelines may ask for more than, and what to do."""
    asked = {name: _instances(pipeline.plan) for name, pipeline in pipelines.items()}
    kinds: list[tuple[Place, int | None, dict[str, int]]] = [
        *(
            (("instances", each), limit, {name: of.get(each, 0) for name, of in asked.items()})
            for each, limit in limits.instances.items()
        ),
        (
            ("total_instances",),
            limits.total_instances,
            {name: max(of.values()) for name, of in asked.items()},
        ),
    ]
    for place, limit, each in kinds:
        most = {name: count for name, count in each.items() if count}
        if limit is not None and sum(most.values()) > limit:
            said = ", ".join(f"{name} {count}" for name, count in most.items())
            yield (
                place,
                f"must be at least the {sum(most.values())} instances that runs may have at once "
                f"({said}), got {limit}; lower max_concurrent_runs or instance_count, or raise "
                "this and the account's quota",
            )


def _instances(plan: Plan) -> dict[str, int]:
    """Return how many instances of each type a pipeline may have at once: a run has one step."""
    most: Counter[str] = Counter()
    for step in plan.steps:
        count = step.instance_count
        for each in step.instance_types:
            most[each] = max(most[each], count if isinstance(count, int) else count.maximum)
    return {each: count * plan.max_concurrent_runs for each, count in most.items()}


def _buckets_of_several_accounts(deployments: Iterable[Deployment]) -> Iterator[Problem]:
    """Yield buckets by name: one tells the EventBridge of its own account and region only."""
    seen: dict[tuple[str, str], Deployment] = {}
    for deployment in deployments:
        for name, members in deployment.members.items():
            for member in _BUCKETS:
                given = members.get(member) if isinstance(members, dict) else None
                bucket = given.get("name") if isinstance(given, dict) else given
                if not isinstance(bucket, str):
                    continue
                first = seen.setdefault((name, bucket), deployment)
                if first is not deployment:
                    yield deployment.text.problem(
                        ("pipelines", name, member),
                        f"must be a bucket of the pipeline's own account, got {bucket!r} in "
                        f"{first.stage} and {deployment.stage}; give it a name that differs, such "
                        f"as ${{bucket}} with `bucket` in the names of each account",
                    )


def _told(
    problem: Problem, where: Sequence[str | None], stages: Mapping[str | None, Any]
) -> Problem:
    """Return a problem with the accounts that have it, unless all do."""
    if len({*where}) == len(stages) or problem.place[:1] == ("accounts",):
        return problem
    return replace(problem, sentence=f"in {', '.join(map(str, where))}: {problem.sentence}")


# Stands for what exists, where CDK is not asked for it.


def _text(given: str | SsmParameter) -> str:
    return given if isinstance(given, str) else Later(given.ssm)


@dataclass(frozen=True, slots=True)
class _Key:
    key_arn: str


@dataclass(frozen=True, slots=True)
class _Bucket:
    bucket_name: str

    def s3_url_for_object(self, key: str) -> str:
        url = f"s3://{self.bucket_name}/{key}"
        return Later(url) if isinstance(self.bucket_name, Later) else url


class _Unmade:
    """`Existing` without CDK: the rules of value objects ask keys and buckets, and no others."""

    def key(self, arn: str | SsmParameter) -> _Key:
        return _Key(_text(arn))

    def bucket(self, name: str | SsmParameter | BucketEntry) -> _Bucket:
        return _Bucket(_text(name.name if isinstance(name, BucketEntry) else name))

    def __getattr__(self, name: str) -> Callable[[Any], object]:
        if name not in vars(Existing):
            raise AttributeError(name)
        return lambda given: given
