"""Checks files of pipelines and of accounts, as a synthesis reads them and without one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from batch_transform.pipelines_file import load, load_accounts
from batch_transform.yaml_text import Problem, YamlError, YamlText
from batch_transform_cli.errors import CommandError
from batch_transform_cli.screen import counted

PIPELINES_FILE = Path("pipelines.yaml")


@dataclass(frozen=True, kw_only=True, slots=True)
class Validation:
    """What the files come to: a sentence for each file without a problem, and every problem.

    :ivar warnings: what synthesis warns of, too, by the ids that acknowledge it.
    """

    valid: Sequence[str]
    problems: Sequence[Problem]
    warnings: Mapping[Problem, str]


def validate_files(files: Sequence[Path]) -> Validation:
    """Check files of pipelines, with the accounts of the one file of accounts that is among them.

    :raises CommandError: there are two files of accounts.
    """
    accounts = [path for path in files if _is_of_accounts(path)]
    if len(accounts) > 1:
        raise CommandError(
            f"one file must have all accounts, got {' and '.join(map(str, accounts))}; "
            "check them one after the other"
        )
    valid: list[str] = []
    problems: dict[Problem, None] = {}
    warnings: dict[Problem, str] = {}
    for path in files:
        try:
            if path in accounts:
                valid.append(f"{path}: {counted(len(load_accounts(YamlText(path))), 'account')}")
                continue
            deployments = load(path, accounts[0] if accounts else None)
        except YamlError as refused:
            problems |= dict.fromkeys(refused.problems)
            continue
        for deployment in deployments:
            warnings |= deployment.warnings()
        stages = [str(each.stage) for each in deployments if each.stage is not None]
        names = {name for each in deployments for name in each.members}
        where = f" in {counted(len(stages), 'account')}: {', '.join(stages)}" if stages else ""
        valid.append(f"{path}: {counted(len(names), 'pipeline')}{where}")
    return Validation(valid=valid, problems=[*problems], warnings=warnings)


def _is_of_accounts(path: Path) -> bool:
    try:
        members = YamlText(path).members
    except YamlError:
        return False  # which is told when it is read as the file of pipelines that it may be
    return "accounts" in members and "pipelines" not in members
