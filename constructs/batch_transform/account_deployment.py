"""What CloudFormation may do to deploy pipelines, in place of the administrator that CDK makes it.

Of each resource type: all that its schema in CloudFormation's registry (`handlers`) reads, as that
does after every change, and what it writes for properties that our templates have.
"""

from collections.abc import Iterable, Sequence

from aws_cdk import CfnResource
from constructs import Construct

from batch_transform.deployed import Place, place_of
from batch_transform.statements import Statement, allow

#: What the policy is called, for `cdk bootstrap --cloudformation-execution-policies`.
DEPLOYMENT_POLICY_NAME = "batch-transform-deployment"

#: The services that get roles of ours; a test holds it to the templates.
PASSED_TO = (
    "lambda.amazonaws.com",
    "sagemaker.amazonaws.com",
    "scheduler.amazonaws.com",
    "states.amazonaws.com",
)

_API = (
    "apigateway:DELETE",
    "apigateway:GET",
    "apigateway:PATCH",
    "apigateway:POST",
    "apigateway:PUT",
)
_API_PATHS = ("/apis", "/apis/*", "/tags/*")
_QUEUE_POLICY = ("sqs:GetQueueAttributes", "sqs:GetQueueUrl", "sqs:SetQueueAttributes")
_INLINE_POLICY = ("iam:DeleteRolePolicy", "iam:GetRolePolicy", "iam:PutRolePolicy")

