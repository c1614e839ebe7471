import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from aws_cdk import App, DefaultStackSynthesizer, Duration, Stack, Stage
from aws_cdk import aws_s3 as s3

from batch_transform import (
    BatchTransform,
    PredictionIndex,
    TransformModel,
    TransformSettings,
    Uploads,
)

Resources = dict[str, dict[str, Any]]
MODEL = TransformModel.from_model_name("churn")


@pytest.fixture(scope="module")
def template(
    synthesize: Callable[[Any], dict[str, Any]], everything_on: Callable[[Stack], BatchTransform]
) -> dict[str, Any]:
    return synthesize(everything_on)


@pytest.fixture(scope="module")
def plain(
    synthesize: Callable[[Any], dict[str, Any]], nothing_on: Callable[[Stack], BatchTransform]
) -> dict[str, Any]:
    return synthesize(nothing_on)


def of_type(template: dict[str, Any], resource_type: str) -> Resources:
    """The properties of all resources of a type by logical id."""
    return {
        name: resource.get("Properties", {})
        for name, resource in template["Resources"].items()
        if resource["Type"] == resource_type
    }


def test_one_resource_is_custom_and_no_function_is_but_the_six(template: dict[str, Any]) -> None:
    types = {resource["Type"] for resource in template["Resources"].values()}
    handlers = {f["Handler"] for f in of_type(template, "AWS::Lambda::Function").values()}

    assert [name for name in types if name.startswith(("Custom::", "AWS::CloudFormation::"))] == [
        "Custom::BatchTransformRuns"
    ]
    assert handlers == {
        f"transform_lambdas.{module}.handle"
        for module in ("intake", "dispatch", "settle", "index", "lookup", "deletion")
    }


def needed_by(template: dict[str, Any], logical_id: str) -> set[str]:
    """The resources that CloudFormation makes before this one, and deletes after it."""
    found: set[str] = set()
    todo = {logical_id}
    while todo:
        words = re.findall(r"\w+", json.dumps(template["Resources"][todo.pop()]))
        named = set(words) & set(template["Resources"])
        todo |= named - found
        found |= named
    return found


def test_a_deletion_stops_runs_when_none_can_start_and_before_what_they_need_goes(
    template: dict[str, Any],
) -> None:
    (stops,) = of_type(template, "Custom::BatchTransformRuns")
    after = needed_by(template, stops)
    ((dispatch, function),) = [
        (name, function)
        for name, function in of_type(template, "AWS::Lambda::Function").items()
        if function["Handler"] == "transform_lambdas.dispatch.handle"
    ]
    mappings = of_type(template, "AWS::Lambda::EventSourceMapping")
    (starts,) = [name for name in mappings if dispatch in needed_by(template, name)]

    for name in (starts, dispatch, function["Role"]["Fn::GetAtt"][0]):
        assert stops in needed_by(template, name)
    for kind in ("AWS::StepFunctions::StateMachine", "AWS::SageMaker::Model"):
        assert set() < set(of_type(template, kind)) <= after
    assert "ChurnLedgerTable" in str(after)
    assert dispatch not in after


def test_all_functions_share_one_asset_and_run_on_arm(template: dict[str, Any]) -> None:
    functions = of_type(template, "AWS::Lambda::Function").values()

    assert len({json.dumps(function["Code"], sort_keys=True) for function in functions}) == 1
    for function in functions:
        assert function["Architectures"] == ["arm64"]
        assert function["Runtime"] == "python3.13"
        assert function["LoggingConfig"]["LogFormat"] == "JSON"
        assert function["TracingConfig"] == {"Mode": "Active"}


def test_nothing_has_a_name_that_a_second_stack_would_collide_with(plain: dict[str, Any]) -> None:
    names = {
        "AWS::S3::Bucket": "BucketName",
        "AWS::SQS::Queue": "QueueName",
        "AWS::DynamoDB::Table": "TableName",
        "AWS::Lambda::Function": "FunctionName",
        "AWS::IAM::Role": "RoleName",
        "AWS::SageMaker::Model": "ModelName",
        "AWS::StepFunctions::StateMachine": "StateMachineName",
        "AWS::Scheduler::Schedule": "Name",
        "AWS::Events::Rule": "Name",
    }
    named = [
        logical_id
        for resource_type, member in names.items()
        for logical_id, properties in of_type(plain, resource_type).items()
        if member in properties
    ]

    assert named == []
    assert all(of_type(plain, resource_type) for resource_type in names)


