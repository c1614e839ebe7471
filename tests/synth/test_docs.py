"""The examples in docs/, as they stand there."""

import re
from pathlib import Path

from aws_cdk import App, Stack

from batch_transform import BatchTransform, TransformModel
from batch_transform.pipelines_file import ModelEntry, PipelineEntry, define_pipelines

DOCS = Path(__file__).resolve().parents[2] / "docs"


def block(document: str, language: str) -> str:
    """The only block of code of that language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", (DOCS / document).read_text(), re.M | re.S)
    return str(found)


def test_the_documented_file_deploys_each_pipeline_in_each_account(tmp_path: Path) -> None:
    for name in ("build/model/model.json", "image/Dockerfile"):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text("{}")
    file = tmp_path / "pipelines.yaml"
    file.write_text(block("pipelines-file.md", "yaml"))
    app = App(analytics_reporting=False)

    define_pipelines(app, file)

    assert {stack.stack_name for stack in app.synth().stacks_recursively} == {
        "Test-Churn",
        "Test-Fraud",
        "Prod-Churn",
        "Prod-Fraud",
    }


def test_every_member_of_the_file_is_documented() -> None:
    text = (DOCS / "pipelines-file.md").read_text()

    members = {*PipelineEntry.model_fields, *ModelEntry.model_fields}
    assert [name for name in sorted(members) if name not in text] == []


def test_the_documented_alarms_are_three() -> None:
    app = App(analytics_reporting=False)
    stack = Stack(app, "Scoring")
    pipeline = BatchTransform(
        stack,
        "Churn",
        model=TransformModel.from_model_name("churn"),
        instance_type="ml.m5.large",
    )

    exec(block("operating.md", "python"), {"pipeline": pipeline, "stack": stack})

    resources = app.synth().get_stack_by_name("Scoring").template["Resources"].values()
    alarms = [part for part in resources if part["Type"] == "AWS::CloudWatch::Alarm"]
    assert len(alarms) == 3


def test_every_link_and_file_that_the_documents_name_is_there() -> None:
    for document in DOCS.glob("*.md"):
        links = re.findall(r"\]\(([^)#:]+)\)", document.read_text())
        assert [link for link in links if not (document.parent / link).exists()] == []
