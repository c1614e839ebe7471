"""One transform job as a state of a state machine of yours: no ledger, no functions, no triggers.

Started with `{"folder": "customers/today/"}`, it scores every object under that folder, and writes
what is in `drops/` to `scores/` as it is in `predictions/`. The role of the model may read under
`customers/` only, whatever the input says.
"""

from pathlib import Path

from aws_cdk import App, CfnOutput, Stack
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_stepfunctions as sfn

from batch_transform import S3Location, TransformModel, TransformSettings, TransformTask

EXAMPLES = Path(__file__).resolve().parents[1]

app = App()
stack = Stack(app, "OwnStateMachine")
bucket = s3.Bucket(stack, "Data", enforce_ssl=True)
score = TransformTask(
    stack,
    "Score",
    model=TransformModel.from_artifact(EXAMPLES / "quick_start" / "model", EXAMPLES / "image"),
    instance_type="ml.m5.large",
    settings=TransformSettings.csv(id_column=0),
    source=S3Location(bucket=bucket, key="{% $states.input.folder %}", within="customers/"),
    destination=S3Location(bucket=bucket, key="scores/"),
    outputs="{% {'scored': $states.result.TransformJobName} %}",
)
score.add_catch(sfn.Fail(stack, "NotScored"))
machine = sfn.StateMachine(
    stack,
    "Machine",
    definition_body=sfn.DefinitionBody.from_chainable(
        sfn.Pass(stack, "Prepare").next(score).next(sfn.Succeed(stack, "Scored"))
    ),
    logs=sfn.LogOptions(destination=logs.LogGroup(stack, "Log"), level=sfn.LogLevel.ALL),
    tracing_enabled=True,
)
CfnOutput(stack, "Bucket", value=bucket.bucket_name)
CfnOutput(stack, "StateMachine", value=machine.state_machine_arn)
app.synth()