def test_logs_that_services_deliver_lie_where_fifty_pipelines_fit_in_one_account(
    template: dict[str, Any],
) -> None:
    groups = of_type(template, "AWS::Logs::LogGroup").values()

    assert {group["LogGroupName"] for group in groups if "LogGroupName" in group} == {
        "/aws/vendedlogs/states/batch-transform/churn",
        "/aws/vendedlogs/apigateway/batch-transform/churn",
    }


def test_own_buckets_are_private_versioned_and_tls_only(plain: dict[str, Any]) -> None:
    buckets = of_type(plain, "AWS::S3::Bucket")
    policies = of_type(plain, "AWS::S3::BucketPolicy").values()

    assert len(buckets) == 2
    for name, bucket in buckets.items():
        assert all(bucket["PublicAccessBlockConfiguration"].values())
        assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
        (policy,) = [policy for policy in policies if policy["Bucket"] == {"Ref": name}]
        (statement,) = policy["PolicyDocument"]["Statement"]
        assert statement["Effect"] == "Deny"
        assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        assert plain["Resources"][name]["DeletionPolicy"] == "Retain"
        rules = bucket["LifecycleConfiguration"]["Rules"]
        assert {"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7}}.items() <= (
            rules[0].items()
        )


def test_only_what_runs_hand_on_expires(plain: dict[str, Any]) -> None:
    rules = [
        rule
        for bucket in of_type(plain, "AWS::S3::Bucket").values()
        for rule in bucket["LifecycleConfiguration"]["Rules"]
        if "AbortIncompleteMultipartUpload" not in rule
    ]

    assert rules
    assert {rule["Prefix"] for rule in rules} == {"runs/"}


def test_the_input_bucket_and_no_other_tells_eventbridge(plain: dict[str, Any]) -> None:
    telling = [
        name
        for name, bucket in of_type(plain, "AWS::S3::Bucket").items()
        if "NotificationConfiguration" in bucket
    ]

    assert len(telling) == 1
    assert "Input" in telling[0]


@pytest.mark.parametrize(
    ("which", "patterns"),
    [
        pytest.param("plain", [{"prefix": "input/"}], id="a prefix alone"),
        pytest.param(
            "template",
            [
                {"wildcard": "drops/*.csv.gz"},
                {"wildcard": "drops/*.csv.gzip"},
                "drops/_SUCCESS",
                {"wildcard": "drops/*/_SUCCESS"},
            ],
            id="a prefix and two suffixes, and a marker that has neither",
        ),
    ],
)
def test_the_rule_sees_only_what_can_be_a_drop_or_a_marker(
    request: pytest.FixtureRequest, which: str, patterns: list[object]
) -> None:
    rules = of_type(request.getfixturevalue(which), "AWS::Events::Rule").values()
    (uploads,) = [rule for rule in rules if rule["EventPattern"]["source"] == ["aws.s3"]]

    assert uploads["EventPattern"]["detail"]["object"]["key"] == patterns


