"""The file of accounts: where pipelines are, what things are called there, and what there is."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from batch_transform.plan import Plan
from batch_transform.yaml_existing import Entry, Written
from batch_transform.yaml_text import Place, Problem, YamlText

ACCOUNTS_FILE = "accounts.yaml"

_NAME = re.compile(r"\$?\$\{([^{}]*)\}")
_GIVEN_NAMES = ("account", "region", "stage")


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


class Names:
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


def beyond(limits: Limits, plans: Mapping[str, Plan]) -> Iterator[tuple[Place, str]]:
    """Yield the limits that the pipelines may ask for more than, and what to do."""
    asked = {name: _instances(plan) for name, plan in plans.items()}
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
