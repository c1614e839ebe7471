"""Who is told of costs and alarms: budgets, topics; and the policy that bounds roles."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from batch_transform_cli.doctor.findings import Finding, fail, ok, warn
from batch_transform_cli.doctor.reader import Absent
from batch_transform_cli.doctor.site import Check, Site
from batch_transform_cli.screen import counted

_EXAMPLE = (
    '{"BudgetName": "monthly", "BudgetType": "COST", "TimeUnit": "MONTHLY", "BudgetLimit": '
    '{"Amount": "1000", "Unit": "USD"}}'
)


def budget_finding(account: str, budgets: Sequence[Mapping[str, Any]]) -> Finding:
    """Say whether an account has a budget of costs, and whether it is spent."""
    costs = [each for each in budgets if each["BudgetType"] == "COST"]
    if not costs:
        return warn(
            "budget",
            "the account has none",
            "AccountSettings(budget_usd=1000) of docs/accounts.md, or\naws budgets create-budget "
            f"--account-id {account} --budget {shlex.quote(_EXAMPLE)}",
        )
    for each in costs:
        limit = each.get("BudgetLimit", {}).get("Amount")
        spent = each.get("CalculatedSpend", {}).get("ActualSpend", {}).get("Amount", "0")
        if limit is not None and float(spent) >= float(limit):
            found = f"{each['BudgetName']} is spent: {float(spent):,.0f} of {float(limit):,.0f}"
            return warn("budget", found, "see Cost Explorer for what costs so much, or raise it")
    names = ", ".join(each["BudgetName"] for each in costs)
    return ok("budget", f"{counted(len(costs), 'budget')} of costs: {names}")


def topic_finding(arn: str, subscriptions: Sequence[Mapping[str, Any]]) -> Finding:
    """Say whether somebody is told what a topic tells."""
    confirmed = [each for each in subscriptions if each["SubscriptionArn"].startswith("arn:")]
    region = arn.split(":")[3]
    if confirmed:
        return ok("alarms", f"{arn} tells {counted(len(confirmed), 'subscriber')}")
    if subscriptions:
        found = f"{arn} waits for {counted(len(subscriptions), 'subscriber')} to confirm"
        return warn("alarms", found, "open the mail of AWS Notifications and confirm it")
    return warn(
        "alarms",
        f"{arn} tells nobody",
        f"aws sns subscribe --topic-arn {arn} --region {region} --protocol email "
        "--notification-endpoint you@example.com",
    )


def _budget(account: str, site: Site) -> Iterator[Finding]:
    budgets = site.reader.each("budgets", "describe_budgets", "Budgets", AccountId=account)
    yield budget_finding(account, [*budgets])


def _topic(arn: str, site: Site) -> Iterator[Finding]:
    try:
        listed = site.reader.each(
            "sns", "list_subscriptions_by_topic", "Subscriptions", TopicArn=arn
        )
        yield topic_finding(arn, [*listed])
    except Absent:
        yield fail("alarms", f"{arn} is not there", "mend the ARN, or make the topic first")


def _boundary(item: tuple[str, str], site: Site) -> Iterator[Finding]:
    arn, made_by = item
    try:
        site.reader.read("iam", "get_policy", PolicyArn=arn)
    except Absent:
        found = f"{arn}, which bounds the app's roles, is not there"
        if made_by:
            yield warn("boundary", f"{found} yet", f"cdk deploy {made_by}, before the others")
        else:
            fix = "deploy an AccountBaseline there first (docs/accounts.md), or mend the name"
            yield fail("boundary", found, fix)
        return
    yield ok("boundary", f"{arn} is there")


CHECKS = (
    Check(
        topic="budget",
        items=lambda site: {site.account: site.account} if site.is_first else {},
        examine=_budget,
        not_local="a local cloud costs nothing",
    ),
    Check(
        topic="alarms",
        items=lambda site: {arn: arn for arn in site.needs.topics},
        examine=_topic,
        not_local="a local cloud sends no mail",
    ),
    Check(
        topic="boundary",
        items=lambda site: {arn: (arn, by) for arn, by in site.needs.boundaries.items()},
        examine=_boundary,
        not_local="a local cloud does not enforce policies",
    ),
)
