"""What the design relies on in the emulator; a new version shows here what it changed."""

import json
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from local_cloud import ACCOUNT, REGION, LocalCloud
from local_cloud.emulator import VERSION, check_version

from .conftest import Queue, make_function, run_machine, wait_until

MakeQueue = Callable[[str], Queue]


def test_the_installed_emulator_is_the_one_that_we_extend() -> None:
    check_version()
    assert VERSION == "1.5.33"


def test_a_delayed_message_comes_after_its_delay(queue: MakeQueue) -> None:
    delayed = queue("delayed")
    delayed.send({"n": 1}, DelaySeconds=1)

    assert delayed.receive(within_s=0.5) == []
    assert delayed.receive(within_s=5) == [{"n": 1}]


def test_a_queue_feeds_a_function_with_window_and_concurrency_limit(
    cloud: LocalCloud, queue: MakeQueue
) -> None:
    source, seen = queue("fed"), queue("fed-seen")
    make_function(
        cloud,
        "fed",
        "import boto3, json, os\n"
        "def handle(event, context):\n"
        "    bodies = [json.loads(record['body']) for record in event['Records']]\n"
        f"    boto3.client('sqs').send_message(QueueUrl={seen.url!r},"
        " MessageBody=json.dumps(bodies))\n",
    )
    for number in range(3):
        source.send(number)
    cloud.client("lambda").create_event_source_mapping(
        FunctionName="fed",
        EventSourceArn=source.arn,
        BatchSize=10,
        MaximumBatchingWindowInSeconds=1,
        ScalingConfig={"MaximumConcurrency": 2},
        FunctionResponseTypes=["ReportBatchItemFailures"],
    )

    def everything(found: list[int]) -> bool:
        for bodies in seen.receive(1, within_s=0.2):
            found.extend(bodies)
        return len(found) == 3

    found: list[int] = []
    wait_until(lambda: everything(found))
    assert sorted(found) == [0, 1, 2]


def test_a_schedule_reaches_a_queue(cloud: LocalCloud, queue: MakeQueue) -> None:
    target = queue("scheduled")
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() + 1))
    cloud.client("scheduler").create_schedule(
        Name="once",
        ScheduleExpression=f"at({moment})",
        FlexibleTimeWindow={"Mode": "OFF"},
        Target={"Arn": target.arn, "RoleArn": "arn:aws:iam::000000000000:role/s", "Input": "{}"},
    )
    assert target.receive(within_s=30) == [{}]


def _rule(cloud: LocalCloud, name: str, pattern: object, target: Queue) -> None:
    events = cloud.client("events")
    events.put_rule(Name=name, EventPattern=json.dumps(pattern))
    events.put_targets(Rule=name, Targets=[{"Id": "queue", "Arn": target.arn}])


def test_only_uploads_of_the_prefix_and_suffix_reach_the_queue(
    cloud: LocalCloud, queue: MakeQueue
) -> None:
    s3, target = cloud.client("s3"), queue("uploads")
    s3.create_bucket(Bucket="uploads-bucket")
    s3.put_bucket_notification_configuration(
        Bucket="uploads-bucket", NotificationConfiguration={"EventBridgeConfiguration": {}}
    )
    pattern = {
        "source": ["aws.s3"],
        "detail-type": ["Object Created"],
        "detail": {
            "bucket": {"name": ["uploads-bucket"]},
            "object": {"key": [{"wildcard": "input/*.csv"}]},
        },
    }
    _rule(cloud, "uploads", pattern, target)
    for key in ("input/a b+%é.csv", "input/a.txt", "other/a.csv"):
        s3.put_object(Bucket="uploads-bucket", Key=key, Body=b"1\n")

    (event,) = target.receive(2, within_s=1.5)
    created = event["detail"]["object"]
    assert created["key"] == "input/a b+%é.csv"
    assert created["size"] == 2
    assert {"etag", "sequencer"} <= created.keys()


def test_prefix_and_suffix_can_be_asked_for_with_or(cloud: LocalCloud, queue: MakeQueue) -> None:
    target = queue("prefixed")
    pattern = {
        "source": ["mine"],
        "detail": {"key": [{"prefix": "input/"}], "other": [{"suffix": ".csv"}]},
    }
    _rule(cloud, "prefixed", pattern, target)
    entries = [
        {"Source": "mine", "DetailType": "t", "Detail": json.dumps({"key": key, "other": key})}
        for key in ("input/a.csv", "input/a.txt", "x/a.csv")
    ]
    cloud.client("events").put_events(Entries=entries)

    assert [event["detail"]["key"] for event in target.receive(2, within_s=1)] == ["input/a.csv"]


