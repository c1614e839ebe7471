"""Who is told of costs and alarms."""

from typing import Any

import pytest

from batch_transform_cli.doctor.costs import budget_finding, topic_finding

TOPIC = "arn:aws:sns:eu-west-1:111122223333:alerts"


def _budget(spent: str, kind: str = "COST") -> dict[str, Any]:
    return {
        "BudgetName": "monthly",
        "BudgetType": kind,
        "BudgetLimit": {"Amount": "1000", "Unit": "USD"},
        "CalculatedSpend": {"ActualSpend": {"Amount": spent, "Unit": "USD"}},
    }


@pytest.mark.parametrize(
    ("budgets", "level"),
    [
        pytest.param([], "warn", id="none"),
        pytest.param([_budget("0", "USAGE")], "warn", id="none of costs"),
        pytest.param([_budget("12.3")], "ok", id="one"),
        pytest.param([_budget("1000.01")], "warn", id="spent"),
    ],
)
def test_an_account_should_have_a_budget(budgets: list[dict[str, Any]], level: str) -> None:
    assert budget_finding("111122223333", budgets).level == level


@pytest.mark.parametrize(
    ("subscriptions", "level", "remedy"),
    [
        pytest.param([], "warn", "aws sns subscribe --topic-arn", id="none"),
        pytest.param(["PendingConfirmation"], "warn", "confirm", id="not confirmed"),
        pytest.param(["PendingConfirmation", f"{TOPIC}:1"], "ok", "", id="confirmed"),
    ],
)
def test_a_topic_should_tell_somebody(subscriptions: list[str], level: str, remedy: str) -> None:
    found = topic_finding(TOPIC, [{"SubscriptionArn": each} for each in subscriptions])
    assert found.level == level
    assert remedy in found.fix
