"""The construct: a file in S3 becomes its predictions in S3."""

import json
from collections.abc import Sequence

from aws_cdk import RemovalPolicy
from aws_cdk import aws_events as events
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_scheduler as scheduler
from aws_cdk import aws_sqs as sqs
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct

from batch_transform.bound_model import bind_model
from batch_transform.buckets import TransformBuckets
from batch_transform.deletion import Deletion
from batch_transform.discovery import Discovery
from batch_transform.dispatch import Dispatch
from batch_transform.encryption import let_services_use
from batch_transform.events import run_rule
from batch_transform.functions import TransformFunctions
from batch_transform.grants import BatchTransformGrants
from batch_transform.index import Index
from batch_transform.intake import Intake
from batch_transform.ledger import Ledger
from batch_transform.lookup import Lookup
from batch_transform.metrics import BatchTransformMetrics
from batch_transform.model import TransformModel
from batch_transform.monitoring import Alarms, draw
from batch_transform.monitoring_policy import Monitoring
from batch_transform.names import derived_name
from batch_transform.networks import FunctionsVpc
from batch_transform.places import PREDICTIONS, StepPlace
from batch_transform.plan import PIPELINE_ID_LENGTH, plan_pipeline
from batch_transform.plan_advice import plan_advice
from batch_transform.policy import BatchPolicy
from batch_transform.prediction_index import PredictionIndex
from batch_transform.quantities import Duration
from batch_transform.record_checks import record_checks
from batch_transform.run import Run
from batch_transform.settings import TransformSettings
from batch_transform.settle import Settle
from batch_transform.sharing import check_sharing
from batch_transform.steps import BoundStep, InstanceCount, TransformStep
from batch_transform.uploads import Uploads, uploads_told
from batch_transform.wake import WakeUps
from batch_transform.warnings import warn


