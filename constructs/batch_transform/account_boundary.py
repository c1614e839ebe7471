"""The most that a role of a pipeline may have, whatever its own policies say."""

from aws_cdk import CfnResource
from constructs import Construct

from batch_transform.statements import allow

#: What the boundary is called, for `PermissionsBoundary.from_name`.
BOUNDARY_NAME = "batch-transform-boundary"

#: What roles of pipelines do, by service. A test holds it to what all templates allow.
ROLES_DO = {
    "cloudwatch": ("PutMetricData",),
    "dynamodb": (
        "BatchGetItem",
        "BatchWriteItem",
        "DeleteItem",
        "GetItem",
        "PutItem",
        "Query",
        "Scan",
        "UpdateItem",
    ),
    "ec2": (
        "AssignPrivateIpAddresses",
        "CreateNetworkInterface",
        "CreateNetworkInterfacePermission",
        "DeleteNetworkInterface",
        "DeleteNetworkInterfacePermission",
        "DescribeDhcpOptions",
        "DescribeNetworkInterfaces",
        "DescribeSecurityGroups",
        "DescribeSubnets",
        "DescribeVpcs",
        "UnassignPrivateIpAddresses",
    ),
    "ecr": (
        "BatchCheckLayerAvailability",
        "BatchGetImage",
        "GetAuthorizationToken",
        "GetDownloadUrlForLayer",
    ),
    "events": (
        "DescribeRule",
        "PutEvents",
        "PutRule",
        "PutTargets",
    ),
    "execute-api": ("Invoke",),
    "kms": (
        "CreateGrant",
        "Decrypt",
        "DescribeKey",
        "Encrypt",
        "GenerateDataKey",
        "GenerateDataKeyWithoutPlaintext",
        "ReEncryptFrom",
        "ReEncryptTo",
    ),
    "lambda": ("InvokeFunction",),
    "logs": (
        "CreateLogDelivery",
        "CreateLogGroup",
        "CreateLogStream",
        "DeleteLogDelivery",
        "DescribeLogGroups",
        "DescribeLogStreams",
        "DescribeResourcePolicies",
        "FilterLogEvents",
        "GetLogDelivery",
        "ListLogDeliveries",
        "PutLogEvents",
        "PutResourcePolicy",
        "UpdateLogDelivery",
    ),
    "s3": (
        "AbortMultipartUpload",
        "GetObject",
        "ListBucket",
        "PutObject",
    ),
    "sagemaker": (
        "AddTags",
        "CreateTransformJob",
        "DescribeModel",
        "DescribeTransformJob",
        "ListTags",
        "ListTransformJobs",
        "StopTransformJob",
    ),
    "sqs": (
        "ChangeMessageVisibility",
        "DeleteMessage",
        "GetQueueAttributes",
        "ReceiveMessage",
        "SendMessage",
    ),
    "ssm": (
        "GetParameter",
        "GetParameters",
        "GetParametersByPath",
    ),
    "states": (
        "DescribeExecution",
        "GetExecutionHistory",
        "ListExecutions",
        "StartExecution",
        "StopExecution",
    ),
    "xray": (
        "GetSamplingRules",
        "GetSamplingTargets",
        "PutTelemetryRecords",
        "PutTraceSegments",
    ),
}


def define_boundary(scope: Construct) -> CfnResource:
    """Define the policy. Its name is fixed: stacks and `cdk bootstrap` know it by that."""
    actions = [f"{service}:{name}" for service, names in ROLES_DO.items() for name in names]
    return CfnResource(
        scope,
        "Boundary",
        type="AWS::IAM::ManagedPolicy",
        properties={
            "Description": "The most that a role of a batch transform pipeline may have",
            "ManagedPolicyName": BOUNDARY_NAME,
            "PolicyDocument": {
                "Version": "2012-10-17",
                "Statement": [allow(actions=actions, resources=["*"])],
            },
        },
    )