#: What CloudFormation needs for a resource of each type; a test holds the types to the templates.
NEEDED = {
    "AWS::ApiGatewayV2::Api": (*_API, "iam:CreateServiceLinkedRole"),
    "AWS::ApiGatewayV2::Integration": _API,
    "AWS::ApiGatewayV2::Route": _API,
    "AWS::ApiGatewayV2::Stage": (
        *_API,
        "logs:CreateLogDelivery",
        "logs:DeleteLogDelivery",
        "logs:DescribeLogGroups",
        "logs:DescribeResourcePolicies",
        "logs:GetLogDelivery",
        "logs:ListLogDeliveries",
        "logs:PutResourcePolicy",
        "logs:UpdateLogDelivery",
    ),
    "AWS::CloudWatch::Alarm": (
        "cloudwatch:DeleteAlarms",
        "cloudwatch:DescribeAlarms",
        "cloudwatch:ListTagsForResource",
        "cloudwatch:PutMetricAlarm",
        "cloudwatch:TagResource",
        "cloudwatch:UntagResource",
    ),
    "AWS::CloudWatch::Dashboard": (
        "cloudwatch:DeleteDashboards",
        "cloudwatch:GetDashboard",
        "cloudwatch:PutDashboard",
    ),
    "AWS::DynamoDB::Table": (
        "dynamodb:CreateTable",
        "dynamodb:DeleteTable",
        "dynamodb:DescribeContinuousBackups",
        "dynamodb:DescribeContributorInsights",
        "dynamodb:DescribeKinesisStreamingDestination",
        "dynamodb:DescribeTable",
        "dynamodb:DescribeTimeToLive",
        "dynamodb:GetResourcePolicy",
        "dynamodb:ListTagsOfResource",
        "dynamodb:TagResource",
        "dynamodb:UntagResource",
        "dynamodb:UpdateContinuousBackups",
        "dynamodb:UpdateTable",
        "dynamodb:UpdateTimeToLive",
        "kms:CreateGrant",
        "kms:Decrypt",
        "kms:DescribeKey",
        "kms:Encrypt",
    ),
    "AWS::EC2::SecurityGroup": (
        "ec2:AuthorizeSecurityGroupEgress",
        "ec2:CreateSecurityGroup",
        "ec2:CreateTags",
        "ec2:DeleteSecurityGroup",
        "ec2:DeleteTags",
        "ec2:DescribeSecurityGroups",
        "ec2:RevokeSecurityGroupEgress",
    ),
    "AWS::Events::Rule": (
        "events:DeleteRule",
        "events:DescribeRule",
        "events:ListTagsForResource",
        "events:ListTargetsByRule",
        "events:PutRule",
        "events:PutTargets",
        "events:RemoveTargets",
        "events:TagResource",
        "events:UntagResource",
    ),
    "AWS::IAM::Policy": _INLINE_POLICY,
    "AWS::IAM::Role": (
        *_INLINE_POLICY,
        "iam:CreateRole",
        "iam:DeleteRole",
        "iam:GetRole",
        "iam:ListAttachedRolePolicies",
        "iam:ListRolePolicies",
        "iam:PutRolePermissionsBoundary",
        "iam:TagRole",
        "iam:UntagRole",
        "iam:UpdateAssumeRolePolicy",
        "iam:UpdateRole",
        "iam:UpdateRoleDescription",
    ),
    "AWS::Lambda::EventSourceMapping": (
        "lambda:CreateEventSourceMapping",
        "lambda:DeleteEventSourceMapping",
        "lambda:GetEventSourceMapping",
        "lambda:ListTags",
        "lambda:TagResource",
        "lambda:UntagResource",
        "lambda:UpdateEventSourceMapping",
    ),
    "AWS::Lambda::Function": (
        "ec2:DescribeNetworkInterfaces",
        "ec2:DescribeSecurityGroups",
        "ec2:DescribeSubnets",
        "ec2:DescribeVpcs",
        "iam:PassRole",
        "kms:CreateGrant",
        "kms:Decrypt",
        "kms:Encrypt",
        "kms:GenerateDataKey",
        "lambda:CreateFunction",
        "lambda:DeleteFunction",
        "lambda:GetFunction",
        "lambda:GetFunctionCodeSigningConfig",
        "lambda:GetFunctionRecursionConfig",
        "lambda:GetFunctionScalingConfig",
        "lambda:GetRuntimeManagementConfig",
        "lambda:ListTags",
        "lambda:PutFunctionRecursionConfig",
        "lambda:TagResource",
        "lambda:UntagResource",
        "lambda:UpdateFunctionCode",
        "lambda:UpdateFunctionConfiguration",
        "s3:GetObject",
    ),
    "AWS::Lambda::Permission": (
        "lambda:AddPermission",
        "lambda:GetPolicy",
        "lambda:RemovePermission",
    ),
    "AWS::Logs::LogGroup": (
        "logs:AssociateKmsKey",
        "logs:CreateLogGroup",
        "logs:DeleteLogGroup",
        "logs:DescribeIndexPolicies",
        "logs:DescribeLogGroups",
        "logs:DescribeResourcePolicies",
        "logs:DisassociateKmsKey",
        "logs:GetDataProtectionPolicy",
        "logs:ListTagsForResource",
        "logs:ListTagsLogGroup",
        "logs:PutRetentionPolicy",
        "logs:TagResource",
        "logs:UntagResource",
    ),
    "AWS::S3::Bucket": (
        "s3:CreateBucket",
        "s3:DeleteBucket",
        "s3:GetAccelerateConfiguration",
        "s3:GetAnalyticsConfiguration",
        "s3:GetBucketAcl",
        "s3:GetBucketCORS",
        "s3:GetBucketLogging",
        "s3:GetBucketNotification",
        "s3:GetBucketObjectLockConfiguration",
        "s3:GetBucketOwnershipControls",
        "s3:GetBucketPublicAccessBlock",
        "s3:GetBucketTagging",
        "s3:GetBucketVersioning",
        "s3:GetBucketWebsite",
        "s3:GetEncryptionConfiguration",
        "s3:GetIntelligentTieringConfiguration",
        "s3:GetInventoryConfiguration",
        "s3:GetLifecycleConfiguration",
        "s3:GetMetricsConfiguration",
        "s3:GetReplicationConfiguration",
        "s3:ListBucket",
        "s3:PutBucketLogging",
        "s3:PutBucketNotification",
        "s3:PutBucketOwnershipControls",
        "s3:PutBucketPublicAccessBlock",
        "s3:PutBucketTagging",
        "s3:PutBucketVersioning",
        "s3:PutEncryptionConfiguration",
        "s3:PutLifecycleConfiguration",
    ),
    "AWS::S3::BucketPolicy": (
        "s3:DeleteBucketPolicy",
        "s3:GetBucketPolicy",
        "s3:PutBucketPolicy",
    ),
    "AWS::SQS::Queue": (
        *_QUEUE_POLICY,
        "sqs:CreateQueue",
        "sqs:DeleteQueue",
        "sqs:ListQueueTags",
        "sqs:TagQueue",
        "sqs:UntagQueue",
    ),
    "AWS::SQS::QueuePolicy": _QUEUE_POLICY,
    "AWS::SSM::Parameter": (
        "ssm:AddTagsToResource",
        "ssm:DeleteParameter",
        "ssm:GetParameters",
        "ssm:ListTagsForResource",
        "ssm:PutParameter",
        "ssm:RemoveTagsFromResource",
    ),
    "AWS::SageMaker::Model": (
        "iam:PassRole",
        "sagemaker:AddTags",
        "sagemaker:CreateModel",
        "sagemaker:DeleteModel",
        "sagemaker:DeleteTags",
        "sagemaker:DescribeModel",
        "sagemaker:ListTags",
    ),
    "AWS::Scheduler::Schedule": (
        "iam:PassRole",
        "scheduler:CreateSchedule",
        "scheduler:DeleteSchedule",
        "scheduler:GetSchedule",
        "scheduler:UpdateSchedule",
    ),
    "AWS::StepFunctions::StateMachine": (
        "iam:PassRole",
        "kms:DescribeKey",
        "kms:GenerateDataKey",
        "states:CreateStateMachine",
        "states:DeleteStateMachine",
        "states:DescribeStateMachine",
        "states:ListTagsForResource",
        "states:TagResource",
        "states:UntagResource",
        "states:UpdateStateMachine",
    ),
    "Custom::BatchTransformRuns": ("lambda:InvokeFunction",),
}

