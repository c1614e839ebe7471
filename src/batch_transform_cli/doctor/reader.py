"""The one door to AWS: operations that read, each with the permissions that it needs."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from botocore.config import Config
from botocore.exceptions import ClientError

from batch_transform_cli.cloud import Cloud
from batch_transform_cli.doctor.findings import Place

#: Every operation that is ever called, and the permissions that it asks for.
OPERATIONS: Mapping[str, Sequence[str]] = {
    "budgets.describe_budgets": ("budgets:ViewBudget",),
    "cloudformation.describe_stacks": ("cloudformation:DescribeStacks",),
    "cloudformation.list_stack_resources": ("cloudformation:ListStackResources",),
    "ec2.describe_route_tables": ("ec2:DescribeRouteTables",),
    "ec2.describe_security_groups": ("ec2:DescribeSecurityGroups",),
    "ec2.describe_subnets": ("ec2:DescribeSubnets",),
    "ec2.describe_vpc_endpoints": ("ec2:DescribeVpcEndpoints",),
    "ecr.batch_get_image": ("ecr:BatchGetImage",),
    "ecr.describe_images": ("ecr:DescribeImages",),
    "iam.get_policy": ("iam:GetPolicy",),
    "iam.get_role": ("iam:GetRole",),
    "iam.simulate_principal_policy": ("iam:SimulatePrincipalPolicy",),
    "kms.describe_key": ("kms:DescribeKey",),
    "kms.get_key_policy": ("kms:GetKeyPolicy",),
    "s3.get_bucket_encryption": ("s3:GetEncryptionConfiguration",),
    "s3.get_bucket_notification_configuration": ("s3:GetBucketNotification",),
    "s3.head_bucket": ("s3:ListBucket",),
    "s3.head_object": ("s3:GetObject", "s3:ListBucket"),
    "sagemaker.describe_model": ("sagemaker:DescribeModel",),
    "service-quotas.list_aws_default_service_quotas": (
        "servicequotas:ListAWSDefaultServiceQuotas",
    ),
    "service-quotas.list_requested_service_quota_change_history_by_quota": (
        "servicequotas:ListRequestedServiceQuotaChangeHistoryByQuota",
    ),
    "service-quotas.list_service_quotas": ("servicequotas:ListServiceQuotas",),
    "sns.list_subscriptions_by_topic": ("sns:ListSubscriptionsByTopic",),
    "ssm.get_parameters": ("ssm:GetParameters",),
    "sts.get_caller_identity": (),
}

_DENIED = ("AccessDenied", "Unauthorized", "AuthorizationError", "Forbidden", "403")
_ABSENT = ("NotFound", "NoSuch", "404", "DoesNotExist")
_ABSENT_TEXTS = ("does not exist", "Could not find")  # CloudFormation; SageMaker
_LIMITS = Config(
    connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 2, "mode": "standard"}
)


class NotAllowed(Exception):
    """The credentials may not look at it; says what they need."""


class Absent(Exception):
    """What was asked for is not there."""


Clients = Callable[[str, Place], Any]
"""Makes a client of a service in a place."""


class Reader:
    """Reads what one account has in one region.

    :param clients: makes the clients.
    """

    def __init__(self, place: Place, clients: Clients) -> None:
        self.place = place
        self._clients = clients

    def read(self, service: str, operation: str, **request: Any) -> Mapping[str, Any]:
        """Call an operation.

        :raises NotAllowed: the credentials may not.
        :raises Absent: what it is about is not there.
        """
        with _told(service, operation):
            answer: Mapping[str, Any] = getattr(self._client(service, operation), operation)(
                **request
            )
        return answer

    def each(self, service: str, operation: str, key: str, **request: Any) -> Iterator[Any]:
        """Call an operation, page after page, and yield what `key` lists.

        :raises NotAllowed: the credentials may not.
        :raises Absent: what it is about is not there.
        """
        with _told(service, operation):
            pages = self._client(service, operation).get_paginator(operation)
            for page in pages.paginate(**request):
                yield from page.get(key, [])

    def _client(self, service: str, operation: str) -> Any:
        if f"{service}.{operation}" not in OPERATIONS:
            raise AssertionError(f"{service}.{operation} must stand in OPERATIONS")
        return self._clients(service, self.place)


def clients_of(cloud: Cloud) -> Clients:
    """Return what makes clients in a cloud; each of their calls ends within half a minute."""

    @functools.cache
    def client(service: str, place: Place) -> Any:
        return cloud.client_in(service, account=place.account, region=place.region, config=_LIMITS)

    return client


@contextmanager
def _told(service: str, operation: str) -> Iterator[None]:
    """Tell apart what a caller can do something about."""
    try:
        yield
    except ClientError as error:
        code, message = error.response["Error"]["Code"], error.response["Error"]["Message"]
        if any(each in code for each in _DENIED):
            raise NotAllowed(" and ".join(OPERATIONS[f"{service}.{operation}"])) from error
        if any(each in code for each in _ABSENT) or any(each in message for each in _ABSENT_TEXTS):
            raise Absent(message) from error
        raise