def test_the_end_of_an_execution_reaches_the_queue(cloud: LocalCloud, queue: MakeQueue) -> None:
    target = queue("ends")
    machine = f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:ending"
    pattern = {
        "source": ["aws.states"],
        "detail-type": ["Step Functions Execution Status Change"],
        "detail": {"stateMachineArn": [machine], "status": [{"anything-but": ["RUNNING"]}]},
    }
    _rule(cloud, "ends", pattern, target)
    ended = run_machine(cloud, "ending", {"StartAt": "A", "States": {"A": {"Type": "Succeed"}}})

    (event,) = target.receive(1)
    assert event["detail"]["status"] == "SUCCEEDED"
    assert event["detail"]["name"] == ended["name"]
    assert event["detail"]["executionArn"] == ended["executionArn"]


RUN_MACHINE: dict[str, Any] = {
    "QueryLanguage": "JSONata",
    "StartAt": "Begin",
    "States": {
        "Begin": {
            "Type": "Choice",
            "Choices": [{"Condition": "{% $states.input.finish %}", "Next": "Announce"}],
            "Default": "Work",
        },
        "Work": {
            "Type": "Task",
            "Resource": "arn:aws:states:::lambda:invoke",
            "Arguments": {
                "FunctionName": "{% $states.input.function %}",
                "Payload": {
                    "name": "{% 'run-s1-' & $string($states.context.State.RetryCount) %}",
                    "parts": "{% $states.input.parts %}",
                },
            },
            "Output": "{% $states.result.Payload %}",
            "Retry": [
                {
                    "ErrorEquals": ["States.ALL"],
                    "IntervalSeconds": 1,
                    "BackoffRate": 1,
                    "MaxAttempts": 2,
                    "MaxDelaySeconds": 60,
                    "JitterStrategy": "FULL",
                }
            ],
            "Catch": [
                {
                    "ErrorEquals": ["States.ALL"],
                    "Output": {
                        "error": "{% $states.errorOutput.Error %}",
                        "cause": "{% $states.errorOutput.Cause %}",
                    },
                    "Next": "Caught",
                }
            ],
            "Next": "Pause",
        },
        "Caught": {"Type": "Succeed"},
        "Pause": {"Type": "Wait", "Seconds": 1, "Next": "Index"},
        "Index": {
            "Type": "Map",
            "Items": "{% $states.input.parts = 0 ? [] : [0..$states.input.parts-1] %}",
            "MaxConcurrency": 40,
            "ItemSelector": {
                "run_id": "{% $states.input.name %}",
                "part": "{% $states.context.Map.Item.Value %}",
            },
            "ItemProcessor": {
                "ProcessorConfig": {"Mode": "INLINE"},
                "StartAt": "Part",
                "States": {
                    "Part": {
                        "Type": "Pass",
                        "Output": {
                            "indexed": "{% $states.input.part + 10 %}",
                            "run_id": "{% $states.input.run_id %}",
                        },
                        "End": True,
                    }
                },
            },
            "Output": "{% $merge([$states.input, {'indexed': $sum($states.result.indexed)}]) %}",
            "Next": "Announce",
        },
        "Announce": {
            "Type": "Task",
            "Resource": "arn:aws:states:::events:putEvents",
            "Arguments": {
                "Entries": [
                    {
                        "Source": "batch-transform",
                        "DetailType": "{% 'Batch Transform Run ' & 'Completed' %}",
                        "Detail": "{% $states.input %}",
                        "EventBusName": "default",
                    }
                ]
            },
            "Output": "{% {'kept': $states.input, 'failed': $states.result.FailedEntryCount} %}",
            "Next": "Announced",
        },
        "Announced": {
            "Type": "Choice",
            "Choices": [{"Condition": "{% $states.input.failed > 0 %}", "Next": "Failed"}],
            "Default": "Done",
        },
        "Failed": {"Type": "Fail", "Error": "AnnounceFailed", "Cause": "no"},
        "Done": {"Type": "Succeed"},
    },
}


