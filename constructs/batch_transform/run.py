"""The state machine of a run as a resource: definition, role, logs, tracing."""

import json
from collections.abc import Sequence

from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct

from batch_transform.bound_model import volume_key_statements
from batch_transform.buckets import TransformBuckets
from batch_transform.deployed import place_of
from batch_transform.encryption import state_machine_key_use
from batch_transform.functions import TransformFunction, vended_log_group
from batch_transform.job_policy import create_statement, follow_statements
from batch_transform.model_parameter import read_statements
from batch_transform.quantities import Duration
from batch_transform.request import job_request
from batch_transform.settle import transform_jobs_arn
from batch_transform.state_machine import (
    EVENT_SOURCE,
    StepTask,
    instance_type_of,
    job_name,
    run_definition,
    run_uri,
)
from batch_transform.statements import Statement, allow, own_policy
from batch_transform.steps import BoundStep


class Run(Construct):
    """One execution is one run: one batch through each step, settled and announced."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        pipeline_id: str,
        buckets: TransformBuckets,
        steps: Sequence[BoundStep],
        run_timeout: Duration | None,
        settle: TransformFunction,
        counts_records: bool,
        index: TransformFunction | None,
        log_retention: logs.RetentionDays,
        encryption_key: kms.IKey | None,
    ) -> None:
        super().__init__(scope, construct_id)
        logs_arn = vended_log_group(
            self,
            "states",
            pipeline_id=pipeline_id,
            retention=log_retention,
            encryption_key=encryption_key,
        )
        functions = [settle] if index is None else [settle, index]
        parameters = [step.model.parameter for step in steps if step.model.parameter]
        statements = [
            *(
                create_statement(
                    transform_jobs_arn(self, pipeline_id, of=f"-s{step.place.number}-"),
                    model_arns=step.model.arns,
                    instance_types=step.instance_types,
                )
                for step in steps
            ),
            *follow_statements(self, transform_jobs_arn(self, pipeline_id)),
            *(statement for step in steps for statement in volume_key_statements(step.settings)),
            allow(
                actions=["lambda:InvokeFunction"],
                resources=[function.function_arn for function in functions],
            ),
            *read_statements(parameters),
            self._announce_statement(),
            *_watch_statements(),
            *([] if encryption_key is None else state_machine_key_use(self, encryption_key)),
        ]
        self.role = iam.Role(
            self,
            "Role",
            assumed_by=iam.ServicePrincipal(
                "states.amazonaws.com",
                conditions={"StringEquals": {"aws:SourceAccount": place_of(self).account}},
            ),
            description=f"What a run of the batch transform pipeline {pipeline_id} may do",
            inline_policies=own_policy(statements),
        )
        definition = run_definition(
            pipeline_id=pipeline_id,
            steps=[_task(step, buckets.output_name) for step in steps],
            settle_function_arn=settle.function_arn,
            counts_records=counts_records,
            index_function_arn=None if index is None else index.function_arn,
            model_parameters=parameters,
            run_timeout_s=None if run_timeout is None else int(run_timeout.to_seconds()),
        )
        self.state_machine = sfn.CfnStateMachine(
            self,
            "StateMachine",
            definition_string=json.dumps(definition),
            encryption_configuration=None
            if encryption_key is None
            else sfn.CfnStateMachine.EncryptionConfigurationProperty(
                type="CUSTOMER_MANAGED_KMS_KEY", kms_key_id=encryption_key.key_arn
            ),
            logging_configuration=sfn.CfnStateMachine.LoggingConfigurationProperty(
                destinations=[
                    sfn.CfnStateMachine.LogDestinationProperty(
                        cloud_watch_logs_log_group=(
                            sfn.CfnStateMachine.CloudWatchLogsLogGroupProperty(
                                log_group_arn=logs_arn
                            )
                        )
                    )
                ],
                # A job's cause and counts would be in the data; the ledger has them already.
                include_execution_data=False,
                level="ALL",
            ),
            role_arn=self.role.role_arn,
            state_machine_type="STANDARD",
            tracing_configuration=sfn.CfnStateMachine.TracingConfigurationProperty(enabled=True),
        )
        self.state_machine_arn = self.state_machine.ref
        self.executions_arn = place_of(self).arn(
            "states", f"execution:{self.state_machine.attr_name}:*"
        )

    def _announce_statement(self) -> Statement:
        return allow(
            actions=["events:PutEvents"],
            conditions={"StringEquals": {"events:source": EVENT_SOURCE}},
            resources=[place_of(self).arn("events", "event-bus/default")],
        )


def _task(step: BoundStep, bucket_name: str) -> StepTask:
    count = step.instance_count
    request = job_request(
        step.settings,
        model_name=step.model.name,
        instance_type=instance_type_of(step.instance_types),
        instance_count=count if isinstance(count, int) else count.to_jsonata(),
        job_name=job_name(step.place.number),
        input_uri=run_uri(bucket_name, step.place.manifest),
        output_uri=run_uri(bucket_name, step.place.folder),
    )
    return StepTask(
        request=request,
        instance_types=len(step.instance_types),
        timeout_s=int(step.job_timeout.to_seconds()),
    )


def _watch_statements() -> list[Statement]:
    """Return what logs and traces need; neither can be narrowed to a resource."""
    return [
        allow(
            actions=[
                "logs:CreateLogDelivery",
                "logs:DeleteLogDelivery",
                "logs:DescribeLogGroups",
                "logs:DescribeResourcePolicies",
                "logs:GetLogDelivery",
                "logs:ListLogDeliveries",
                "logs:PutResourcePolicy",
                "logs:UpdateLogDelivery",
            ],
            resources=["*"],
        ),
        allow(
            actions=[
                "xray:GetSamplingRules",
                "xray:GetSamplingTargets",
                "xray:PutTelemetryRecords",
                "xray:PutTraceSegments",
            ],
            resources=["*"],
        ),
    ]
