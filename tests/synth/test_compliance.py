"""docs/compliance.md, held against what the rule packs find."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aws_cdk import App, Stack
from cdk_nag import (
    AwsSolutionsChecks,
    HIPAASecurityChecks,
    NagPack,
    NIST80053R5Checks,
    PCIDSS321Checks,
)

from batch_transform import BatchTransform, PredictionIndex, TransformModel, TransformSettings
from tests.documents import PROJECT, blocks_of
from tests.nag import findings, include

from .conftest import Define, Template

PAGE = PROJECT / "docs" / "compliance.md"
PACKS: dict[str, type[NagPack]] = {
    "HIPAA": HIPAASecurityChecks,
    "NIST": NIST80053R5Checks,
    "PCI": PCIDSS321Checks,
}
KINDS = {
    "AWS::CloudWatch::Alarm": "alarms",
    "AWS::DynamoDB::Table": "tables",
    "AWS::IAM::Policy": "roles",
    "AWS::IAM::Role": "roles",
    "AWS::Lambda::Function": "functions",
    "AWS::Logs::LogGroup": "log groups",
    "AWS::S3::Bucket": "buckets",
}
Found = dict[str, set[str]]


@dataclass(frozen=True)
class Judged:
    """A template, and what the packs are given of it."""

    template: Template
    included: Stack

    def find(self, pack: type[NagPack]) -> Found:
        """Return the kinds of the pipeline's resources that break a rule, by rule."""
        types = {name: resource["Type"] for name, resource in self.template["Resources"].items()}
        found = {}
        for rule, resources in findings(self.included, pack).items():
            ours = {KINDS[types[name]] for name in resources if name.startswith("Churn")}
            if ours:
                found[re.sub(r"\[.*", "", rule)] = ours
        return found


@pytest.fixture(scope="module")
def by_default(
    model_files: Path,
    synthesize: Callable[[Define], Template],
    tmp_path_factory: pytest.TempPathFactory,
) -> Judged:
    def define(stack: Stack) -> None:
        BatchTransform(
            stack,
            "Churn",
            model=TransformModel.from_artifact(model_files / "model", model_files / "image"),
            instance_type="ml.m5.large",
            settings=TransformSettings.csv(),
            index=PredictionIndex(record_id=0),
        )

    template = synthesize(define)
    return Judged(template, include(template, tmp_path_factory.mktemp("default") / "it.json"))


@pytest.fixture(scope="module")
def hardened(model_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Judged:
    """The template of the page's own app."""
    (block,) = blocks_of(PAGE, "python")
    names: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(model_files)
        code = block.text.replace('"build/model"', '"model"')
        exec(compile(code, str(PAGE), "exec"), names)
    app = names["app"]
    assert isinstance(app, App)
    template: Template = app.synth().get_stack_by_name("Hardened").template
    return Judged(template, include(template, tmp_path_factory.mktemp("hardened") / "it.json"))


def rows(columns: int) -> list[list[str]]:
    """The cells of the page's table with so many columns, its rules without their quotes."""
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in PAGE.read_text().splitlines()
        if line.startswith("| `")
    ]
    return [[row[0].strip("`"), *row[1:]] for row in cells if len(row) == columns]


def listed(names: set[str]) -> str:
    return ", ".join(sorted(names))


def test_the_packs_find_what_the_page_says(by_default: Judged, hardened: Judged) -> None:
    before, after = (
        {name: judged.find(pack) for name, pack in PACKS.items()}
        for judged in (by_default, hardened)
    )
    found: dict[str, list[set[str]]] = {}
    for pack, rules in before.items():
        for rule, kinds in rules.items():
            row = found.setdefault(rule.rpartition("-")[2], [set(), set(), set()])
            row[0].add(pack)
            row[1] |= kinds
            row[2].add("left" if rule in after[pack] else "closed")
    new = {rule for pack in PACKS for rule in set(after[pack]) - set(before[pack])}

    assert new == set(), "hardening opens what was closed"
    assert [row[:4] for row in rows(5)] == [
        [rule, *map(listed, columns)] for rule, columns in sorted(found.items())
    ], "docs/compliance.md must have these rows"


def test_aws_solutions_finds_what_the_page_says(by_default: Judged) -> None:
    found = by_default.find(AwsSolutionsChecks)

    assert [row[:2] for row in rows(3)] == [
        [rule, listed(kinds)] for rule, kinds in sorted(found.items())
    ], "docs/compliance.md must have these rows"


def test_every_finding_has_a_reason() -> None:
    assert all(row[-1] for row in rows(3) + rows(5))
