from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from aws_cdk import App, Stack, Stage

from batch_transform.pipelines_file import PipelinesFileError, define_pipelines

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Write `pipelines.yaml` beside a model `m` and an image `i`."""
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.json").write_text("{}")
    (tmp_path / "i").mkdir()
    (tmp_path / "i" / "Dockerfile").write_text("FROM scratch\n")

    def run(text: str) -> Path:
        path = tmp_path / "pipelines.yaml"
        path.write_text(text)
        return path

    return run


CHURN = """\
pipelines:
  Churn:
    model: {name: churn-v1}
    instance_type: ml.m5.large
"""


def synthesized(path: Path) -> dict[str, Any]:
    app = App(analytics_reporting=False)
    define_pipelines(app, path)
    return {stack.stack_name: stack.template for stack in app.synth().stacks_recursively}


def variables(template: dict[str, Any], module: str) -> dict[str, Any]:
    (function,) = [
        resource["Properties"]
        for resource in template["Resources"].values()
        if resource.get("Properties", {}).get("Handler") == f"transform_lambdas.{module}.handle"
    ]
    return dict(function["Environment"]["Variables"])


def test_what_the_file_leaves_out_has_the_library_s_default(write: Callable[[str], Path]) -> None:
    (template,) = synthesized(write(CHURN)).values()

    assert variables(template, "dispatch")["MAX_WAIT_S"] == "60"
    assert template["Outputs"]["InputPrefix"]["Value"] == "input/"


def test_every_member_reaches_the_pipeline(write: Callable[[str], Path]) -> None:
    path = write("""\
pipelines:
  Churn:
    model: {artifact: m, image: i, environment: {A: b}, network_isolation: true}
    instance_type: ml.m5.xlarge
    instance_count: 2
    settings:
      csv:
        accept: text/csv
        compression_type: Gzip
        batch_strategy: MultiRecord
        max_payload_mib: 5
        max_concurrent_transforms: 2
        model_client: {invocations_timeout_s: 30, invocations_max_retries: 0}
        data_processing: {input_filter: "$[1:]", join_source: Input, output_filter: "$[0,-1]"}
        environment: {LOG: info}
        tags: {team: growth}
    index: {record_id: 0, retention_days: 9}
    batch: {max_wait_s: 3, max_objects: 7, max_bytes: 1000, marker: _SUCCESS}
    input_bucket: arrivals
    uploads: {prefix: drops/, suffix: .csv, max_bytes: 1000}
    schedule: rate(1 day)
    max_concurrent_runs: 4
    max_attempts: 5
    max_failed_fraction: 0.25
    check_records: false
    job_timeout_s: 600
    pipeline_id: churn
""")
    (template,) = synthesized(path).values()
    text = str(template)

    dispatch = variables(template, "dispatch")
    assert dispatch["PIPELINE_ID"] == "churn"
    assert dispatch["INPUT_BUCKET"] == "arrivals"
    assert (dispatch["MAX_WAIT_S"], dispatch["MAX_OBJECTS"]) == ("3", "7")
    assert (dispatch["MAX_BYTES"], dispatch["MARKER"]) == ("1000", "_SUCCESS")
    assert dispatch["MAX_CONCURRENT_RUNS"] == "4"
    intake = variables(template, "intake")
    assert (intake["INPUT_PREFIX"], intake["INPUT_SUFFIXES"]) == ("drops/", '[".csv"]')
    assert (intake["MIN_DROP_BYTES"], intake["MAX_DROP_BYTES"]) == ("", "1000")
    settle = variables(template, "settle")
    assert (settle["MAX_ATTEMPTS"], settle["MAX_FAILED_FRACTION"]) == ("5", "0.25")
    assert settle["RECORD_CHECKS"] == "[null]"
    assert variables(template, "index")["RETENTION_DAYS"] == "9"
    for rendered in (
        '"InvocationsTimeoutInSeconds": 30, "InvocationsMaxRetries": 0',
        '"InputFilter": "$[1:]", "OutputFilter": "$[0,-1]", "JoinSource": "Input"',
        '"CompressionType": "Gzip"',
        '"MaxPayloadInMB": 5',
        '"InstanceCount": 2',
        '"TimeoutSeconds": 600',
        "'ScheduleExpression': 'rate(1 day)'",
    ):
        assert rendered in text


def test_other_formats_are_their_factories(write: Callable[[str], Path]) -> None:
    path = write("""\
