"""What a month may cost, and what costs more than it used to."""

import json
from collections.abc import Iterator

from aws_cdk import CfnResource
from constructs import Construct

# What is compared with the budget, and the per cent of it from which on that is told.
_TOLD = (("ACTUAL", 80), ("ACTUAL", 100), ("FORECASTED", 100))


def define_budget(scope: Construct, *, usd: float, topic_arn: str) -> CfnResource:
    """Define the budget of a month, for all costs of the account."""
    return CfnResource(
        scope,
        "Budget",
        type="AWS::Budgets::Budget",
        properties={
            "Budget": {
                "BudgetLimit": {"Amount": usd, "Unit": "USD"},
                "BudgetType": "COST",
                "TimeUnit": "MONTHLY",
            },
            "NotificationsWithSubscribers": [
                {
                    "Notification": {
                        "ComparisonOperator": "GREATER_THAN",
                        "NotificationType": kind,
                        "Threshold": per_cent,
                        "ThresholdType": "PERCENTAGE",
                    },
                    "Subscribers": [{"Address": topic_arn, "SubscriptionType": "SNS"}],
                }
                for kind, per_cent in _TOLD
            ],
        },
    )


def define_anomalies(
    scope: Construct, *, usd: float, monitor_arn: str | None, topic_arn: str
) -> Iterator[CfnResource]:
    """Define what tells of costs that a service has not had before."""
    if monitor_arn is None:
        monitor = CfnResource(
            scope,
            "CostMonitor",
            type="AWS::CE::AnomalyMonitor",
            properties={
                "MonitorDimension": "SERVICE",
                "MonitorName": "batch-transform-services",
                "MonitorType": "DIMENSIONAL",
            },
        )
        yield monitor
        monitor_arn = monitor.ref
    at_least = {
        "Key": "ANOMALY_TOTAL_IMPACT_ABSOLUTE",
        "MatchOptions": ["GREATER_THAN_OR_EQUAL"],
        "Values": [f"{usd:g}"],
    }
    yield CfnResource(
        scope,
        "CostAnomalies",
        type="AWS::CE::AnomalySubscription",
        properties={
            "Frequency": "IMMEDIATE",  # a topic is told by no other
            "MonitorArnList": [monitor_arn],
            "Subscribers": [{"Address": topic_arn, "Type": "SNS"}],
            "SubscriptionName": "batch-transform-anomalies",
            "ThresholdExpression": json.dumps({"Dimensions": at_least}),
        },
    )
