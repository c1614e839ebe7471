"""Queues as every part has them: encrypted, TLS only, with a dead-letter queue."""

from aws_cdk import Duration, Stack
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_scheduler as scheduler
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from batch_transform.functions import send_to

_RECEIVES = 5


class LettersQueue(sqs.Queue):
    """A queue that has a dead-letter queue.

    :ivar dead_letters: where messages go after five vain receives.
    """

    dead_letters: sqs.Queue


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
        retention_period=Duration.days(14),
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
    queue.dead_letters = dead_letters
    return queue


def send_events_to(queue: LettersQueue, rule: events.CfnRule) -> None:
    """Let `rule`, and no other, send to `queue` and to its dead-letter queue."""
    rule_arn, events_service = rule.attr_arn, iam.ServicePrincipal("events.amazonaws.com")
    for target in (queue, queue.dead_letters):
        target.add_to_resource_policy(
            iam.PolicyStatement(
                actions=["sqs:SendMessage"],
                conditions={"ArnEquals": {"aws:SourceArn": rule_arn}},
                principals=[events_service],
                resources=[target.queue_arn],
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
                arn=queue.queue_arn,
                id="Queue",
                dead_letter_config=events.CfnRule.DeadLetterConfigProperty(
                    arn=queue.dead_letters.queue_arn
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
    expression: scheduler.ScheduleExpression,
    message: str,
    max_age: Duration,
    queue: sqs.Queue,
) -> None:
    """Define a schedule that sends `message` to `queue`.

    :param max_age: how late it may be sent, if at first it cannot be.
    """
    role = iam.Role(
        scope,
        f"{construct_id}Role",
        assumed_by=iam.ServicePrincipal(
            "scheduler.amazonaws.com",
            conditions={"StringEquals": {"aws:SourceAccount": Stack.of(scope).account}},
        ),
    )
    for statement in send_to(queue):
        role.add_to_policy(statement)
    time_zone = expression.time_zone
    schedule = scheduler.CfnSchedule(
        scope,
        construct_id,
        description=description,
        flexible_time_window=scheduler.CfnSchedule.FlexibleTimeWindowProperty(mode="OFF"),
        schedule_expression=expression.expression_string,
        schedule_expression_timezone=None if time_zone is None else time_zone.timezone_name,
        target=scheduler.CfnSchedule.TargetProperty(
            arn=queue.queue_arn,
            input=message,
            role_arn=role.role_arn,
            retry_policy=scheduler.CfnSchedule.RetryPolicyProperty(
                maximum_event_age_in_seconds=int(max_age.to_seconds()), maximum_retry_attempts=1
            ),
        ),
    )
    schedule.node.add_dependency(role)
