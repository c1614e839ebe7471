"""What others may do with a pipeline."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from aws_cdk import Token
from aws_cdk import aws_iam as iam
from constructs import Construct

from batch_transform.bound_model import scoring_statements
from batch_transform.deployed import place_of
from batch_transform.ledger import QUEUE_INDEX, table_key_use
from batch_transform.places import REPORTS, RUNS
from batch_transform.queues import send_to
from batch_transform.statements import Statement, allow, key_use

if TYPE_CHECKING:
    from batch_transform.pipeline import BatchTransform


class BatchTransformGrants:
    """Permissions that others ask of a `BatchTransform`; see `BatchTransform.grants`.

    Each raises `ValueError` for a grantee without policies of its own, such as a service, and for
    one of another account.
    """

    def __init__(self, pipeline: "BatchTransform") -> None:
        self._pipeline = pipeline

    def drop(self, grantee: iam.IGrantable) -> None:
        """Let `grantee` put inputs under the watched prefix, and nothing else."""
        buckets = self._pipeline.buckets
        self._allow(
            grantee,
            allow(
                actions=["s3:AbortMultipartUpload", "s3:PutObject"],
                resources=[buckets.inputs_arn()],
            ),
            # Parts of a multipart upload are read back under the key.
            *buckets.key_use("kms:Decrypt", "kms:GenerateDataKey", keys=buckets.input_keys),
        )

    def backfill(self, grantee: iam.IGrantable) -> None:
        """Let `grantee` have what lies under the watched prefix taken as drops.

        It may send any message to intake's queue, so it is trusted to say what was uploaded.
        """
        self._allow(grantee, *send_to(self._pipeline.intake.queue))

    def read(self, grantee: iam.IGrantable) -> None:
        """Let `grantee` list and read predictions and reports."""
        buckets = self._pipeline.buckets
        prefixes = [f"{buckets.output_prefix}*", f"{REPORTS}*"]
        self._allow(
            grantee,
            allow(
                actions=["s3:GetObject"],
                resources=[buckets.output.arn_for_objects(prefix) for prefix in prefixes],
            ),
            allow(
                actions=["s3:ListBucket"],
                conditions={"StringLike": {"s3:prefix": prefixes}},
                resources=[buckets.output.bucket_arn],
            ),
            *buckets.key_use("kms:Decrypt", keys=buckets.output_keys),
        )

    def lookup(self, grantee: iam.IGrantable) -> None:
        """Let `grantee` ask the API for predictions.

        :raises ValueError: the pipeline has no index, or an authorizer of yours.
        """
        lookup = self._pipeline.lookup
        if lookup is None:
            raise ValueError(
                f"grants.lookup needs a pipeline with an index, got {self._pipeline.node.path} "
                "without one; pass index=PredictionIndex(...)"
            )
        self._allow(grantee, lookup.use())

    def watch(self, grantee: iam.IGrantable) -> None:
        """Let `grantee` see drops and runs: the ledger, the executions, the SSM parameters.

        `batch-transform status --pipeline <id>` needs no more. It also sees the names of the
        account's transform jobs, of which SageMaker lists all or none. Not the jobs' logs, which
        lie in one group with those of every job of the account.
        """
        pipeline = self._pipeline
        place = place_of(pipeline)
        ledger = pipeline.ledger.table.table_arn
        self._allow(
            grantee,
            allow(
                actions=[
                    "dynamodb:BatchGetItem",
                    "dynamodb:GetItem",
                    "dynamodb:Query",
                    "dynamodb:Scan",
                ],
                resources=[ledger, f"{ledger}/index/{QUEUE_INDEX}"],
            ),
            *table_key_use(pipeline.encryption_key, writes=False),
            allow(
                # How far a job is shows in how many outputs its run has.
                actions=["s3:ListBucket"],
                conditions={"StringLike": {"s3:prefix": f"{RUNS}*"}},
                resources=[pipeline.buckets.output.bucket_arn],
            ),
            allow(actions=["sagemaker:ListTransformJobs"], resources=["*"]),
            allow(actions=["states:ListExecutions"], resources=[pipeline.state_machine.ref]),
            allow(
                actions=["states:DescribeExecution", "states:GetExecutionHistory"],
                resources=[pipeline.run.executions_arn],
            ),
            allow(
                actions=["ssm:GetParameter", "ssm:GetParameters", "ssm:GetParametersByPath"],
                resources=[
                    place.arn("ssm", f"parameter/batch-transform/{pipeline.pipeline_id}{rest}")
                    for rest in ("", "/*")
                ],
            ),
        )

    def redrive(self, grantee: iam.IGrantable) -> None:
        """Let `grantee` have failed drops tried again, and see what `watch` shows.

        It asks intake for that by its queue, like `backfill`, and writes nothing to the ledger.
        Dead letters move back to the queue that they came from and to no other.
        """
        self.watch(grantee)
        pipeline = self._pipeline
        queues = [pipeline.intake.queue, pipeline.wake_ups.queue]
        self._allow(
            grantee,
            allow(
                actions=["sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage"],
                resources=[queue.dead_letters_arn for queue in queues],
            ),
            allow(
                actions=["sqs:GetQueueAttributes", "sqs:SendMessage"],
                resources=[queue.arn for queue in queues],
            ),
            *(
                []
                if pipeline.encryption_key is None
                else [key_use(pipeline.encryption_key, "kms:Decrypt", "kms:GenerateDataKey")]
            ),
        )

    def stop(self, grantee: iam.IGrantable) -> None:
        """Let `grantee` stop runs in flight, and see what `watch` shows."""
        self.watch(grantee)
        self._allow(
            grantee,
            allow(actions=["states:StopExecution"], resources=[self._pipeline.run.executions_arn]),
        )

    def score(self, role: iam.IGrantable, *, step: str | None = None) -> None:
        """Let the role of a model read what its step reads and write what it writes.

        For models that exist already, and for one made with a `role` of yours, which is also let
        read its artifacts and pull its images.

        :param step: the name of the step whose model has this role. Default: all steps.
        :raises ValueError: there is no such step.
        """
        pipeline = self._pipeline
        names = [each.name for each in pipeline.steps]
        if step is not None and step not in names:
            raise ValueError(
                f"step must be one of {', '.join(names)}, got {step!r}; correct it, or leave it out"
            )
        for each in pipeline.steps:
            if step in (None, each.name):
                self._allow(
                    role,
                    *each.model.statements,
                    *scoring_statements(
                        pipeline,
                        data=pipeline.buckets.job_data(each.place),
                        settings=each.settings,
                    ),
                )

    def _allow(self, grantee: iam.IGrantable, *statements: Statement) -> None:
        _allow(self._pipeline, grantee, statements)


class TransformTaskGrants:
    """Permissions that others ask of a `TransformTask`; see `TransformTask.grants`."""

    def __init__(self, scope: Construct, scoring: Sequence[Statement]) -> None:
        self._scope = scope
        self._scoring = scoring

    def score(self, role: iam.IGrantable) -> None:
        """Let the role of an existing model read the task's source and write its outputs.

        :raises ValueError: it can have no policy, or is of another account.
        """
        _allow(self._scope, role, self._scoring)


def _allow(scope: Construct, grantee: iam.IGrantable, statements: Iterable[Statement]) -> None:
    principal = grantee.grant_principal
    here, there = place_of(scope).account, principal.principal_account
    known = there is not None and not (Token.is_unresolved(here) or Token.is_unresolved(there))
    if known and here != there:
        raise ValueError(
            f"a grantee must be of the pipeline's account {here}, got one of {there}; "
            "let it assume a role there and grant to that"
        )
    for statement in statements:
        cdk_statement = iam.PolicyStatement.from_json(statement)
        if not principal.add_to_principal_policy(cdk_statement).statement_added:
            raise ValueError(
                "a grantee must be a role or user that policies can be attached to, got "
                f"{type(principal).__name__}; let it assume a role and grant to that"
            )
