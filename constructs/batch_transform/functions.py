"""How every Lambda function of a pipeline is made: one asset, own role, own log group."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from aws_cdk import CfnResource, Duration, RemovalPolicy
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from batch_transform.assets import file_asset
from batch_transform.functions_vpc import connect_functions
from batch_transform.networks import FunctionsVpc

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
    scope: Construct,
    service: str,
    *,
    pipeline_id: str,
    retention: logs.RetentionDays,
    encryption_key: kms.IKey | None,
) -> logs.LogGroup:
    """Define a log group that a service writes to by CloudWatch's own delivery.

    The one resource policy that lets it is limited to 5,120 characters an account and region, and
    only groups of this prefix do not make it longer
    (https://docs.aws.amazon.com/step-functions/latest/dg/bp-cwl.html).
    """
    return logs.LogGroup(
        scope,
        "Logs",
        encryption_key=encryption_key,
        log_group_name=f"/aws/vendedlogs/{service}/batch-transform/{pipeline_id}",
        removal_policy=RemovalPolicy.DESTROY,
        retention=retention,
    )


class TransformFunction(Construct):
    """One Lambda function: its role, its log group, and the resource itself.

    Core CloudFormation, because aws_cdk.aws_lambda takes long to import
    (docs/decisions/functions-without-level-2.md). `resource` takes property overrides.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        role: iam.Role,
        properties: Mapping[str, object],
    ) -> None:
        super().__init__(scope, construct_id)
        self.role = role
        self.resource = CfnResource(
            self,
            "Resource",
            type="AWS::Lambda::Function",
            properties={**properties, "Role": role.role_arn},
        )
        self.function_name = self.resource.ref
        self.function_arn = self.resource.get_att("Arn").to_string()

    def receive_from(
        self,
        queue: sqs.IQueue,
        *,
        batch_size: int,
        max_concurrency: int,
        report_failures: bool,
        window: Duration | None = None,
    ) -> None:
        """Feed the function with a queue's messages; its role needs what `receive_from` returns."""
        properties: dict[str, object] = {
            "BatchSize": batch_size,
            "EventSourceArn": queue.queue_arn,
            "FunctionName": self.function_name,
            "ScalingConfig": {"MaximumConcurrency": max_concurrency},
        }
        if report_failures:
            properties["FunctionResponseTypes"] = ["ReportBatchItemFailures"]
        if window is not None:
            properties["MaximumBatchingWindowInSeconds"] = int(window.to_seconds())
        CfnResource(self, "Messages", type="AWS::Lambda::EventSourceMapping", properties=properties)


class TransformFunctions:
    """Makes the pipeline's functions, which differ in what `define` takes and nothing else."""

    def __init__(
        self,
        scope: Construct,
        *,
        pipeline_id: str,
        log_retention: logs.RetentionDays,
        encryption_key: kms.IKey | None,
        vpc: FunctionsVpc | None,
    ) -> None:
        self._pipeline_id = pipeline_id
        self._log_retention = log_retention
        self._encryption_key = encryption_key
        self._network = None if vpc is None else connect_functions(scope, vpc)
        # The same for each function, and each costs a round trip to CDK.
        self._service = iam.ServicePrincipal("lambda.amazonaws.com")
        self._traces = iam.PolicyStatement(
            actions=["xray:PutTelemetryRecords", "xray:PutTraceSegments"], resources=["*"]
        )
        self._code = file_asset(
            scope, "Code", lambdas_directory(), exclude=["**/__pycache__", "**/*.pyc"]
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
        memory_mb: int,
        timeout_s: int,
    ) -> TransformFunction:
        """Define the function whose handler is `transform_lambdas.<module>.handle`."""
        log_group = logs.LogGroup(
            scope,
            f"{construct_id}Logs",
            encryption_key=self._encryption_key,
            removal_policy=RemovalPolicy.DESTROY,
            retention=self._log_retention,
        )
        own = [
            iam.PolicyStatement(
                actions=["logs:CreateLogStream", "logs:PutLogEvents"],
                resources=[log_group.log_group_arn],
            ),
            self._traces,
        ]
        more: dict[str, object] = {}
        if self._encryption_key is not None:
            # Lambda decrypts the environment in the name of the function.
            own.append(key_use(self._encryption_key, "kms:Decrypt"))
            more["KmsKeyArn"] = self._encryption_key.key_arn
        if self._network is not None:
            own += self._network.statements
            more["VpcConfig"] = self._network.config
        role = iam.Role(
            scope,
            f"{construct_id}Role",
            assumed_by=self._service,
            description=f"What {module} of the batch transform pipeline {self._pipeline_id} may do",
            # Part of the role, so that there is no moment at which it has no permissions yet.
            inline_policies={"Own": iam.PolicyDocument(statements=[*own, *statements])},
        )
        return TransformFunction(
            scope,
            construct_id,
            role=role,
            properties={
                "Architectures": ["arm64"],
                "Code": {"S3Bucket": self._code.bucket_name, "S3Key": self._code.object_key},
                "Description": f"{description} (pipeline {self._pipeline_id})",
                "Environment": {"Variables": dict(environment)},
                "Handler": f"transform_lambdas.{module}.handle",
                "LoggingConfig": {"LogFormat": "JSON", "LogGroup": log_group.log_group_name},
                "MemorySize": memory_mb,
                "Runtime": "python3.13",
                "Timeout": timeout_s,
                "TracingConfig": {"Mode": "Active"},
                **more,
            },
        )


def receive_from(queue: sqs.IQueue) -> list[iam.PolicyStatement]:
    """Return what an event source mapping needs of `queue`."""
    receive = iam.PolicyStatement(
        actions=[
            "sqs:ChangeMessageVisibility",
            "sqs:DeleteMessage",
            "sqs:GetQueueAttributes",
            "sqs:ReceiveMessage",
        ],
        resources=[queue.queue_arn],
    )
    key = queue.encryption_master_key
    return [receive] if key is None else [receive, key_use(key, "kms:Decrypt")]


def send_to(queue: sqs.IQueue) -> list[iam.PolicyStatement]:
    """Return what putting messages into `queue` needs."""
    send = iam.PolicyStatement(actions=["sqs:SendMessage"], resources=[queue.queue_arn])
    key = queue.encryption_master_key
    if key is None:
        return [send]
    # Decrypt: SQS verifies the data key that it uses again.
    return [send, key_use(key, "kms:Decrypt", "kms:GenerateDataKey")]


def key_use(key: kms.IKey, *actions: str) -> iam.PolicyStatement:
    """Return the statement for `actions` with `key`."""
    return iam.PolicyStatement(actions=list(actions), resources=[key.key_arn])
