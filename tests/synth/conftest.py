"""Synthesis of one pipeline with nothing on, and of one with everything on."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

# aws_cdk reads these when it is imported; its own validation costs 4 CPU seconds a template.
os.environ["CDK_VALIDATION"] = "false"
os.environ["JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION"] = "20"

import pytest
from aws_cdk import App, Duration, Size, Stack, TimeZone
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sns as sns
from aws_cdk.aws_scheduler import ScheduleExpression

from batch_transform import (
    BatchPolicy,
    BatchStrategy,
    BatchTransform,
    CompressionType,
    DataCapture,
    DataProcessing,
    Experiment,
    JoinSource,
    ModelClientConfig,
    Monitoring,
    PredictionIndex,
    TransformModel,
    TransformSettings,
    Uploads,
)
from tests.examples.programs import APPS
from tests.examples.programs import synthesize as synthesize_example

ROOT = Path(__file__).resolve().parents[2]

Template = dict[str, Any]
Define = Callable[[Stack], object]


@pytest.fixture(scope="session")
def model_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what `from_artifact` takes: `model` and `image`."""
    folder = tmp_path_factory.mktemp("churn")
    (folder / "model").mkdir()
    (folder / "model" / "model.json").write_text('{"weights": [1, 2]}')
    (folder / "image").mkdir()
    (folder / "image" / "Dockerfile").write_text("FROM scratch\n")
    (folder / "image" / "serve").write_text("#!/bin/sh\n")
    return folder


@pytest.fixture(scope="session")
def new_stack() -> Callable[[], Stack]:
    """A stack as `cdk synth` would have it: with the flags of cdk.json."""
    context = json.loads((ROOT / "cdk.json").read_text())["context"]

    def make() -> Stack:
        return Stack(App(context=context, analytics_reporting=False), "Scoring")

    return make


@pytest.fixture(scope="session")
def synthesize(new_stack: Callable[[], Stack]) -> Callable[[Define], Template]:
    """Define something in a new stack and return the stack's template."""

    def run(define: Define) -> Template:
        stack = new_stack()
        define(stack)
        assembly = App.of(stack).synth()  # type: ignore[union-attr]
        template: Template = assembly.get_stack_by_name(stack.stack_name).template
        return template

    return run


@pytest.fixture(scope="session")
def nothing_on(model_files: Path) -> Callable[[Stack], BatchTransform]:
    """The pipeline with what has no default, and no more."""

    def define(stack: Stack) -> BatchTransform:
        return BatchTransform(
            stack,
            "Churn",
            model=TransformModel.from_artifact(model_files / "model", model_files / "image"),
            instance_type="ml.m5.large",
        )

    return define


@pytest.fixture(scope="session")
def everything_on(model_files: Path) -> Callable[[Stack], BatchTransform]:
    """The pipeline with every option that does not exclude another."""

    def define(stack: Stack) -> BatchTransform:
        key = kms.Key.from_key_arn(
            stack,
            "Key",
            "arn:aws:kms:eu-west-1:111122223333:key/1234-abcd",
        )
        captured = s3.Bucket.from_bucket_name(stack, "Captured", "captured")
        settings = TransformSettings(
            content_type="text/csv",
            accept="text/csv",
            compression_type=CompressionType.GZIP,
            batch_strategy=BatchStrategy.MULTI_RECORD,
            max_payload=Size.mebibytes(6),
            max_concurrent_transforms=4,
            model_client=ModelClientConfig(
                invocations_timeout=Duration.minutes(5), invocations_max_retries=1
            ),
            data_processing=DataProcessing(
                input_filter="$[1:]", output_filter="$[0,-1]", join_source=JoinSource.INPUT
            ),
            environment={"LOG_LEVEL": "info"},
            data_capture=DataCapture(
                bucket=captured, prefix="capture/", key=key, generate_inference_id=True
            ),
            experiment=Experiment(
                experiment_name="churn",
                trial_name="autumn",
                trial_component_display_name="score",
                run_name="nightly",
            ),
            output_key=key,
            volume_key=key,
            ami_version="al2-ami-sagemaker-batch-gpu-535",
            tags={"team": "growth"},
        )
        pipeline = BatchTransform(
            stack,
            "Churn",
            model=TransformModel.from_artifact(
                model_files / "model",
                "763104351884.dkr.ecr.eu-west-1.amazonaws.com/pytorch-inference:2.6-cpu",
                environment={"TS_WORKERS": "2"},
                network_isolation=True,
            ),
            instance_type="ml.m5.xlarge",
            instance_count=3,
            settings=settings,
            index=PredictionIndex(record_id=0, retention=Duration.days(90)),
            batch=BatchPolicy(
                max_wait=Duration.minutes(10),
                max_objects=50,
                max_bytes=Size.gibibytes(1),
                marker="_SUCCESS",
            ),
            uploads=Uploads(
                prefix="drops/",
                suffix=[".csv.gz", ".csv.gzip"],
                min_size=Size.bytes(1),
                max_size=Size.gibibytes(1),
            ),
            schedule=ScheduleExpression.cron(
                hour="2", minute="0", time_zone=TimeZone.EUROPE_BERLIN
            ),
            max_concurrent_runs=5,
            max_attempts=2,
            max_failed_fraction=0.2,
            job_timeout=Duration.hours(6),
            encryption_key=key,
            monitoring=Monitoring(
                topic=sns.Topic.from_topic_arn(
                    stack, "OnCall", "arn:aws:sns:eu-west-1:111122223333:on-call"
                ),
                longest_wait=Duration.hours(8),
            ),
            pipeline_id="churn",
        )
        someone = iam.Role(stack, "Someone", assumed_by=iam.AccountRootPrincipal())
        pipeline.grants.drop(someone)
        pipeline.grants.backfill(someone)
        pipeline.grants.read(someone)
        pipeline.grants.lookup(someone)
        pipeline.grants.redrive(someone)
        pipeline.grants.stop(someone)
        pipeline.on_run_failed("RunFailed")
        return pipeline

    return define


@pytest.fixture(scope="session")
def templates(
    nothing_on: Define, everything_on: Define, synthesize: Callable[[Define], Template]
) -> dict[str, Template]:
    """The templates that every rule has to hold for: both extremes, and each example's."""
    found = {"nothing_on": synthesize(nothing_on), "everything_on": synthesize(everything_on)}
    for example in APPS:
        for path in synthesize_example(example).glob("*.template.json"):
            found[f"{example.name}-{path.name.partition('.')[0]}"] = json.loads(path.read_text())
    return found
