"""The files of pipelines and of accounts, read and checked without CDK.

What `define_pipelines` does with them at synth, `batch-transform validate` checks as far as it can
be known without an account and without Node.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, create_model

from batch_transform.accounts_file import (
    ACCOUNTS_FILE,
    Account,
    AccountsFile,
    Names,
    StackName,
    beyond,
)
from batch_transform.plan_advice import plan_advice
from batch_transform.tokens import Later
from batch_transform.yaml_existing import (
    BucketEntry,
    Entry,
    Existing,
    Reading,
    SsmParameter,
)
from batch_transform.yaml_forms import Pipeline, pipeline_form
from batch_transform.yaml_problems import validated
from batch_transform.yaml_text import Problem, YamlError, YamlText

_BUCKETS = ("input_bucket", "output_bucket")


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
        file: Any = validated(self.text, _file_type(), reading, one)
        pipeline: Pipeline = file.pipelines[name]
        return pipeline

    def warnings(self) -> dict[Problem, str]:
        """Return what the jobs of its pipelines may be regretted for, with the ids of warnings.

        What is acknowledged is left out, and what only CDK knows.
        """
        found = {}
        for name in self.members:
            pipeline = self.read(name, _Unmade())
            for advice in plan_advice(pipeline.plan):
                if advice.name not in pipeline.acknowledge:
                    problem = self.text.problem(("pipelines", name), advice.text)
                    found[problem] = advice.name
        return found

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
    shape = validated(text, _Shape)
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
        names = Names(text, stage, account)
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
    return validated(text, AccountsFile).accounts


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
    is_text_of_a_form = isinstance(node.get("pattern"), str) or isinstance(node.get("enum"), list)
    if is_text_of_a_form or node.get("type") in ("integer", "number", "boolean", "array"):
        about = {key: node.pop(key) for key in ("description", "default") if key in node}
        return {**about, "anyOf": [node, {"$ref": "#/$defs/WithNamesOfTheAccount"}]}
    return node


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


def _check(deployment: Deployment, accounts_text: YamlText | None) -> list[Problem]:
    """Return what is wrong with the pipelines of one account."""
    if not deployment.members:
        return []
    reading = Reading(folder=deployment.text.path.parent, existing=_Unmade())
    try:
        file: Any = validated(
            deployment.text, _file_type(), reading, {"pipelines": deployment.members}
        )
    except YamlError as refused:
        return [*refused.problems]
    if deployment.account is None or accounts_text is None:
        return []
    plans = {name: pipeline.plan for name, pipeline in file.pipelines.items()}
    place = ("accounts", str(deployment.stage), "limits")
    return [
        accounts_text.problem((*place, *below), sentence)
        for below, sentence in beyond(deployment.account.limits, plans)
    ]


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
