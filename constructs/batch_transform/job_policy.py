"""What a state machine needs in order to run transform jobs: the statements of its role."""

from collections.abc import Iterable

from aws_cdk import Stack
from aws_cdk import aws_iam as iam
from constructs import Construct

# The managed rule by which Step Functions learns that a transform job ended.
_JOB_EVENTS_RULE = "StepFunctionsGetEventsForSageMakerTransformJobsRule"


def create_statement(
    jobs_arn: str, *, model_arns: Iterable[str], instance_types: Iterable[str]
) -> iam.PolicyStatement:
    """Return what creates jobs of these names, of no other model and on no other instances."""
    return iam.PolicyStatement(
        actions=["sagemaker:CreateTransformJob"],
        conditions={
            "ArnLike": {"sagemaker:ModelArn": list(model_arns)},
            "ForAnyValue:StringEquals": {"sagemaker:InstanceTypes": list(instance_types)},
        },
        resources=[jobs_arn],
    )


def follow_statements(scope: Construct, jobs_arn: str) -> list[iam.PolicyStatement]:
    """Return what Step Functions needs to tag jobs, to learn that they ended, and to stop them."""
    return [
        iam.PolicyStatement(
            # Step Functions tags every job that it starts.
            actions=[
                "sagemaker:AddTags",
                "sagemaker:DescribeTransformJob",
                "sagemaker:ListTags",
                "sagemaker:StopTransformJob",
            ],
            resources=[jobs_arn],
        ),
        iam.PolicyStatement(
            actions=["events:DescribeRule", "events:PutRule", "events:PutTargets"],
            resources=[
                Stack.of(scope).format_arn(
                    service="events", resource="rule", resource_name=_JOB_EVENTS_RULE
                )
            ],
        ),
    ]