@pytest.mark.parametrize(
    ("parts", "indexed"),
    [pytest.param(3, 33, id="three parts"), pytest.param(0, None, id="no part")],
)
def test_a_machine_like_ours_goes_all_its_way(
    cloud: LocalCloud, queue: MakeQueue, parts: int, indexed: int | None
) -> None:
    target = queue(f"announced-{parts}")
    _rule(
        cloud,
        f"announced-{parts}",
        {"source": ["batch-transform"], "detail": {"parts": [parts]}},
        target,
    )
    make_function(
        cloud,
        f"second-time-{parts}",
        "def handle(event, context):\n"
        "    if event['name'] == 'run-s1-0':\n"
        "        raise RuntimeError('first time')\n"
        "    return event\n",
    )
    given = {"finish": False, "function": f"second-time-{parts}", "parts": parts}

    ended = run_machine(cloud, f"like-ours-{parts}", RUN_MACHINE, given)

    assert ended["status"] == "SUCCEEDED", ended
    kept = json.loads(ended["output"])["kept"]
    assert kept["name"] == "run-s1-1"
    assert kept.get("indexed", 0) == (indexed or 0)
    (event,) = target.receive(1)
    assert event["detail-type"] == "Batch Transform Run Completed"
    assert event["detail"]["name"] == "run-s1-1"


def test_an_http_api_with_iam_calls_its_function_with_payload_2(cloud: LocalCloud) -> None:
    function = make_function(
        cloud,
        "looked-up",
        "import json\n"
        "def handle(event, context):\n"
        "    return {'statusCode': 200, 'body': json.dumps([event['version'],\n"
        "        event['pathParameters'], event.get('queryStringParameters')])}\n",
    )
    apis = cloud.client("apigatewayv2")
    api = apis.create_api(Name="lookup", ProtocolType="HTTP")["ApiId"]
    integration = apis.create_integration(
        ApiId=api,
        IntegrationType="AWS_PROXY",
        IntegrationUri=function,
        PayloadFormatVersion="2.0",
    )["IntegrationId"]
    apis.create_route(
        ApiId=api,
        RouteKey="GET /predictions/{id}",
        AuthorizationType="AWS_IAM",
        Target=f"integrations/{integration}",
    )
    apis.create_stage(ApiId=api, StageName="$default", AutoDeploy=True)
    url = f"{cloud.endpoint}/_aws/execute-api/{api}/$default/predictions/a%20b?history=2"
    request = AWSRequest(method="GET", url=url)
    SigV4Auth(Credentials(ACCOUNT, "local"), "execute-api", REGION).add_auth(request)

    with urllib.request.urlopen(
        urllib.request.Request(url, headers=dict(request.headers))
    ) as answer:
        assert json.load(answer) == ["2.0", {"id": "a b"}, {"history": "2"}]


def test_log_events_are_found_by_the_prefix_of_their_stream(cloud: LocalCloud) -> None:
    logs, group = cloud.client("logs"), "/aws/sagemaker/TransformJobs-test"
    logs.create_log_group(logGroupName=group)
    now = int(time.time() * 1000)
    for stream in ("run-1-s1-0/i-1-5/data-log", "run-2-s1-0/i-1-5/data-log"):
        logs.create_log_stream(logGroupName=group, logStreamName=stream)
        logs.put_log_events(
            logGroupName=group,
            logStreamName=stream,
            logEvents=[{"timestamp": now, "message": f"[sagemaker logs]: {stream}"}],
        )
    found = logs.filter_log_events(logGroupName=group, logStreamNamePrefix="run-1-s1-0/")
    assert [event["message"] for event in found["events"]] == [
        "[sagemaker logs]: run-1-s1-0/i-1-5/data-log"
    ]


def test_parameters_are_found_by_path(cloud: LocalCloud) -> None:
    ssm = cloud.client("ssm")
    ssm.put_parameter(Name="/batch-transform/p/input-bucket", Value="b", Type="String")
    found = ssm.get_parameters_by_path(Path="/batch-transform/p", Recursive=True)["Parameters"]
    assert [(parameter["Name"], parameter["Value"]) for parameter in found] == [
        ("/batch-transform/p/input-bucket", "b")
    ]


def test_a_transaction_is_refused_with_the_reason_of_each_part(cloud: LocalCloud) -> None:
    table = cloud.client("dynamodb")
    table.create_table(
        TableName="ledger",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    put = {
        "Put": {
            "TableName": "ledger",
            "Item": {"pk": {"S": "new"}},
            "ConditionExpression": "attribute_not_exists(pk)",
        }
    }
    check = {
        "ConditionCheck": {
            "TableName": "ledger",
            "Key": {"pk": {"S": "slot"}},
            "ConditionExpression": "attribute_exists(pk)",
        }
    }
    with pytest.raises(table.exceptions.TransactionCanceledException) as refused:
        table.transact_write_items(TransactItems=[put, check])

    reasons = refused.value.response["CancellationReasons"]
    assert [reason["Code"] for reason in reasons] == ["None", "ConditionalCheckFailed"]
    assert table.scan(TableName="ledger")["Items"] == []
