"""One pipeline with everything that has a part, synthesized without CDK's own validation."""

import os
from pathlib import Path
from typing import Any

# aws_cdk reads these when it is imported.
os.environ["CDK_VALIDATION"] = "false"
os.environ["JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION"] = "20"

import pytest
from aws_cdk import App, Stack

from batch_transform import (
    BatchTransform,
    DataProcessing,
    JoinSource,
    PredictionIndex,
    TransformModel,
    TransformSettings,
)

LAMBDAS = Path(__file__).resolve().parents[2] / "lambdas" / "transform_lambdas"


@pytest.fixture(scope="session")
def lambdas() -> Path:
    """Where the code of the functions lies."""
    return LAMBDAS


@pytest.fixture(scope="session")
def template() -> dict[str, Any]:
    """The template of an indexed pipeline called `churn`."""
    app = App()
    BatchTransform(
        Stack(app, "Scoring"),
        "Churn",
        model=TransformModel.from_model_name("churn-v1"),
        instance_type="ml.m5.large",
        settings=TransformSettings.csv(
            data_processing=DataProcessing(
                input_filter="$[1:]", output_filter="$[0,-1]", join_source=JoinSource.INPUT
            )
        ),
        index=PredictionIndex(record_id=0),
        pipeline_id="churn",
    )
    synthesized: dict[str, Any] = app.synth().get_stack_by_name("Scoring").template
    return synthesized


@pytest.fixture(scope="session")
def functions(template: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The properties of each function by the module of its handler."""
    found = {}
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::Lambda::Function":
            properties = resource["Properties"]
            found[properties["Handler"].split(".")[1]] = properties
    return found
