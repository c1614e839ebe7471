"""Queues as every part has them: encrypted, TLS only, with a dead-letter queue."""

from aws_cdk import CfnResource, Duration
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from batch_transform.deployed import place_of
from batch_transform.statements import Statement, allow, key_use, service_role

LONGEST_RETENTION = Duration.days(14)
_RECEIVES = 5


class LettersQueue(sqs.Queue):
    """A queue that has a dead-letter queue.

    :ivar arn: its ARN, of which CDK was asked once; likewise `url`.
    :ivar key: what encrypts it, if not a key of SQS.
    :ivar dead_letters: where messages go after five vain receives.
    :ivar dead_letters_arn: the ARN of that queue.
    """

    arn: str
    url: str
    key: kms.IKey | None
    dead_letters: sqs.Queue
    dead_letters_arn: str


def define_queue(
    scope: Construct,
    construct_id: str,
    *,
    encryption_key: kms.IKey | None,
    visibility: Duration,
    retention: Duration,
) -> LettersQueue:
    """Define a queue and, as `<id>DeadLetters`, where messages go after five vain receives."""
    encryption = (
        sqs.QueueEncryption.SQS_MANAGED if encryption_key is None else sqs.QueueEncryption.KMS
    )
    dead_letters = sqs.Queue(
        scope,
        f"{construct_id}DeadLetters",
        encryption=encryption,
        encryption_master_key=encryption_key,
        enforce_ssl=True,
        retention_period=LONGEST_RETENTION,
    )
    queue = LettersQueue(
        scope,
        construct_id,
        dead_letter_queue=sqs.DeadLetterQueue(max_receive_count=_RECEIVES, queue=dead_letters),
        encryption=encryption,
        encryption_master_key=encryption_key,
        enforce_ssl=True,
        retention_period=retention,
        visibility_timeout=visibility,
    )
    queue.arn, queue.url = queue.queue_arn, queue.queue_url
    queue.key = encryption_key
    queue.dead_letters, queue.dead_letters_arn = dead_letters, dead_letters.queue_arn
    return queue


def receive_from(queue: LettersQueue) -> list[Statement]:
    """Return what an event source mapping needs of `queue`."""
    receive = allow(
        actions=[
            "sqs:ChangeMessageVisibility",
            "sqs:DeleteMessage",
            "sqs:GetQueueAttributes",
            "sqs:ReceiveMessage",
        ],
        resources=[queue.arn],
    )
    return [receive] if queue.key is None else [receive, key_use(queue.key, "kms:Decrypt")]


def send_to(queue: LettersQueue) -> list[Statement]:
    """Return what putting messages into `queue` needs."""
    send = allow(actions=["sqs:SendMessage"], resources=[queue.arn])
    if queue.key is None:
        return [send]
    # Decrypt: SQS verifies the data key that it uses again.
    return [send, key_use(queue.key, "kms:Decrypt", "kms:GenerateDataKey")]


def send_events_to(queue: LettersQueue, rule: events.CfnRule) -> None:
    """Let `rule`, and no other, send to `queue` and to its dead-letter queue."""
    rule_arn, events_service = rule.attr_arn, iam.ServicePrincipal("events.amazonaws.com")
    for target, arn in ((queue, queue.arn), (queue.dead_letters, queue.dead_letters_arn)):
        target.add_to_resource_policy(
            iam.PolicyStatement(
                actions=["sqs:SendMessage"],
                conditions={"ArnEquals": {"aws:SourceArn": rule_arn}},
                principals=[events_service],
                resources=[arn],
            )
        )


def define_rule(
    scope: Construct,
    construct_id: str,
    *,
    description: str,
    event_pattern: dict[str, object],
    queue: LettersQueue,
) -> events.CfnRule:
    """Define an EventBridge rule that sends what matches to `queue`.

    Level 1, because the L2's SQS target writes a queue policy of its own.
    """
    rule = events.CfnRule(
        scope,
        construct_id,
        description=description,
        event_pattern=event_pattern,
        state="ENABLED",
        targets=[
            events.CfnRule.TargetProperty(
                arn=queue.arn,
                id="Queue",
                dead_letter_config=events.CfnRule.DeadLetterConfigProperty(
                    arn=queue.dead_letters_arn
                ),
            )
        ],
    )
    send_events_to(queue, rule)
    return rule


def define_schedule(
    scope: Construct,
    construct_id: str,
    *,
    description: str,
    expression: str,
    time_zone: str | None = None,
    message: str,
    max_age_s: int,
    queue: LettersQueue,
) -> None:
    """Define a schedule that sends `message` to `queue`.

    :param expression: such as `rate(1 minute)`.
    :param time_zone: that it is meant in. Default: UTC.
    :param max_age_s: how late it may be sent, if at first it cannot be.
    """
    role = service_role(
        scope,
        f"{construct_id}Role",
        "scheduler.amazonaws.com",
        statements=send_to(queue),
        conditions={"StringEquals": {"aws:SourceAccount": place_of(scope).account}},
    )
    zone = {} if time_zone is None else {"ScheduleExpressionTimezone": time_zone}
    CfnResource(
        scope,
        construct_id,
        type="AWS::Scheduler::Schedule",
        properties={
            "Description": description,
            "FlexibleTimeWindow": {"Mode": "OFF"},
            "ScheduleExpression": expression,
            "Target": {
                "Arn": queue.arn,
                "Input": message,
                "RetryPolicy": {
                    "MaximumEventAgeInSeconds": max_age_s,
                    "MaximumRetryAttempts": 1,
                },
                "RoleArn": role.attr_arn,
            },
            **zone,
        },
    )