# What can give a role more than it has: only for one that has the boundary.
_UNDER_BOUNDARY = (
    "iam:CreateRole",
    "iam:DeleteRolePolicy",
    "iam:PutRolePermissionsBoundary",
    "iam:PutRolePolicy",
)


def define_deployment(
    scope: Construct, *, qualifier: str, stack_prefix: str, boundary: str
) -> CfnResource:
    """Define the policy of the role with which CloudFormation deploys, and that role's boundary.

    It has a fixed name, because it has to be there before `cdk bootstrap`, which is told of it.
    """
    return CfnResource(
        scope,
        "Deployment",
        type="AWS::IAM::ManagedPolicy",
        properties={
            "Description": "What CloudFormation may do to deploy batch transform pipelines",
            "ManagedPolicyName": DEPLOYMENT_POLICY_NAME,
            "PolicyDocument": {
                "Version": "2012-10-17",
                "Statement": _statements(place_of(scope), qualifier, stack_prefix, boundary),
            },
        },
    )


def _statements(place: Place, qualifier: str, stack_prefix: str, boundary: str) -> list[Statement]:
    left = sorted({action for actions in NEEDED.values() for action in actions})

    def take(wanted: Iterable[str]) -> Sequence[str]:
        """Return those of what is left that are wanted, which then are not left."""
        taken = [action for action in left if action.startswith(tuple(wanted))]
        left[:] = [action for action in left if action not in taken]
        return taken

    def role(name: str) -> str:
        return place.arn("iam", f"role/{name}", region="")

    boundary_arn = place.arn("iam", f"policy/{boundary}", region="")
    own_roles = [role(f"{stack_prefix}*")]
    bootstrap = place.arn("ssm", f"parameter/cdk-bootstrap/{qualifier}/*", region="*")
    limited = [
        allow(
            actions=take(_UNDER_BOUNDARY),
            conditions={"StringEquals": {"iam:PermissionsBoundary": boundary_arn}},
            resources=own_roles,
        ),
        allow(
            actions=take(["iam:PassRole"]),
            conditions={"StringEquals": {"iam:PassedToService": [*PASSED_TO]}},
            resources=own_roles,
        ),
        allow(
            actions=take(["iam:CreateServiceLinkedRole"]),
            resources=[role("aws-service-role/ops.apigateway.amazonaws.com/*")],
        ),
        allow(
            actions=take(["ssm:GetParameters"]),
            resources=[bootstrap, place.arn("ssm", "parameter/batch-transform*", region="*")],
        ),
        allow(
            # For the services that encrypt with the key in the name of who creates something.
            actions=take(["kms:"]),
            conditions={
                "StringLike": {
                    "kms:ViaService": [
                        f"{service}.*.amazonaws.com" for service in ("dynamodb", "lambda", "states")
                    ]
                }
            },
            resources=[place.arn("kms", "key/*", region="*")],
        ),
        allow(
            # Each of these actions knows one of these kinds of resources: one statement is shorter.
            actions=take(
                [
                    "apigateway:",
                    "ec2:CreateTags",
                    "ec2:DeleteTags",
                    "iam:",
                    "lambda:InvokeFunction",  # by a custom resource
                    "s3:GetObject",  # the functions' code, an asset
                    "ssm:",
                ]
            ),
            resources=[
                *(f"arn:{place.partition}:apigateway:*::{path}" for path in _API_PATHS),
                place.arn("ec2", "security-group/*", region="*"),
                *own_roles,
                place.arn("lambda", f"function:{stack_prefix}*", region="*"),
                f"arn:{place.partition}:s3:::cdk-{qualifier}-assets-{place.account}-*",
                place.arn("ssm", "parameter/batch-transform/*", region="*"),
            ],
        ),
    ]
    return [
        allow(actions=left, resources=["*"]),
        *limited,
        {
            "Sid": "NotTheBootstrapsOwn",
            "Effect": "Deny",
            "Action": "iam:*",
            "Resource": [role("cdk-*")],
        },
    ]
