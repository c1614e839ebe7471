"""How every Lambda function of a pipeline is made: one asset, own role, own log group."""

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from weakref import WeakKeyDictionary

from aws_cdk import CfnResource, Duration, FileAssetLocation, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from constructs import Construct

from batch_transform.assets import file_asset
from batch_transform.functions_vpc import connect_functions
from batch_transform.log_retention import days_of
from batch_transform.networks import FunctionsVpc
from batch_transform.queues import LettersQueue
from batch_transform.statements import Statement, allow, key_use, service_role

_CODE_ID = "BatchTransformFunctions"
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
) -> str:
    """Define a log group that a service writes to by CloudWatch's own delivery.

    The one resource policy that lets it is limited to 5,120 characters an account and region, and
    only groups of this prefix do not make it longer
    (https://docs.aws.amazon.com/step-functions/latest/dg/bp-cwl.html).

    :return: its ARN.
    """
    name = f"/aws/vendedlogs/{service}/batch-transform/{pipeline_id}"
    return _log_group(scope, "Logs", retention, encryption_key, name=name).attr_arn


def _log_group(
    scope: Construct,
    construct_id: str,
    retention: logs.RetentionDays,
    encryption_key: kms.IKey | None,
    *,
    name: str | None = None,
) -> logs.CfnLogGroup:
    return logs.CfnLogGroup(
        scope,
        construct_id,
        kms_key_id=None if encryption_key is None else encryption_key.key_arn,
        log_group_name=name,
        retention_in_days=days_of(retention),
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
        role: iam.CfnRole,
        properties: Mapping[str, object],
    ) -> None:
        super().__init__(scope, construct_id)
        self.role_resource = role
        self.resource = CfnResource(
            self,
            "Resource",
            type="AWS::Lambda::Function",
            properties={**properties, "Role": role.attr_arn},
        )

    @cached_property
    def role(self) -> iam.IRole:
        """What it acts as; statements that are added are a policy beside it."""
        return iam.Role.from_role_name(self, "Role", self.role_resource.ref)

    @cached_property
    def function_name(self) -> str:
        """The name that CloudFormation gives it."""
        return self.resource.ref

    @cached_property
    def function_arn(self) -> str:
        """Its ARN, without a version."""
        return self.resource.get_att("Arn").to_string()

    def receive_from(
        self,
        queue: LettersQueue,
        *,
        batch_size: int,
        max_concurrency: int,
        report_failures: bool,
        window: Duration | None = None,
    ) -> None:
        """Feed the function with a queue's messages; its role needs what `receive_from` returns."""
        properties: dict[str, object] = {
            "BatchSize": batch_size,
            "EventSourceArn": queue.arn,
            "FunctionName": self.function_name,
            "ScalingConfig": {"MaximumConcurrency": max_concurrency},
        }
        if report_failures:
            properties["FunctionResponseTypes"] = ["ReportBatchItemFailures"]
        if window is not None:
            properties["MaximumBatchingWindowInSeconds"] = int(window.to_seconds())
        CfnResource(self, "Messages", type="AWS::Lambda::EventSourceMapping", properties=properties)


_CODE: WeakKeyDictionary[Stack, FileAssetLocation] = WeakKeyDictionary()


def _code_of(stack: Stack) -> FileAssetLocation:
    """Return where the code is that all functions of a stack have."""
    code = _CODE.get(stack)
    if code is None:
        code = _CODE[stack] = file_asset(
            stack, _CODE_ID, lambdas_directory(), exclude=["**/__pycache__", "**/*.pyc"]
        )
    return code


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
        self._traces = allow(
            actions=["xray:PutTelemetryRecords", "xray:PutTraceSegments"], resources=["*"]
        )
        self._code = _code_of(Stack.of(scope))

    def define(
        self,
        scope: Construct,
        construct_id: str,
        *,
        module: str,
        description: str,
        environment: Mapping[str, str],
        statements: Iterable[Statement],
        memory_mb: int,
        timeout_s: int,
    ) -> TransformFunction:
        """Define the function whose handler is `transform_lambdas.<module>.handle`."""
        log_group = _log_group(
            scope, f"{construct_id}Logs", self._log_retention, self._encryption_key
        )
        own = [
            allow(
                actions=["logs:CreateLogStream", "logs:PutLogEvents"],
                resources=[log_group.attr_arn],
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
        role = service_role(
            scope,
            f"{construct_id}Role",
            "lambda.amazonaws.com",
            statements=[*own, *statements],
            description=f"What {module} of the batch transform pipeline {self._pipeline_id} may do",
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
                "LoggingConfig": {"LogFormat": "JSON", "LogGroup": log_group.ref},
                "MemorySize": memory_mb,
                "Runtime": "python3.13",
                "Timeout": timeout_s,
                "TracingConfig": {"Mode": "Active"},
                **more,
            },
        )
