"""How every Lambda function of a pipeline is made: one asset, own role, own log group."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from aws_cdk import Duration, RemovalPolicy, Size
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sqs as sqs
from constructs import Construct

_PACKAGE = Path(__file__).resolve().parent


def lambdas_directory() -> Path:
    """Return the folder that is the functions' asset: in the wheel, or in a checkout."""
    candidates = (_PACKAGE / "_lambdas", _PACKAGE.parents[1] / "lambdas")
    for candidate in candidates:
        if (candidate / "transform_lambdas").is_dir():
            return candidate
    raise FileNotFoundError(
        "the Lambda code must lie beside the package, got nothing at "
        f"{' or '.join(map(str, candidates))}; install batch-transform again"
    )


def vended_log_group(
    scope: Construct, service: str, *, pipeline_id: str, retention: logs.RetentionDays
) -> logs.LogGroup:
    """Define a log group that a service writes to by CloudWatch's own delivery.

    The one resource policy that lets it is limited to 5,120 characters an account and region, and
    only groups of this prefix do not make it longer
    (https://docs.aws.amazon.com/step-functions/latest/dg/bp-cwl.html).
    """
    return logs.LogGroup(
        scope,
        "Logs",
        log_group_name=f"/aws/vendedlogs/{service}/batch-transform/{pipeline_id}",
        removal_policy=RemovalPolicy.DESTROY,
        retention=retention,
    )


class TransformFunctions:
    """Makes the pipeline's functions, which differ in what `define` takes and nothing else."""

    def __init__(self, *, pipeline_id: str, log_retention: logs.RetentionDays) -> None:
        self._pipeline_id = pipeline_id
        self._log_retention = log_retention
        self._code = lambda_.Code.from_asset(
            str(lambdas_directory()), exclude=["**/__pycache__", "**/*.pyc"]
        )

    def define(
        self,
        scope: Construct,
        construct_id: str,
        *,
        module: str,
        description: str,
        environment: Mapping[str, str],
        statements: Iterable[iam.PolicyStatement],
        memory: Size,
        timeout: Duration,
    ) -> lambda_.Function:
        """Define the function whose handler is `transform_lambdas.<module>.handle`."""
        log_group = logs.LogGroup(
            scope,
            f"{construct_id}Logs",
            removal_policy=RemovalPolicy.DESTROY,
            retention=self._log_retention,
        )
        role = iam.Role(
            scope,
            f"{construct_id}Role",
            assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"),
            description=f"What {module} of the batch transform pipeline {self._pipeline_id} may do",
        )
        role.add_to_policy(
            iam.PolicyStatement(
                actions=["logs:CreateLogStream", "logs:PutLogEvents"],
                resources=[log_group.log_group_arn],
            )
        )
        for statement in statements:
            role.add_to_policy(statement)
        return lambda_.Function(
            scope,
            construct_id,
            architecture=lambda_.Architecture.ARM_64,
            code=self._code,
            description=f"{description} (pipeline {self._pipeline_id})",
            environment=dict(environment),
            handler=f"transform_lambdas.{module}.handle",
            log_group=log_group,
            logging_format=lambda_.LoggingFormat.JSON,
            memory_size=int(memory.to_mebibytes()),
            role=role,
            runtime=lambda_.Runtime.PYTHON_3_13,
            timeout=timeout,
            tracing=lambda_.Tracing.ACTIVE,
        )


def receive_from(queue: sqs.IQueue) -> iam.PolicyStatement:
    """Return what an event source mapping needs of `queue`."""
    return iam.PolicyStatement(
        actions=[
            "sqs:ChangeMessageVisibility",
            "sqs:DeleteMessage",
            "sqs:GetQueueAttributes",
            "sqs:ReceiveMessage",
        ],
        resources=[queue.queue_arn],
    )


def send_to(queue: sqs.IQueue) -> iam.PolicyStatement:
    """Return what putting messages into `queue` needs."""
    return iam.PolicyStatement(actions=["sqs:SendMessage"], resources=[queue.queue_arn])
