"""What stops runs when the pipeline is deleted, before anything is that they need."""

from aws_cdk import CfnResource
from constructs import Construct

from batch_transform.functions import TransformFunctions
from batch_transform.run import Run
from batch_transform.settle import transform_jobs_arn
from batch_transform.statements import allow

_TIMEOUT_S = 120
_ANSWER_LIMIT_S = 180


class Deletion(Construct):
    """A custom resource whose deletion stops the executions and the transform jobs.

    CloudFormation deletes it before what its function refers to: the state machine, and with that
    the models. What could start another run has to depend on `resource`, and is then gone before.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        pipeline_id: str,
        run: Run,
        functions: TransformFunctions,
    ) -> None:
        super().__init__(scope, construct_id)
        self.function = functions.define(
            self,
            "Function",
            module="deletion",
            description="Stops what runs when the stack is deleted",
            environment={"PIPELINE_ID": pipeline_id, "STATE_MACHINE_ARN": run.state_machine_arn},
            statements=[
                allow(actions=["states:ListExecutions"], resources=[run.state_machine_arn]),
                allow(actions=["states:StopExecution"], resources=[run.executions_arn]),
                allow(actions=["sagemaker:ListTransformJobs"], resources=["*"]),
                allow(
                    actions=["sagemaker:StopTransformJob"],
                    resources=[transform_jobs_arn(self, pipeline_id)],
                ),
            ],
            memory_mb=256,
            timeout_s=_TIMEOUT_S,
        )
        self.resource = CfnResource(
            self,
            "Runs",
            type="Custom::BatchTransformRuns",
            properties={
                "ServiceToken": self.function.function_arn,
                "ServiceTimeout": _ANSWER_LIMIT_S,
            },
        )
