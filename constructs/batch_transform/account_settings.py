"""What an account is made ready with, and what of that it has already."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network

_QUALIFIER = re.compile(r"[a-z0-9]{1,10}")
# Of a longer name of a stack, CloudFormation takes 24 characters into the name of a role.
_STACK_PREFIX = re.compile(r"([A-Za-z][A-Za-z0-9-]{0,23})?")
_ZONES = (2, 3)
_LARGEST_PREFIX = 16  # of a VPC's network, and 26 leaves a quarter of it an AWS subnet's least
_SMALLEST_PREFIX = 26


@dataclass(frozen=True, kw_only=True, slots=True)
class AccountVpc:
    """A VPC without a way to the internet, but with gateway endpoints for S3 and DynamoDB.

    :param cidr: its addresses. Every instance of a job takes two or more.
    :param zones: availability zones with a subnet each: 2 or 3.
    :param functions: adds what the functions of a pipeline need to run there: interface endpoints
        for SQS, Step Functions, SageMaker and CloudWatch Logs, each billed by the hour and zone.
    :param flow_logs_days: how long the log of accepted and refused connections is kept, one of the
        numbers that CloudWatch Logs knows; `None` for no such log.
    :raises ValueError: such a VPC cannot be made.
    """

    cidr: str = "10.0.0.0/16"
    zones: int = 2
    functions: bool = False
    flow_logs_days: int | None = 30

    def __post_init__(self) -> None:
        if self.zones not in _ZONES:
            raise ValueError(
                f"zones must be 2 or 3, got {self.zones}; one zone would be down with its data "
                "centre, and more bring endpoints to pay for"
            )
        if not _LARGEST_PREFIX <= self.network.prefixlen <= _SMALLEST_PREFIX:
            raise ValueError(
                f"cidr must have a length of {_LARGEST_PREFIX} to {_SMALLEST_PREFIX}, got "
                f"{self.cidr!r}; use for example '10.0.0.0/16'"
            )

    @property
    def network(self) -> IPv4Network:
        """Its addresses."""
        try:
            return IPv4Network(self.cidr)
        except ValueError as error:
            raise ValueError(
                f"cidr must be a network of IPv4 addresses, got {self.cidr!r}: {error}; use for "
                "example '10.0.0.0/16'"
            ) from error


@dataclass(frozen=True, kw_only=True, slots=True)
class AccountSettings:
    """What an `AccountBaseline` makes.

    What the account has already is named in place of being made, and published like the rest.

    :param emails: addresses that the alert topic writes to, each after its owner has confirmed.
    :param budget_usd: a month's costs in US dollars, of which 80 % and 100 % spent and 100 %
        forecast are told. Default: no budget.
    :param anomaly_usd: costs above the expected ones that are told of. Default: no such alert.
    :param anomaly_monitor: the ARN of the monitor of services that the account has: AWS often made
        one, and a second is refused. Default: a new one, if there is `anomaly_usd`.
    :param analyzer: finds what is shared with other accounts, and tells of it.
    :param vpc: Default: none.
    :param key: the ARN of a key that the account has; its policy needs the statements of
        docs/encryption.md and of docs/accounts.md. Default: a new one.
    :param access_logs: the name of a bucket that the account has, into which S3 may deliver.
        Default: a new one.
    :param access_log_days: how long a new bucket keeps access logs.
    :param alerts: the ARN of a topic that the account has. Default: a new one.
    :param boundary: the name of a policy that the account has for boundaries. Default: a new one.
    :param qualifier: of the CDK bootstrap, for which a policy is made that can deploy pipelines and
        little else. `None` for no such policy.
    :param stack_prefix: what names of the stacks to be deployed begin with, so that the policy
        reaches no other stack's roles. Default: all but the roles of bootstraps.
    :param home_region: where that of an account is made which is not of a region: boundary,
        policy, budget and anomalies. Default: wherever this is deployed, so in one region only.
    :raises ValueError: they do not fit together.
    """

    emails: Sequence[str] = ()
    budget_usd: float | None = None
    anomaly_usd: float | None = None
    anomaly_monitor: str | None = None
    analyzer: bool = True
    vpc: AccountVpc | None = None
    key: str | None = None
    access_logs: str | None = None
    access_log_days: int = 365
    alerts: str | None = None
    boundary: str | None = None
    qualifier: str | None = field(default="batch")
    stack_prefix: str = ""
    home_region: str | None = None

    def __post_init__(self) -> None:
        for name, value in (
            ("budget_usd", self.budget_usd),
            ("anomaly_usd", self.anomaly_usd),
            ("access_log_days", self.access_log_days),
        ):
            if value is not None and value <= 0:
                raise ValueError(
                    f"{name} must be above 0, got {value}; leave it out for the default"
                )
        if self.anomaly_monitor is not None and self.anomaly_usd is None:
            raise ValueError(
                "anomaly_monitor must come with anomaly_usd, got none; say from which amount on to "
                "tell"
            )
        if self.alerts is not None and self.emails:
            raise ValueError(
                "emails must be left to the topic that is made here, got them beside alerts; "
                "subscribe them to that topic where it is defined"
            )
        if self.qualifier is not None and not _QUALIFIER.fullmatch(self.qualifier):
            raise ValueError(
                "qualifier must be 1 to 10 lower-case letters and digits, as `cdk bootstrap` wants "
                f"it, got {self.qualifier!r}; use for example 'batch'"
            )
        if not _STACK_PREFIX.fullmatch(self.stack_prefix):
            raise ValueError(
                "stack_prefix must begin a name of a stack: letters, digits and hyphens, at most "
                f"24, got {self.stack_prefix!r}; leave '*' out, it is added"
            )