def test_every_queue_is_encrypted_tls_only_and_open_to_its_own_rule_alone(
    plain: dict[str, Any],
) -> None:
    queues = of_type(plain, "AWS::SQS::Queue")
    policies = of_type(plain, "AWS::SQS::QueuePolicy").values()

    assert len(queues) == 4
    for name, queue in queues.items():
        assert queue["SqsManagedSseEnabled"] is True
        (policy,) = [policy for policy in policies if policy["Queues"] == [{"Ref": name}]]
        deny, allow = policy["PolicyDocument"]["Statement"]
        assert deny["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        assert allow["Principal"] == {"Service": "events.amazonaws.com"}
        rule = allow["Condition"]["ArnEquals"]["aws:SourceArn"]["Fn::GetAtt"][0]
        assert plain["Resources"][rule]["Type"] == "AWS::Events::Rule"


def test_messages_stay_hidden_for_as_long_as_lambda_may_try_them(plain: dict[str, Any]) -> None:
    queues = of_type(plain, "AWS::SQS::Queue")
    functions = of_type(plain, "AWS::Lambda::Function")
    mappings = of_type(plain, "AWS::Lambda::EventSourceMapping").values()

    assert len(mappings) == 2
    for mapping in mappings:
        queue = queues[mapping["EventSourceArn"]["Fn::GetAtt"][0]]
        function = functions[mapping["FunctionName"]["Ref"]]
        window = mapping.get("MaximumBatchingWindowInSeconds", 0)
        assert queue["VisibilityTimeout"] >= 6 * function["Timeout"] + window
        assert queue["MessageRetentionPeriod"] > queue["VisibilityTimeout"]


def test_uploads_come_in_hundreds_and_fail_one_by_one(plain: dict[str, Any]) -> None:
    mappings = of_type(plain, "AWS::Lambda::EventSourceMapping").values()
    (uploads,) = [m for m in mappings if "Uploads" in str(m["EventSourceArn"])]
    (wake_ups,) = [m for m in mappings if "WakeUps" in str(m["EventSourceArn"])]

    assert uploads["BatchSize"] == 100
    assert uploads["MaximumBatchingWindowInSeconds"] == 1
    assert uploads["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert wake_ups["BatchSize"] == 10
    assert wake_ups["ScalingConfig"] == {"MaximumConcurrency": 2}


def test_dispatch_is_woken_every_minute_and_at_the_end_of_a_run(plain: dict[str, Any]) -> None:
    (schedule,) = of_type(plain, "AWS::Scheduler::Schedule").values()
    rules = of_type(plain, "AWS::Events::Rule").values()
    (ended,) = [rule for rule in rules if rule["EventPattern"]["source"] == ["aws.states"]]

    assert schedule["ScheduleExpression"] == "rate(1 minute)"
    assert json.loads(schedule["Target"]["Input"]) == {"report": True}
    assert ended["Targets"][0]["Arn"] == schedule["Target"]["Arn"]
    assert "ABORTED" in ended["EventPattern"]["detail"]["status"]


def test_lambda_lets_what_goes_on_by_messages_of_its_own_do_so_and_no_other(
    plain: dict[str, Any],
) -> None:
    functions = of_type(plain, "AWS::Lambda::Function").values()
    allowed = [function["Handler"] for function in functions if "RecursiveLoop" in function]

    # Else Lambda ends the chain after 16 messages and moves the next to the dead-letter queue.
    assert sorted(allowed) == [
        "transform_lambdas.dispatch.handle",
        "transform_lambdas.intake.handle",
    ]


def test_the_ledger_is_kept_and_restorable(plain: dict[str, Any]) -> None:
    ((name, ledger),) = of_type(plain, "AWS::DynamoDB::Table").items()

    assert ledger["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert ledger["BillingMode"] == "PAY_PER_REQUEST"
    assert plain["Resources"][name]["DeletionPolicy"] == "Retain"
    (index,) = ledger["GlobalSecondaryIndexes"]
    assert index["IndexName"] == "queue"
    assert [key["AttributeName"] for key in index["KeySchema"]] == ["queue", "due"]
    assert index["Projection"] == {"ProjectionType": "ALL"}


def test_predictions_expire_by_their_own_time(template: dict[str, Any]) -> None:
    tables = of_type(template, "AWS::DynamoDB::Table").values()
    (predictions,) = [table for table in tables if "TimeToLiveSpecification" in table]

    assert predictions["TimeToLiveSpecification"] == {
        "AttributeName": "expires_at",
        "Enabled": True,
    }
    assert [key["AttributeName"] for key in predictions["KeySchema"]] == ["record_id", "dropped_at"]


def test_the_state_machine_logs_all_but_data_and_is_traced(plain: dict[str, Any]) -> None:
    (machine,) = of_type(plain, "AWS::StepFunctions::StateMachine").values()

    assert machine["LoggingConfiguration"]["Level"] == "ALL"
    assert machine["LoggingConfiguration"]["IncludeExecutionData"] is False
    assert machine["TracingConfiguration"] == {"Enabled": True}


def test_every_log_group_forgets(template: dict[str, Any]) -> None:
    groups = of_type(template, "AWS::Logs::LogGroup").values()

    assert {group["RetentionInDays"] for group in groups} == {30}
    assert len(groups) == 8


def test_the_api_asks_for_a_signed_request_and_logs_without_ids(template: dict[str, Any]) -> None:
    routes = of_type(template, "AWS::ApiGatewayV2::Route").values()
    (stage,) = of_type(template, "AWS::ApiGatewayV2::Stage").values()

    assert {route["RouteKey"] for route in routes} == {
        "GET /predictions",
        "GET /predictions/{id}",
        "POST /predictions",
    }
    assert {route["AuthorizationType"] for route in routes} == {"AWS_IAM"}
    assert "$context.path" not in stage["AccessLogSettings"]["Format"]


def test_without_an_index_there_is_no_api_and_no_second_table(plain: dict[str, Any]) -> None:
    assert not of_type(plain, "AWS::ApiGatewayV2::Api")
    assert len(of_type(plain, "AWS::DynamoDB::Table")) == 1


def test_a_client_finds_the_pipeline_by_parameters_and_outputs(template: dict[str, Any]) -> None:
    parameters = {p["Name"] for p in of_type(template, "AWS::SSM::Parameter").values()}

    assert parameters == {
        f"/batch-transform/churn/{name}"
        for name in (
            "input-bucket",
            "intake-queue-url",
            "output-bucket",
            "ledger-table",
            "state-machine-arn",
            "wake-queue-url",
            "settings",
            "api-url",
            "predictions-table",
        )
    }
    assert set(template["Outputs"]) == {
        "InputBucket",
        "OutputBucket",
        "StateMachineArn",
        "ApiUrl",
    }


def test_the_second_pipeline_of_a_stack_has_outputs_and_an_id_of_its_own(
    synthesize: Callable[[Any], dict[str, Any]],
) -> None:
    ids: list[str] = []

    def define(stack: Stack) -> None:
        for name in ("Churn", "Fraud"):
            pipeline = BatchTransform(stack, name, model=MODEL, instance_type="ml.m5.large")
            ids.append(pipeline.pipeline_id)

    outputs = synthesize(define)["Outputs"]

    assert {"InputBucket", "FraudInputBucket"} <= set(outputs)
    assert len(set(ids)) == 2


@pytest.mark.parametrize("construct_id", ["Churn", "A", "Ünïcödé", "Very" * 20, "-", "a--b_c"])
def test_the_derived_id_fits_a_job_name_and_stays(construct_id: str) -> None:
    def derived() -> str:
        stack = Stack(App(), "Scoring")
        return BatchTransform(
            stack, construct_id, model=MODEL, instance_type="ml.m5.large"
        ).pipeline_id

    first = derived()

    assert first == derived()
    assert len(first) <= 28
    assert re.fullmatch(r"[a-z0-9](-*[a-z0-9])*", first)


def test_the_same_path_in_another_stage_is_another_pipeline() -> None:
    app = App()
    ids = {
        BatchTransform(
            Stack(Stage(app, stage), "Scoring"), "Churn", model=MODEL, instance_type="ml.m5.large"
        ).pipeline_id
        for stage in ("Test", "Prod")
    }

    assert len(ids) == 2


def refused(match: str, **changes: Any) -> None:
    arguments: dict[str, Any] = {"model": MODEL, "instance_type": "ml.m5.large", **changes}
    with pytest.raises(ValueError, match=match):
        BatchTransform(Stack(App(), "Scoring"), "Churn", **arguments)


@pytest.mark.parametrize("prefix", ["predictions/", "predictions/mine/", "runs/", "reports/x/"])
def test_fails_when_a_pipeline_would_score_its_own_output(prefix: str) -> None:
    stack = Stack(App(), "Scoring")
    bucket = s3.Bucket(stack, "Data")

    with pytest.raises(ValueError, match="choose another prefix or another bucket"):
        BatchTransform(
            stack,
            "Churn",
            model=MODEL,
            instance_type="ml.m5.large",
            input_bucket=bucket,
            output_bucket=bucket,
            uploads=Uploads(prefix=prefix),
        )


@pytest.mark.parametrize(
    ("prefix", "match"),
    [
        pytest.param("features", "output_prefix must end with '/' .* use 'features/'", id="file"),
        pytest.param("runs/mine/", "must not lie under 'runs/'", id="files of runs"),
        pytest.param("reports/", "must not lie under 'reports/'", id="reports"),
        pytest.param("f" * 64 + "/", "at most 64 characters, got 65", id="long"),
    ],
)
def test_fails_when_outputs_cannot_lie_there(prefix: str, match: str) -> None:
    refused(match, output_prefix=prefix)


@pytest.mark.parametrize("prefix", ["data/features/", "data/", "data/raw/"])
def test_fails_when_outputs_of_any_prefix_would_be_drops(prefix: str) -> None:
    stack = Stack(App(), "Scoring")
    data = s3.Bucket.from_bucket_name(stack, "Data", "data")

    with pytest.raises(ValueError, match="score its own output"):
        BatchTransform(
            stack,
            "Features",
            model=MODEL,
            instance_type="ml.m5.large",
            input_bucket=data,
            output_bucket=data,
            uploads=Uploads(prefix="data/raw/" if prefix != "data/features/" else "data/"),
            output_prefix=prefix,
        )


def test_fails_when_two_imports_of_one_bucket_overlap() -> None:
    stack = Stack(App(), "Scoring")

    with pytest.raises(ValueError, match="score its own output"):
        BatchTransform(
            stack,
            "Churn",
            model=MODEL,
            instance_type="ml.m5.large",
            input_bucket=s3.Bucket.from_bucket_name(stack, "In", "data"),
            output_bucket=s3.Bucket.from_bucket_name(stack, "Out", "data"),
            uploads=Uploads(prefix="predictions/"),
        )


def test_fails_when_a_bucket_of_the_app_tells_eventbridge_of_no_upload() -> None:
    stack = Stack(App(), "Scoring")
    bucket = s3.Bucket(stack, "Arrivals")

    with pytest.raises(ValueError, match=r"got Scoring/Arrivals that does not; .* event_bridge_"):
        BatchTransform(
            stack, "Churn", model=MODEL, instance_type="ml.m5.large", input_bucket=bucket
        )


@pytest.mark.parametrize("how", ["the property of level 2", "the method", "level 1"])
def test_a_bucket_of_the_app_may_tell_eventbridge_in_any_way(how: str) -> None:
    stack = Stack(App(), "Scoring")
    bucket: s3.IBucket
    if how == "level 1":
        configuration = s3.CfnBucket.EventBridgeConfigurationProperty(event_bridge_enabled=True)
        notifications = s3.CfnBucket.NotificationConfigurationProperty(
            event_bridge_configuration=configuration
        )
        arrivals = s3.CfnBucket(stack, "Arrivals", notification_configuration=notifications)
        bucket = s3.Bucket.from_cfn_bucket(arrivals)
    else:
        bucket = s3.Bucket(stack, "Arrivals", event_bridge_enabled=how != "the method")
        bucket.enable_event_bridge_notification()

    BatchTransform(stack, "Churn", model=MODEL, instance_type="ml.m5.large", input_bucket=bucket)


def test_one_bucket_may_hold_both_and_different_buckets_any_prefix(
    synthesize: Callable[[Any], dict[str, Any]],
) -> None:
    def define(stack: Stack) -> None:
        data = s3.Bucket.from_bucket_name(stack, "Data", "data")
        other = s3.Bucket.from_bucket_name(stack, "Other", "other")
        arguments: dict[str, Any] = {"model": MODEL, "instance_type": "ml.m5.large"}
        BatchTransform(stack, "One", input_bucket=data, output_bucket=data, **arguments)
        BatchTransform(
            stack,
            "Two",
            input_bucket=data,
            output_bucket=other,
            uploads=Uploads(prefix="predictions/"),
            **arguments,
        )

    assert not of_type(synthesize(define), "AWS::S3::Bucket")


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        pytest.param(
            {"instance_type": "ml.t2.micro"}, r"choose one such as ml\.", id="no such type"
        ),
        pytest.param({"instance_count": 101}, "at most 100", id="too many instances"),
        pytest.param({"max_concurrent_runs": 0}, "leave it out", id="no slot"),
        pytest.param({"max_attempts": 0}, "leave it out", id="no attempt"),
        pytest.param({"max_failed_fraction": 1}, "a fifth of a batch", id="a budget of all"),
        pytest.param({"max_failed_fraction": -0.1}, "at least 0", id="a budget below none"),
        pytest.param(
            {"max_failed_fraction": float("nan")}, "below 1, got nan", id="a budget of no number"
        ),
        pytest.param({"job_timeout": Duration.seconds(5)}, "takes minutes", id="short timeout"),
        pytest.param({"run_timeout": Duration.seconds(5)}, "run_timeout must be", id="short run"),
        pytest.param({"pipeline_id": "a" * 29}, "at most 28", id="long id"),
        pytest.param({"pipeline_id": "Churn"}, "lower-case", id="upper-case id"),
        pytest.param({"pipeline_id": "churn-"}, "inner hyphens", id="hyphen at the end"),
        pytest.param(
            {"index": PredictionIndex(record_id=0)},
            "must be a member's name .*; write for example 'id'",
            id="column number for JSON Lines",
        ),
        pytest.param(
            {
                "index": PredictionIndex(record_id="id"),
                "settings": TransformSettings.csv(),
            },
            "must be a column number .*; write for example 0",
            id="member name for CSV",
        ),
        pytest.param(
            {
                "index": PredictionIndex(record_id="id"),
                "settings": TransformSettings.whole_files("image/jpeg"),
            },
            "set accept, or leave index out",
            id="index of images",
        ),
    ],
)
def test_fails_when_an_argument_cannot_work(arguments: dict[str, Any], match: str) -> None:
    refused(match, **arguments)


def test_fails_when_a_pipeline_without_index_is_asked_for_lookup() -> None:
    stack = Stack(App(), "Scoring")
    pipeline = BatchTransform(stack, "Churn", model=MODEL, instance_type="ml.m5.large")

    with pytest.raises(ValueError, match=r"pass index=PredictionIndex"):
        pipeline.grants.lookup(None)  # type: ignore[arg-type]


def test_a_stack_may_have_a_synthesizer_of_its_own(
    nothing_on: Callable[[Stack], BatchTransform],
) -> None:
    app = App()
    stack = Stack(app, "Scoring", synthesizer=DefaultStackSynthesizer(qualifier="ours"))
    nothing_on(stack)

    template = app.synth().get_stack_by_name("Scoring").template

    for function in of_type(template, "AWS::Lambda::Function").values():
        assert "cdk-ours-assets-" in json.dumps(function["Code"]["S3Bucket"])
        assert function["Code"]["S3Key"].endswith(".zip")
    (model,) = of_type(template, "AWS::SageMaker::Model").values()
    assert "cdk-ours-assets-" in json.dumps(model["PrimaryContainer"])


def test_reads_and_writes_of_the_own_buckets_can_be_logged(
    synthesize: Callable[[Any], dict[str, Any]],
) -> None:
    def define(stack: Stack) -> None:
        BatchTransform(
            stack,
            "Churn",
            model=MODEL,
            instance_type="ml.m5.large",
            access_logs=s3.Bucket(stack, "Logs"),
            pipeline_id="churn",
        )

    template = synthesize(define)

    buckets = of_type(template, "AWS::S3::Bucket")
    (logs,) = [name for name in buckets if name.startswith("Logs")]
    own = [each["LoggingConfiguration"] for name, each in buckets.items() if name != logs]
    assert own == [
        {"DestinationBucketName": {"Ref": logs}, "LogFilePrefix": f"churn/{kind}/"}
        for kind in ("input", "output")
    ]
    (policy,) = [
        each["PolicyDocument"]["Statement"]
        for each in of_type(template, "AWS::S3::BucketPolicy").values()
        if each["Bucket"] == {"Ref": logs}
    ]
    assert {each["Principal"]["Service"] for each in policy} == {"logging.s3.amazonaws.com"}