class BatchTransform(Construct):
    """Scores every object dropped under a prefix with a SageMaker model, or with several in turn.

    Drops that arrive together become one run: one execution of the state machine, which runs one
    transform job for each step. The predictions of `input/a.csv` appear at
    `predictions/input/a.csv.out`.

        pipeline = BatchTransform(
            self,
            "Churn",
            model=TransformModel.from_artifact("build/model", "image"),
            instance_type="ml.m5.large",
            settings=TransformSettings.csv(),
        )
        pipeline.grants.drop(uploader)

    :param model: what scores. Default: `steps` say.
    :param instance_type: of the transform jobs, such as `ml.m5.large`. Of several, the next one is
        taken when SageMaker has no capacity for one. Default: `steps` say.
    :param instance_count: machines per job; one object is scored by one machine. Default: 1.
    :param settings: how records are cut, filtered, joined and assembled. Default: JSON Lines.
    :param steps: models that follow each other, each as a transform job of its own, in place of
        the four parameters above. Each step reads what the one before it has written.
    :param index: makes predictions findable by record id through an HTTP API. Default: none.
    :param batch: when waiting drops become a run. Default: `BatchPolicy()`.
    :param input_bucket: where drops arrive. One of yours must send its events to EventBridge:
        `event_bridge_enabled=True`, or in the console "Amazon EventBridge: On", which CDK cannot
        see of a bucket that exists already, and so warns of; without it no upload starts a run.
        The `output_bucket` of another pipeline does, so that one may score what another predicts.
        If a KMS key encrypts it, import it with `encryption_key`, or nothing may read it.
        Default: a new, private, versioned bucket.
    :param output_bucket: where predictions, reports and the files of runs appear. In one of
        yours, expire `runs/` by a lifecycle rule. Default: a new, private, versioned bucket.
    :param uploads: which objects of the input bucket are drops. Default: all under `input/`.
    :param schedule: when to take as drops what lies under the prefix and is none yet, such as
        `ScheduleExpression.cron(hour="2", minute="0")`. Default: never, but for backfills that are
        asked for by hand.
    :param output_prefix: where the last step's outputs appear in the output bucket; ends with `/`.
        Name it after what they are when they are no predictions, such as `features/`.
    :param max_concurrent_runs: transform jobs in flight; mind the account's quota.
    :param max_attempts: at scoring a drop before it ends as failed. What counts as one, the page
        `docs/operating.md` says.
    :param max_failed_fraction: when more than this fraction of a batch of ten drops or more comes
        out without predictions, none of those is tried again; 0 to below 1, such as 0.2.
        Default: each is tried again, in halves of the batch, until it is known which is bad.
    :param check_records: where the format allows it, a drop fails when fewer predictions come out
        than records went in, instead of being done. `False` for a model that leaves some out.
    :param job_timeout: a job that takes longer is stopped, unless its step says otherwise.
        Default: 1 day.
    :param run_timeout: a run that takes longer, with all its steps and its waits for instances, is
        stopped and settled as it stands. Default: none.
    :param encryption_key: encrypts all that the pipeline keeps: own buckets, tables, queues, logs,
        the functions' environment, the state machine, and the outputs and volumes of jobs that
        name no key. A bucket of yours keeps its own. Default: keys of the services.
    :param functions_vpc: where the functions run. Default: in no VPC of yours.
    :param access_logs: a bucket of yours, in the same account and region, into which S3 writes who
        has read and changed what in the pipeline's own buckets, under `<pipeline_id>/input/` and
        `<pipeline_id>/output/`. Default: no access logs.
    :param monitoring: alarms, and a row of the stack's dashboard. Default: `Monitoring()`.
    :param removal_policy: what becomes of buckets and tables when the stack is deleted.
    :param log_retention: of the functions', the state machine's and the API's logs.
    :param pipeline_id: names the pipeline in runs, jobs, metrics and parameters: lower case, at
        most 28 characters, one of its kind in account and region. Default: from the construct's
        path, so that it stays as long as the construct is not moved.
    :raises ValueError: something that the service, or a run, would refuse.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        model: TransformModel | None = None,
        instance_type: str | Sequence[str] | None = None,
        instance_count: int | InstanceCount | None = None,
        settings: TransformSettings | None = None,
        steps: Sequence[TransformStep] | None = None,
        index: PredictionIndex | None = None,
        batch: BatchPolicy | None = None,
        input_bucket: s3.IBucket | None = None,
        output_bucket: s3.IBucket | None = None,
        uploads: Uploads | None = None,
        schedule: scheduler.ScheduleExpression | None = None,
        output_prefix: str = PREDICTIONS,
        max_concurrent_runs: int = 2,
        max_attempts: int = 3,
        max_failed_fraction: float | None = None,
        check_records: bool = True,
        job_timeout: Duration | None = None,
        run_timeout: Duration | None = None,
        encryption_key: kms.IKey | None = None,
        functions_vpc: FunctionsVpc | None = None,
        access_logs: s3.IBucket | None = None,
        monitoring: Monitoring | None = None,
        removal_policy: RemovalPolicy = RemovalPolicy.RETAIN,
        log_retention: logs.RetentionDays = logs.RetentionDays.ONE_MONTH,
        pipeline_id: str | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        plan = plan_pipeline(
            model=model,
            instance_type=instance_type,
            instance_count=instance_count,
            settings=settings,
            steps=steps,
            index=index,
            batch=batch,
            uploads=uploads,
            output_prefix=output_prefix,
            max_concurrent_runs=max_concurrent_runs,
            max_attempts=max_attempts,
            max_failed_fraction=max_failed_fraction,
            job_timeout=job_timeout,
            run_timeout=run_timeout,
            encryption_key=encryption_key,
            monitoring=monitoring,
            pipeline_id=pipeline_id,
        )
        chain, settings, batch, uploads = plan.steps, plan.settings, plan.batch, plan.uploads
        warn(self, plan_advice(plan))
        if encryption_key is not None:
            let_services_use(self, encryption_key)
        self.pipeline_id = pipeline_id or derived_name(self, length=PIPELINE_ID_LENGTH)
        self.encryption_key = encryption_key
        self.buckets = TransformBuckets(
            self,
            "Buckets",
            pipeline_id=self.pipeline_id,
            input_bucket=input_bucket,
            output_bucket=output_bucket,
            uploads=uploads,
            output_prefix=output_prefix,
            encryption_key=encryption_key,
            jobs_keys=[step.settings.output_key for step in chain if step.settings.output_key],
            access_logs=access_logs,
            removal_policy=removal_policy,
        )
        check_sharing(
            self,
            pipeline_id=self.pipeline_id,
            buckets=self.buckets,
            uploads=uploads,
            captures=[step.settings.data_capture for step in chain if step.settings.data_capture],
        )
        self.steps = self._bind(chain, plan.job_timeout)
        functions = TransformFunctions(
            self,
            pipeline_id=self.pipeline_id,
            log_retention=log_retention,
            encryption_key=encryption_key,
            vpc=functions_vpc,
        )
        self.ledger = Ledger(
            self, "Ledger", encryption_key=encryption_key, removal_policy=removal_policy
        )
        self.wake_ups = WakeUps(
            self, "WakeUps", pipeline_id=self.pipeline_id, encryption_key=encryption_key
        )
        self.intake = Intake(
            self,
            "Intake",
            pipeline_id=self.pipeline_id,
            buckets=self.buckets,
            uploads=uploads,
            schedule=schedule,
            batch=batch,
            ledger=self.ledger,
            wake_ups=self.wake_ups,
            encryption_key=encryption_key,
            functions=functions,
        )
        checks = record_checks((step.settings for step in self.steps), wanted=check_records)
        self.settle = Settle(
            self,
            "Settle",
            pipeline_id=self.pipeline_id,
            buckets=self.buckets,
            ledger=self.ledger,
            uploads=self.intake.queue,
            wake_ups=self.wake_ups,
            steps=[step.name for step in self.steps],
            model_arns=list(dict.fromkeys(arn for step in self.steps for arn in step.model.arns)),
            record_checks=checks,
            max_attempts=max_attempts,
            max_failed_fraction=max_failed_fraction,
            indexed=index is not None,
            functions=functions,
        )
        self.index: Index | None = None
        self.lookup: Lookup | None = None
        if index is not None:
            self.index = Index(
                self,
                "Index",
                pipeline_id=self.pipeline_id,
                index=index,
                settings=settings,
                buckets=self.buckets,
                encryption_key=encryption_key,
                removal_policy=removal_policy,
                functions=functions,
            )
            self.lookup = Lookup(
                self,
                "Lookup",
                pipeline_id=self.pipeline_id,
                index=self.index,
                log_retention=log_retention,
                encryption_key=encryption_key,
                functions=functions,
            )
        self.run = Run(
            self,
            "Run",
            pipeline_id=self.pipeline_id,
            buckets=self.buckets,
            steps=self.steps,
            run_timeout=run_timeout,
            settle=self.settle.function,
            counts_records=any(json.loads(checks)),
            index=self.index.function if self.index else None,
            log_retention=log_retention,
            encryption_key=encryption_key,
        )
        self.deletion = Deletion(
            self, "Deletion", pipeline_id=self.pipeline_id, run=self.run, functions=functions
        )
        self.dispatch = Dispatch(
            self,
            "Dispatch",
            pipeline_id=self.pipeline_id,
            buckets=self.buckets,
            ledger=self.ledger,
            wake_ups=self.wake_ups,
            run=self.run,
            deletion=self.deletion,
            batch=batch,
            max_concurrent_runs=max_concurrent_runs,
            functions=functions,
        )
        self.grants = BatchTransformGrants(self)
        self.metrics = BatchTransformMetrics(
            self.pipeline_id,
            state_machine_arn=self.run.state_machine_arn,
            dead_letters=self.dead_letters,
        )
        self.alarms: Alarms | None = None
        if plan.monitoring.alarms:
            self.alarms = Alarms(
                self,
                "Alarms",
                pipeline_id=self.pipeline_id,
                metrics=self.metrics,
                longest_wait_s=plan.longest_wait_s,
                topic=plan.monitoring.topic,
            )
        if plan.monitoring.dashboard:
            draw(
                self,
                pipeline_id=self.pipeline_id,
                state_machine_arn=self.run.state_machine_arn,
                dead_letter_names=[queue.queue_name for queue in self.dead_letters],
                indexed=index is not None,
            )
        settings_told = {
            "input-prefix": self.buckets.input_prefix,
            "max-concurrent-runs": max_concurrent_runs,
            **uploads_told(uploads, marker=batch.marker),
        }
        Discovery(
            self,
            "Discovery",
            pipeline_id=self.pipeline_id,
            facts=self._facts(),
            settings=settings_told,
        )

    @property
    def input_bucket(self) -> s3.IBucket:
        """Where drops arrive."""
        return self.buckets.input

    @property
    def output_bucket(self) -> s3.IBucket:
        """Where predictions appear."""
        return self.buckets.output

    @property
    def state_machine(self) -> sfn.CfnStateMachine:
        """What a run is an execution of."""
        return self.run.state_machine

    @property
    def dead_letters(self) -> list[sqs.IQueue]:
        """Where uploads and wake-ups go that were received in vain."""
        return [self.intake.queue.dead_letters, self.wake_ups.queue.dead_letters]

    def on_run_completed(
        self,
        construct_id: str,
        *,
        target: events.IRuleTarget | None = None,
        description: str | None = None,
    ) -> events.Rule:
        """Let `target` know of every run whose every drop is done."""
        return self._on_run("Completed", construct_id, target, description)

    def on_run_partially_completed(
        self,
        construct_id: str,
        *,
        target: events.IRuleTarget | None = None,
        description: str | None = None,
    ) -> events.Rule:
        """Let `target` know of every run of which some drops are done, and others are not."""
        return self._on_run("PartiallyCompleted", construct_id, target, description)

    def on_run_failed(
        self,
        construct_id: str,
        *,
        target: events.IRuleTarget | None = None,
        description: str | None = None,
    ) -> events.Rule:
        """Let `target` know of every run of which no drop is done.

        Its drops may wait for another run still; `metrics.drops_failed` counts those given up.
        """
        return self._on_run("Failed", construct_id, target, description)

    def _on_run(
        self,
        outcome: str,
        construct_id: str,
        target: events.IRuleTarget | None,
        description: str | None,
    ) -> events.Rule:
        return run_rule(
            self,
            construct_id,
            pipeline_id=self.pipeline_id,
            outcome=outcome,
            target=target,
            description=description,
        )

    def _bind(self, chain: Sequence[TransformStep], job_timeout: Duration) -> tuple[BoundStep, ...]:
        bound = []
        for number, step in enumerate(chain, start=1):
            place = StepPlace(number, of=len(chain))
            model = bind_model(
                Construct(self, "Model" if len(chain) == 1 else f"Model-{step.name}"),
                step.model,
                data=self.buckets.job_data(place),
                settings=step.settings,
            )
            bound.append(
                BoundStep(
                    place=place,
                    name=step.name,
                    model=model,
                    instance_types=step.instance_types,
                    instance_count=step.instance_count,
                    settings=step.settings,
                    job_timeout=step.job_timeout or job_timeout,
                )
            )
        return tuple(bound)

    def _facts(self) -> dict[str, str]:
        facts = {
            "input-bucket": self.buckets.input_name,
            "intake-queue-url": self.intake.queue.url,
            "output-bucket": self.buckets.output_name,
            "ledger-table": self.ledger.table_name,
            "state-machine-arn": self.run.state_machine_arn,
            "wake-queue-url": self.wake_ups.queue.url,
        }
        if self.lookup is not None and self.index is not None:
            facts["api-url"] = self.lookup.url
            facts["predictions-table"] = self.index.table_name
        return facts
