"""Under which names in SSM an account says what it has."""

_PREFIX = "/batch-transform-account/"

KEY_ARN = "key-arn"
ACCESS_LOG_BUCKET = "access-log-bucket"
ALERT_TOPIC_ARN = "alert-topic-arn"
BOUNDARY_ARN = "boundary-arn"
VPC_ID = "vpc-id"
SECURITY_GROUP_ID = "security-group-id"


def parameter_name(fact: str) -> str:
    """Return the name of a fact's parameter."""
    return f"{_PREFIX}{fact}"


def zone(number: int) -> str:
    """Return the fact in which availability zone a subnet is, counted from 1 on."""
    return f"zone-{number}"


def subnet_id(number: int) -> str:
    """Return the fact what a subnet's id is, counted from 1 on."""
    return f"subnet-{number}-id"
