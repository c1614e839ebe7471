"""An account of its own for pipelines: what they share, and one that uses all of it.

The first stack needs no `cdk bootstrap`, and makes what that is told of; docs/accounts.md has the
commands. The second is deployed by a role that can do no more than this, and its own roles can do
no more than roles of pipelines have to.
"""

from pathlib import Path

from aws_cdk import App, BootstraplessSynthesizer, PermissionsBoundary, Stack

from batch_transform import (
    Account,
    AccountBaseline,
    AccountSettings,
    AccountVpc,
    BatchTransform,
    FunctionsVpc,
    ModelVpc,
    Monitoring,
    PredictionIndex,
    TransformModel,
    TransformSettings,
)

EXAMPLES = Path(__file__).resolve().parents[1]

app = App(context={"@aws-cdk/core:bootstrapQualifier": "batch"})
shared = Stack(app, "Account", synthesizer=BootstraplessSynthesizer())
AccountBaseline(
    shared,
    "Account",
    settings=AccountSettings(
        emails=["ml-platform@example.com"],
        budget_usd=2000,
        anomaly_usd=100,
        vpc=AccountVpc(functions=True),
        stack_prefix="Scoring",
    ),
)

stack = Stack(
    app,
    "ScoringChurn",
    permissions_boundary=PermissionsBoundary.from_name("batch-transform-boundary"),
)
stack.add_stack_dependency(shared)
account = Account.of(stack)
BatchTransform(
    stack,
    "Churn",
    model=TransformModel.from_artifact(
        EXAMPLES / "quick_start" / "model",
        EXAMPLES / "image",
        network_isolation=True,
        vpc=ModelVpc(vpc=account.vpc(), security_groups=[account.https_only]),
    ),
    instance_type="ml.m5.large",
    settings=TransformSettings.csv(id_column=0),
    index=PredictionIndex(record_id=0),
    encryption_key=account.key,
    access_logs=account.access_logs,
    functions_vpc=FunctionsVpc(vpc=account.vpc(), security_groups=[account.https_only]),
    monitoring=Monitoring(topic=account.alerts),
)
app.synth()
