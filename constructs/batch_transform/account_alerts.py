"""The one topic that tells people: of pipelines, of costs, of what is shared."""

from collections.abc import Sequence

from aws_cdk import CfnResource
from constructs import Construct

from batch_transform.account_key import ALERTING
from batch_transform.deployed import place_of
from batch_transform.statements import allow_services, refuse_plain_http


def define_topic(
    scope: Construct, *, key_arn: str, emails: Sequence[str]
) -> tuple[str, CfnResource]:
    """Define the topic; return its ARN, and the policy that has to be there before a publisher."""
    topic = CfnResource(
        scope,
        "Alerts",
        type="AWS::SNS::Topic",
        properties={"DisplayName": "Batch transform", "KmsMasterKeyId": key_arn},
    )
    arn = topic.ref
    policy = CfnResource(
        scope,
        "AlertsPolicy",
        type="AWS::SNS::TopicPolicy",
        properties={
            "Topics": [arn],
            "PolicyDocument": {
                "Version": "2012-10-17",
                "Statement": [
                    refuse_plain_http("sns:Publish", arn),
                    allow_services(
                        "ServicesTell",
                        *ALERTING,
                        actions=["sns:Publish"],
                        conditions={"StringEquals": {"aws:SourceAccount": place_of(scope).account}},
                        resources=[arn],
                    ),
                    allow_services(
                        # It tells a topic of no account or rule, so that a condition would shut
                        # it out: docs.aws.amazon.com/eventbridge/latest/userguide/
                        # eb-troubleshooting.html
                        "EventBridgeTells",
                        "events.amazonaws.com",
                        actions=["sns:Publish"],
                        conditions=None,
                        resources=[arn],
                    ),
                ],
            },
        },
    )
    for number, address in enumerate(emails):
        CfnResource(
            scope,
            f"Email{number}",
            type="AWS::SNS::Subscription",
            properties={"Endpoint": address, "Protocol": "email", "TopicArn": arn},
        )
    return arn, policy
