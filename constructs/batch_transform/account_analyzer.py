"""What finds buckets, keys, queues and roles that another account can reach."""

from aws_cdk import CfnResource
from constructs import Construct


def define_analyzer(scope: Construct, *, topic_arn: str) -> CfnResource:
    """Define the analyzer and return the rule that tells the topic of its active findings."""
    CfnResource(
        scope, "Analyzer", type="AWS::AccessAnalyzer::Analyzer", properties={"Type": "ACCOUNT"}
    )
    return CfnResource(
        scope,
        "Findings",
        type="AWS::Events::Rule",
        properties={
            "Description": "Tells of what Access Analyzer finds shared with other accounts",
            "EventPattern": {
                "source": ["aws.access-analyzer"],
                "detail-type": ["Access Analyzer Finding"],
                "detail": {"status": ["ACTIVE"]},
            },
            "State": "ENABLED",
            "Targets": [{"Arn": topic_arn, "Id": "Alerts"}],
        },
    )
