"""What a state machine needs in order to run transform jobs: the statements of its role."""

from collections.abc import Iterable

from constructs import Construct

from batch_transform.deployed import place_of
from batch_transform.statements import Statement, allow

# The managed rule by which Step Functions learns that a transform job ended.
_JOB_EVENTS_RULE = "StepFunctionsGetEventsForSageMakerTransformJobsRule"


def create_statement(
    jobs_arn: str, *, model_arns: Iterable[str], instance_types: Iterable[str]
) -> Statement:
    """Return what creates jobs of these names, of no other model and on no other instances."""
    return allow(
        actions=["sagemaker:CreateTransformJob"],
        conditions={
            "ArnLike": {"sagemaker:ModelArn": list(model_arns)},
            "ForAnyValue:StringEquals": {"sagemaker:InstanceTypes": list(instance_types)},
        },
        resources=[jobs_arn],
    )


def follow_statements(scope: Construct, jobs_arn: str) -> list[Statement]:
    """Return what Step Functions needs to tag jobs, to learn that they ended, and to stop them."""
    return [
        allow(
            # Step Functions tags every job that it starts.
            actions=[
                "sagemaker:AddTags",
                "sagemaker:DescribeTransformJob",
                "sagemaker:ListTags",
                "sagemaker:StopTransformJob",
            ],
            resources=[jobs_arn],
        ),
        allow(
            actions=["events:DescribeRule", "events:PutRule", "events:PutTargets"],
            resources=[place_of(scope).arn("events", f"rule/{_JOB_EVENTS_RULE}")],
        ),
    ]