pipelines:
  Images:
    model: {name: resnet}
    instance_type: ml.g5.xlarge
    settings: {whole_files: {content_type: image/jpeg, accept: application/json}}
  Lines:
    model: {name: churn}
    instance_type: ml.m5.large
    settings: {json_lines: {}}
    index: {record_id: id}
""")
    templates = synthesized(path)

    assert '"ContentType": "image/jpeg", "SplitType": "None"' in str(templates["Images"])
    assert variables(templates["Lines"], "index")["RECORD_FORMAT"] == "jsonlines"


def test_each_account_gets_every_pipeline(write: Callable[[str], Path]) -> None:
    path = write(
        CHURN
        + """\
accounts:
  Test: {account: "111122223333", region: eu-west-1}
  Prod: {account: "444455556666", region: us-east-1}
"""
    )
    app = App()
    define_pipelines(app, path)

    stages = [child for child in app.node.children if Stage.is_stage(child)]
    environments = {
        stack.stack_name: (stack.account, stack.region)
        for stage in stages
        for stack in stage.node.children
        if isinstance(stack, Stack)
    }
    assert environments == {
        "Test-Churn": ("111122223333", "eu-west-1"),
        "Prod-Churn": ("444455556666", "us-east-1"),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            CHURN + "    instance_typ: x\n",
            "pipelines.yaml:5: pipelines.Churn.instance_typ: must be a member that exists, "
            "got 'instance_typ'; correct or remove it",
            id="unknown member",
        ),
        pytest.param(
            "pipelines:\n  Churn:\n    model: {name: a}\n",
            "pipelines.yaml:2: pipelines.Churn.instance_type: must be given, got nothing; add it",
            id="missing member",
        ),
        pytest.param(
            CHURN + "    max_attempts: many\n",
            "pipelines.yaml:5: pipelines.Churn.max_attempts: "
            "must be a valid integer, got 'many'; correct it",
            id="wrong type",
        ),
        pytest.param(
            CHURN + "accounts:\n  Prod: {account: 111122223333, region: eu-west-1}\n",
            "pipelines.yaml:6: accounts.Prod.account: "
            "must be a valid string, got 111122223333; put it in quotes",
            id="account without quotes",
        ),
        pytest.param(
            CHURN + "    instance_type: ml.m5.xlarge\n",
            "pipelines.yaml:5: pipelines.Churn: "
            "must have 'instance_type' once, got it twice; rename or remove one",
            id="member twice",
        ),
        pytest.param(
            CHURN + "    settings: {}\n",
            "pipelines.yaml:5: pipelines.Churn.settings: must have one of csv, json_lines, "
            "whole_files, got none; make a pipeline for each",
            id="no format",
        ),
        pytest.param(
            CHURN + "    settings: {csv: {data_processing: {join_source: input}}}\n",
            "pipelines.yaml:5: pipelines.Churn.settings.csv.data_processing.join_source: "
            "must be 'None' or 'Input', got 'input'; correct it",
            id="unknown value",
        ),
        pytest.param(
            CHURN.replace("{name: churn-v1}", "{name: a, artifact: m, image: i}"),
            "pipelines.yaml:3: pipelines.Churn.model: must have either name alone, or artifact "
            "and image, got artifact, image, name; leave one kind out",
            id="two kinds of model",
        ),
        pytest.param(
            CHURN + "    uploads:\n      prefix: in\n",
            "pipelines.yaml:6: pipelines.Churn: the prefix of uploads must end with '/' and not "
            "start with it, got 'in'; use 'in/', or objects beside it would be taken for drops",
            id="what the library refuses",
        ),
        pytest.param(
            CHURN + "    settings:\n      csv:\n        max_payload_mib: 200\n",
            "pipelines.yaml:7: pipelines.Churn: MaxPayloadInMB must be at most 100, got 200; "
            "lower it, or give 0 to send payloads of any size in chunks",
            id="what the service refuses, in its own words",
        ),
        pytest.param(
            CHURN + "    batch:\n      max_wait_s: -3\n",
            "pipelines.yaml:6: pipelines.Churn.batch.max_wait_s: "
            "must be greater than or equal to 0, got -3; correct it",
            id="less than nothing",
        ),
        pytest.param(
            CHURN + "    input_bucket: s3://arrivals/\n",
            "pipelines.yaml:5: pipelines.Churn.input_bucket: "
            "must be a bucket's plain name such as my-bucket, got 's3://arrivals/'; correct it",
            id="a bucket's URI",
        ),
        pytest.param(
            CHURN + "    schedule: daily\n",
            "pipelines.yaml:5: pipelines.Churn.schedule: "
            "must be a schedule such as rate(1 day), got 'daily'; correct it",
            id="no schedule",
        ),
        pytest.param(
            "pipelines:\n  Churn:\n",
            "pipelines.yaml:2: pipelines.Churn: "
            "must have members, got None; write them indented below it",
            id="an empty pipeline",
        ),
        pytest.param(
            "pipelines: {}\n",
            "pipelines.yaml:1: pipelines: must have a member, got none; add the first",
            id="an empty list of pipelines",
        ),
        pytest.param(
            CHURN.replace("Churn", "churn_v1"),
            "pipelines.yaml:2: pipelines.churn_v1: must be at most 64 letters, digits and "
            "hyphens, a letter first, got 'churn_v1'; correct it",
            id="a name that no stack can have",
        ),
        pytest.param(
            CHURN + "    instance_count: !!python/name:os.system x\n",
            "pipelines.yaml:5: must be YAML, got could not determine a constructor for the tag "
            "'tag:yaml.org,2002:python/name:os.system'; correct the line",
            id="a tag of Python's",
        ),
        pytest.param(
            "pipelines: \x01\n",
            "pipelines.yaml: must be text in UTF-8, got special characters are not allowed; "
            "save it again as UTF-8",
            id="a control character",
        ),
        pytest.param(
            CHURN.replace("Churn:", "Churn: &all")
            + "    uploads: {prefix: in/}\n  Other:\n    <<: *all\n    uploads: {prefix: in}\n",
            "pipelines.yaml:8: pipelines.Other: the prefix of uploads must end with '/' and not "
            "start with it, got 'in'; use 'in/', or objects beside it would be taken for drops",
            id="own member before a merged one",
        ),
        pytest.param(
            CHURN
            + "    input_bucket: arrivals\n"
            + "accounts:\n"
            + '  Test: {account: "111122223333", region: eu-west-1}\n'
            + '  Prod: {account: "444455556666", region: us-east-1}\n',
            "pipelines.yaml:5: pipelines.Churn.input_bucket: must not be given with 2 accounts, "
            "as a bucket is in one of them only, got 'arrivals'; leave it out, or make an app for "
            "each account",
            id="one bucket for two accounts",
        ),
        pytest.param(
            "pipelines: [\n",
            "pipelines.yaml:2: must be YAML, got expected the node content, "
            "but found '<stream end>'; correct the line",
            id="no YAML",
        ),
        pytest.param(
            "",
            "pipelines.yaml:1: must have the member pipelines, got none; add a first pipeline",
            id="empty",
        ),
        pytest.param(
            "accounts: {}\n",
            "pipelines.yaml:1: pipelines: must be given, got nothing; add it",
            id="no pipelines",
        ),
    ],
)
def test_fails_in_one_line_that_names_file_and_place(
    text: str, message: str, write: Callable[[str], Path]
) -> None:
    with pytest.raises(PipelinesFileError) as refused:
        synthesized(write(text))

    assert str(refused.value) == message


def test_fails_when_the_file_is_not_utf_8(write: Callable[[str], Path]) -> None:
    path = write(CHURN)
    path.write_bytes(CHURN.encode("utf-16"))

    with pytest.raises(PipelinesFileError, match=r"must be text in UTF-8, got .*; save it again"):
        synthesized(path)


def test_fails_when_the_artifact_is_not_built(write: Callable[[str], Path]) -> None:
    path = write(CHURN.replace("{name: churn-v1}", "{artifact: build/model, image: i}"))

    with pytest.raises(PipelinesFileError, match=r"Churn: artifact must be .*; run what trains"):
        synthesized(path)


def test_several_refusals_stay_on_one_line(write: Callable[[str], Path]) -> None:
    path = write(
        CHURN.replace("ml.m5.large", "ml.big")
        + "    settings: {csv: {max_concurrent_transforms: -1}}\n"
    )

    with pytest.raises(PipelinesFileError) as refused:
        synthesized(path)

    assert "InstanceType" in str(refused.value)
    assert "MaxConcurrentTransforms" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_fails_when_there_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(PipelinesFileError, match="create it with a first pipeline"):
        define_pipelines(App(), tmp_path / "pipelines.yaml")


def test_the_project_s_own_file_is_the_example() -> None:
    content = yaml.safe_load((ROOT / "pipelines.yaml").read_text())

    assert list(content["pipelines"]) == ["BreastCancer"]
