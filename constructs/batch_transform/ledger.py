"""The table that knows every drop and run."""

from aws_cdk import RemovalPolicy
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_kms as kms
from constructs import Construct

from batch_transform.statements import Statement, allow

QUEUE_INDEX = "queue"


def define_table(
    scope: Construct,
    construct_id: str,
    *,
    partition_key: str,
    sort_key: str,
    encryption_key: kms.IKey | None,
    removal_policy: RemovalPolicy,
    time_to_live_attribute: str | None = None,
) -> dynamodb.Table:
    """Define a table as every part has it: on demand, encrypted, restorable to any second."""
    return dynamodb.Table(
        scope,
        construct_id,
        billing_mode=dynamodb.BillingMode.PAY_PER_REQUEST,
        encryption=dynamodb.TableEncryption.DEFAULT
        if encryption_key is None
        else dynamodb.TableEncryption.CUSTOMER_MANAGED,
        encryption_key=encryption_key,
        partition_key=dynamodb.Attribute(name=partition_key, type=dynamodb.AttributeType.STRING),
        point_in_time_recovery_specification=dynamodb.PointInTimeRecoverySpecification(
            point_in_time_recovery_enabled=True
        ),
        removal_policy=removal_policy,
        sort_key=dynamodb.Attribute(name=sort_key, type=dynamodb.AttributeType.STRING),
        time_to_live_attribute=time_to_live_attribute,
    )


class Ledger(Construct):
    """Every drop and run, and the sparse index of the drops that wait."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        encryption_key: kms.IKey | None,
        removal_policy: RemovalPolicy,
    ) -> None:
        super().__init__(scope, construct_id)
        self._encryption_key = encryption_key
        self.table = define_table(
            self,
            "Table",
            partition_key="pk",
            sort_key="sk",
            encryption_key=encryption_key,
            removal_policy=removal_policy,
        )
        self.table.add_global_secondary_index(
            index_name=QUEUE_INDEX,
            partition_key=dynamodb.Attribute(name="queue", type=dynamodb.AttributeType.STRING),
            sort_key=dynamodb.Attribute(name="due", type=dynamodb.AttributeType.STRING),
            projection_type=dynamodb.ProjectionType.ALL,
        )
        self.table_name, self._table_arn = self.table.table_name, self.table.table_arn

    def allow(self, *actions: str, queue: bool = False) -> list[Statement]:
        """Return the statements for DynamoDB `actions` on the ledger.

        :param queue: also query the index of waiting drops.
        """
        statements = [table_use(self._table_arn, *actions)]
        if queue:
            index_arn = f"{self._table_arn}/index/{QUEUE_INDEX}"
            statements.append(allow(actions=["dynamodb:Query"], resources=[index_arn]))
        return statements + table_key_use(self._encryption_key, writes=True)


def table_use(table_arn: str, *actions: str) -> Statement:
    """Return the statement for DynamoDB `actions`, named without their service, on a table."""
    return allow(actions=[f"dynamodb:{action}" for action in actions], resources=[table_arn])


def table_key_use(key: kms.IKey | None, *, writes: bool) -> list[Statement]:
    """Return what the callers of a table under a customer managed key need; none without one."""
    if key is None:
        return []
    actions = ["kms:Decrypt", "kms:DescribeKey"]
    if writes:
        actions += [
            "kms:Encrypt",
            "kms:GenerateDataKey",
            "kms:GenerateDataKeyWithoutPlaintext",
            "kms:ReEncryptFrom",
            "kms:ReEncryptTo",
        ]
    return [allow(actions=actions, resources=[key.key_arn])]
