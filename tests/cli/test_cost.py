"""The command `cost`: what ran, what is to run, and what AWS says that it costs."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from botocore.stub import Stubber

from batch_transform_cli.cost import prices as prices_file
from batch_transform_cli.cost.estimate import (
    Estimate,
    Input,
    given_rate,
    input_at,
    measured_rate,
    size_in_bytes,
)
from batch_transform_cli.cost.price_list import instance_prices
from batch_transform_cli.cost.prices import Prices, load_prices
from batch_transform_cli.cost.sums import Bill, money, period
from batch_transform_cli.cost.usage import CALLS, KINDS, Usage
from batch_transform_cli.errors import BadValue, CommandError
from tests.documents import PROJECT
from transform_lambdas import report
from transform_lambdas.ledger import Ledger
from transform_lambdas.transform_jobs import Job

Run = Callable[..., Any]

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MADE_UP = "currency: USD\nregion: us-east-1\ninstance_hour: {ml.m5.large: 0.3, ml.p3.2xlarge: 9}\n"


def job(seconds: int | None, instance_type: str = "ml.m5.large", count: int = 1) -> dict[str, Any]:
    """Return what the Lambdas' report says of a job; `seconds` is None for one never started."""
    times = {}
    if seconds is not None:
        times = {"TransformStartTime": NOON, "TransformEndTime": NOON + timedelta(seconds=seconds)}
    resources = {"InstanceType": instance_type, "InstanceCount": count}
    told = Job("churn-1-r1-s1-0", "Completed", "")
    return report.job_of(told, {"TransformResources": resources, **times}, step="Score")


def report_of(*jobs: Mapping[str, Any], version: int = report.VERSION) -> dict[str, Any]:
    """Return a report with these jobs, and sums as if of one drop."""
    sums = report.totals([], jobs) | {"drops": 1, "bytes_in": 1000, "records_in": 10}
    return {"version": version, "run_id": "churn-1-r1", "totals": sums, "jobs": [*jobs]}


@pytest.fixture
def reported(settled_run: str) -> str:
    """A pipeline with a run of two jobs that worked and one that never started."""
    put_report(settled_run, report_of(job(90, count=2), job(60, "ml.p3.2xlarge"), job(None)))
    return settled_run


@pytest.fixture
def more_runs(reported: str, ledger: Ledger) -> None:
    for name in ("lost", "open"):
        ledger.open_run(f"churn-1-{name}", slot=0, drops=0, look_again_s=60)
        if name == "lost":
            run = ledger.run("churn-1-lost")
            assert run is not None
            ledger.end_claiming("churn-1-lost", drops=0, size_bytes=0)
            ledger.mark_running("churn-1-lost")
            ledger.settle_run(run, {"outcome": "Failed", "counts": {}})
            ledger.close_run("churn-1-lost")


def put_report(run_id: str, told: Mapping[str, Any]) -> None:
    boto3.client("s3").put_object(
        Bucket="out", Key=f"reports/{run_id}.json", Body=json.dumps(told).encode()
    )


@pytest.fixture
def made_up(tmp_path: Path) -> Path:
    path = tmp_path / "prices.yaml"
    path.write_text(MADE_UP)
    return path


# What ran


def test_instance_time_is_that_of_the_reports_by_type(reported: str, batch_transform: Run) -> None:
    told = batch_transform("cost", "--month", "2026-03", "--json").document

    (pipeline,) = told["pipelines"]
    assert pipeline["pipeline"] == "churn-1"
    assert (pipeline["runs"], pipeline["drops"], pipeline["jobs"]) == (1, 1, 3)
    assert {name: each["instance_seconds"] for name, each in pipeline["instances"].items()} == {
        "ml.m5.large": 180,
        "ml.p3.2xlarge": 60,
    }
    assert pipeline["instances"]["ml.m5.large"]["instance_hours"] == "0.050000"
    assert (told["currency"], told["all"]["cost"]) == (None, None)
    assert any(said.startswith("no prices: hours alone") for said in told["assumed"])


def test_prices_make_it_money_and_what_has_none_is_named(
    reported: str, made_up: Path, batch_transform: Run
) -> None:
    told = batch_transform("cost", "--month", "2026-03", "--prices", made_up, "--json").document

    assert told["all"]["instances"]["ml.m5.large"]["cost"] == "0.015000"
    assert told["all"]["cost"] == "0.165000"  # 0.05 h at 0.3, and a minute at 9
    assert "s3_put" in told["all"]["unpriced"]
    (unpriced,) = [said for said in told["assumed"] if "without a price" in said]
    assert "dynamodb_write" in unpriced


def test_runs_without_a_report_and_open_ones_are_named(
    more_runs: None, batch_transform: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = batch_transform("cost", "--month", "2026-03").out

    assert "1 run without a report, not counted: churn-1-lost" in shown
    assert "1 run not ended, not counted: churn-1-open" in shown
    assert "ml.p3.2xlarge" in shown


def test_each_pipeline_has_a_row_and_all_have_one(
    reported: str,
    publish: Any,
    made_up: Path,
    batch_transform: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish("fraud-2", **{"ledger-table": "ledger-2"})
    ledger = boto3.client("dynamodb").describe_table(TableName="ledger")["Table"]
    boto3.client("dynamodb").create_table(
        TableName="ledger-2",
        KeySchema=ledger["KeySchema"],
        AttributeDefinitions=[
            {"AttributeName": each["AttributeName"], "AttributeType": "S"}
            for each in ledger["KeySchema"]
        ],
        BillingMode="PAY_PER_REQUEST",
    )
    monkeypatch.setenv("COLUMNS", "200")

    shown = batch_transform("cost", "--month", "2026-03", "--prices", made_up).out.splitlines()

    rows = {row.split()[0]: row.split()[-1] for row in shown if row.strip()}
    assert (rows["churn-1"], rows["fraud-2"], rows["all"]) == ("0.1650", "0", "0.1650")
    one = batch_transform("cost", "--pipeline", "fraud-2", "--month", "2026-03", "--json").document
    assert [each["pipeline"] for each in one["pipelines"]] == ["fraud-2"]


def test_runs_of_another_time_are_not_counted(reported: str, batch_transform: Run) -> None:
    for asked in (["--month", "2026-04"], ["--until", "2026-02-01"], ["--since", "2026-03-02"]):
        told = batch_transform("cost", "--json", *asked).document
        assert told["all"]["runs"] == 0, asked


def test_jobs_that_the_report_does_not_describe_are_told() -> None:
    undescribed = report.job_of(Job("churn-1-r1-s1-0", "Completed", ""), {}, step="Score")

    usage = Usage.of([report_of(job(10), undescribed)])

    assert (usage.instance_seconds, usage.untimed_jobs, usage.all_jobs) == (
        {"ml.m5.large": 10},
        1,
        2,
    )


def test_fails_when_a_report_is_of_another_form() -> None:
    with pytest.raises(CommandError, match="must have version 1, got 2; install"):
        Usage.of([report_of(version=2)])


def test_the_calls_of_a_drop_are_those_that_the_simulation_counts() -> None:
    inputs = yaml.safe_load((PROJECT / "benchmarks" / "scale" / "inputs.yaml").read_text())
    ours = inputs["calls"]["ours"]

    named = {"drop": ours["upload"], "job": ours["job"], "day": ours["day"]}
    del named["job"]["create_transform_job"]  # costs nothing
    assert named == {
        of: {kind: float(count) for kind, count in calls.items()} for of, calls in CALLS.items()
    }
    assert {*KINDS} == {kind for calls in CALLS.values() for kind in calls}
    assert {*KINDS, "instance_hour"} == {*inputs["prices"]} - {"create_transform_job"}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        pytest.param({"month": "2026-02"}, ("2026-02-01", "2026-03-01"), id="month"),
        pytest.param({"month": "2026-12"}, ("2026-12-01", "2027-01-01"), id="december"),
        pytest.param({}, ("2026-01-30T12:00", "2026-03-01T12:00"), id="default"),
        pytest.param({"since": "7d"}, ("2026-02-22T12:00", "2026-03-01T12:00"), id="since"),
    ],
)
def test_a_period_is_a_month_or_from_one_moment_to_another(
    asked: dict[str, str], expected: tuple[str, str]
) -> None:
    found = period(asked.get("since"), asked.get("until"), asked.get("month"), now=NOON)

    assert (found.since, found.until) == tuple(
        datetime.fromisoformat(text).replace(tzinfo=UTC) for text in expected
    )


@pytest.mark.parametrize(
    ("since", "until", "month", "remedy"),
    [
        ("1d", None, "2026-03", "leave --month out"),
        (None, None, "2026-13", "--month must be one such as 2026-10, got '2026-13'"),
        (None, "soon", None, "--until must be a time"),
        ("2026-03-01", "2026-02-01", None, "--since must be before --until"),
        (None, "0001-01-05", None, "--since must be before --until"),
        (None, None, "9999-12", "--month must be one such as"),
    ],
)
def test_fails_when_there_is_no_such_period(
    since: str | None, until: str | None, month: str | None, remedy: str
) -> None:
    with pytest.raises(BadValue, match=remedy):
        period(since, until, month, now=NOON)


# What is to run


def estimate(**changes: Any) -> Estimate:
    usual: dict[str, Any] = {
        "input": Input(total_bytes=1_000_000),
        "rate": given_rate("0.1"),
        "instance_type": "ml.m5.large",
        "instance_count": 1,
        "jobs": 1,
        "speedup": Decimal(1),
        "start_s": Decimal(30),
    }
    return Estimate(**usual | changes)


@pytest.mark.parametrize(
    ("changes", "job_s", "instance_seconds"),
    [
        pytest.param({}, 40, 40, id="size over rate, and the start"),
        pytest.param({"speedup": Decimal(4)}, 33, 33, id="whole seconds"),
        pytest.param({"jobs": 10}, 31, 310, id="each job has a start"),
        pytest.param({"instance_count": 4}, 33, 132, id="spread evenly"),
        pytest.param(
            {"instance_count": 4, "input": Input(total_bytes=1_000_000, objects=5)},
            34,
            136,
            id="one has two of five objects",
        ),
        pytest.param(
            {"instance_count": 4, "input": Input.of([900_000, 50_000, 50_000])},
            39,
            156,
            id="all wait for the one with the large object",
        ),
    ],
)
def test_an_estimate_is_the_start_and_the_busiest_instance(
    changes: dict[str, Any], job_s: int, instance_seconds: int
) -> None:
    found = estimate(**changes)

    assert (found.job_s, found.instance_seconds) == (job_s, instance_seconds)


def test_an_estimate_says_all_that_it_assumes(batch_transform: Run, made_up: Path) -> None:
    asked = ("cost", "estimate", "--bytes", "20GB", "--rate", "12.5", "--objects", "40")
    ended = batch_transform(
        *asked, "--instance-type", "ml.m5.large", "--speedup", "2", "--prices", made_up, "--json"
    )

    told = ended.document
    assert told["instances"]["ml.m5.large"]["instance_seconds"] == 830
    assert told["instances"]["ml.m5.large"]["cost"] == "0.069167"
    assert told["calls"]["s3_put"]["count"] == "85.000000"  # 40 drops and a job
    said = "\n".join(told["assumed"])
    for words in ("--speedup", "--start-s", "--rate", "--jobs", "not in the sum: step_functions"):
        assert words in said


def test_a_measured_job_tells_rate_and_start(
    batch_transform: Run, image: Callable[..., Path], folder: Callable[..., Path], tmp_path: Path
) -> None:
    ran = batch_transform(
        "run", "--image", image(), "--input", folder(a_csv="1,2\n3,4\n"), "--json",
        "--output", tmp_path / "out", "--content-type", "text/csv", "--split-type", "Line",
    )  # fmt: skip
    document = tmp_path / "job.json"
    document.write_text(ran.out)

    rate = measured_rate(document)
    told = batch_transform(
        "cost", "estimate", "--bytes", "1MB", "--job", document, "--instance-type", "ml.m5.large",
        "--json",
    ).document  # fmt: skip

    assert rate.bytes_s == Decimal(8) / Decimal(str(ran.document["seconds"]["transforming"]))
    assert rate.start_s is not None
    assert told["start_seconds"] == f"{rate.start_s:.6f}"


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff", b"[]", b'{"status": "Completed"}', b'{"bytes": "many"}'],
)
def test_fails_when_the_job_is_no_document_of_run(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "job.json").write_bytes(content)

    with pytest.raises(CommandError, match="--job must be what `batch-transform run --json`"):
        measured_rate(tmp_path / "job.json")


def test_fails_when_the_measured_job_failed(tmp_path: Path) -> None:
    seconds = {"total": 2, "transforming": 1}
    told = {"status": "Failed", "bytes": 10, "instances": 1, "seconds": seconds}
    (tmp_path / "job.json").write_text(json.dumps(told))

    with pytest.raises(CommandError, match="of a Completed job that read something, got Failed"):
        measured_rate(tmp_path / "job.json")


def test_an_input_is_measured_on_this_machine_and_in_s3(aws: None, tmp_path: Path) -> None:
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="inputs")
    for name, size in (("b", 3), ("a/1", 2), ("a/2", 0)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * size)
        s3.put_object(Bucket="inputs", Key=f"july/{name}", Body=b"x" * size)

    for place in (str(tmp_path), "s3://inputs/july/"):
        assert input_at(place, s3=lambda: s3) == Input.of([2, 0, 3]), place
    with pytest.raises(CommandError, match="got none at s3://inputs/june; check"):
        input_at("s3://inputs/june", s3=lambda: s3)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("7", 7), ("20GB", 20 * 10**9), ("1.5 kB", 1500), ("2MiB", 2 << 20), ("1_000B", 1000)],
)
def test_a_size_has_a_unit_or_none(text: str, expected: int) -> None:
    assert size_in_bytes(text, option="--bytes") == expected


@pytest.mark.parametrize("text", ["", "GB", "-1", "0", "20 apples", "1e9", "_", "2000000TB"])
def test_fails_when_a_size_is_none(text: str) -> None:
    with pytest.raises(BadValue, match="--bytes must be a size such as 20GB"):
        size_in_bytes(text, option="--bytes")


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["--bytes", "1GB"], id="no rate"),
        pytest.param(["--bytes", "1GB", "--rate", "1", "--job", "x"], id="two rates"),
        pytest.param(["--rate", "1"], id="no input"),
        pytest.param(["--rate", "0", "--bytes", "1GB"], id="no speed"),
        pytest.param(["--rate", "nan", "--bytes", "1GB"], id="no number"),
        pytest.param(["--rate", "1e-999999", "--bytes", "1GB"], id="for ever"),
        pytest.param(["--rate", "1", "--input", ".", "--objects", "1"], id="objects of an input"),
        pytest.param(["--rate", "1", "--bytes", "1GB", "--start-s", "-1"], id="before it starts"),
    ],
)
def test_fails_when_an_estimate_is_asked_for_otherwise(
    arguments: Sequence[str], batch_transform: Run
) -> None:
    ended = batch_transform("cost", "estimate", "--instance-type", "ml.m5.large", *arguments)

    assert (ended.code, len(ended.err.splitlines()), ended.out) == (2, 1, "")


def test_fails_when_options_stand_before_the_subcommand(batch_transform: Run) -> None:
    ended = batch_transform("cost", "--json", "prices", "--region", "eu-west-1")

    assert ended.code == 2
    assert "options must stand behind `cost prices`" in ended.err


# Prices


def test_a_price_is_what_was_written_and_no_float(tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    told = {"currency": "EUR", "region": "eu-west-1", "instance_hour": {"ml.m5.large": 0.1}}
    path.write_text(json.dumps({**told, "lambda": 0.0000002, "sqs": 0}))

    found = load_prices(path)

    assert found.instance_hour == {"ml.m5.large": Decimal("0.1")}
    assert found.calls == {"lambda": Decimal("0.0000002"), "sqs": Decimal(0)}
    path.write_text(prices_file.written(found))
    assert load_prices(path) == found


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ("region: Ireland", "prices.yaml:2: region: must be a region such as eu-west-1, got"),
        ("region: eu-west-1\ns3_putt: 1", "must be a member that exists, got 's3_putt'; write s3_"),
        ("region: eu-west-1\nsqs: -1", "prices.yaml:3: sqs: a price must be a number from 0"),
        ("region: eu-west-1\nsqs: .nan", "a price must be a number from 0 to 1,000,000, got nan"),
    ],
)
def test_fails_when_a_price_is_none_with_file_and_line(
    members: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("prices.yaml").write_text(f"currency: USD\n{members}\ninstance_hour: {{}}\n")

    with pytest.raises(CommandError) as refused:
        load_prices(Path("prices.yaml"))
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        ("0", "0"),
        ("0.00005", "0.0001"),
        ("0.12344", "0.1234"),
        ("1.005", "1.01"),
        ("1234.5", "1,234.50"),
    ],
)
def test_an_amount_is_rounded_half_up(amount: str, shown: str) -> None:
    assert money(Decimal(amount)) == shown


def test_an_unused_thing_needs_no_price() -> None:
    bill = Bill(
        seconds={"ml.m5.large": 0},
        calls={"sqs": Decimal(0)},
        prices=Prices(currency="USD", region="eu-west-1", instance_hour={}),
    )

    assert bill.unpriced == []
    assert bill.total == 0


# The Price List: documents of its form, never recorded from AWS, with made-up prices


def product(usage: str, price: str, **attributes: str) -> str:
    """Return one entry of PriceList."""
    instance_type = usage.rpartition(":")[2]
    sku, term, rate = "SKU1", "SKU1.JRTCKXETXF", "SKU1.JRTCKXETXF.6YS6EN2CT7"
    dimension = {
        "unit": "Hrs",
        "endRange": "Inf",
        "description": f"${price} per Batch Transform {instance_type} hour",
        "appliesTo": [],
        "rateCode": rate,
        "beginRange": "0",
        "pricePerUnit": {"USD": price},
    }
    return json.dumps(
        {
            "product": {
                "productFamily": "ML Instance",
                "attributes": {
                    "regionCode": "eu-west-1",
                    "servicecode": "AmazonSageMaker",
                    "instanceName": instance_type,
                    "usagetype": usage,
                    "locationType": "AWS Region",
                    "platoinstancetype": "BatchTransform",
                    "operation": "RunInstance",
                    **attributes,
                },
                "sku": sku,
            },
            "serviceCode": "AmazonSageMaker",
            "terms": {
                "OnDemand": {
                    term: {
                        "priceDimensions": {rate: dimension},
                        "sku": sku,
                        "effectiveDate": "2026-02-01T00:00:00Z",
                        "offerTermCode": "JRTCKXETXF",
                        "termAttributes": {},
                    }
                }
            },
            "version": "20260201000000",
            "publicationDate": "2026-02-01T00:00:00Z",
        }
    )


def listed(*pages: Sequence[str]) -> Any:
    """Return a client of the Price List that answers with these pages."""
    pricing = boto3.client(
        "pricing", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
    )
    stubber = Stubber(pricing)
    for number, page in enumerate(pages):
        asked: dict[str, Any] = {
            "ServiceCode": "AmazonSageMaker",
            "Filters": [
                {"Type": "TERM_MATCH", "Field": "productFamily", "Value": "ML Instance"},
                {"Type": "TERM_MATCH", "Field": "regionCode", "Value": "eu-west-1"},
                {"Type": "TERM_MATCH", "Field": "platoinstancetype", "Value": "BatchTransform"},
            ],
        }
        answer: dict[str, Any] = {"FormatVersion": "aws_v1", "PriceList": [*page]}
        if number:
            asked["NextToken"] = str(number)
        if number < len(pages) - 1:
            answer["NextToken"] = str(number + 1)
        stubber.add_response("get_products", answer, asked)
    stubber.activate()
    return pricing


def test_the_price_list_tells_what_a_transform_jobs_instance_costs() -> None:
    pricing = listed(
        [product("EU-Tsform:ml.m5.large", "0.3000000000"), product("EU-Host:ml.m5.large", "7.0")],
        [
            product("EU-Tsform:ml.c5.xlarge", "0.5"),
            product("EU-Tsform:ml.c5.xlarge", "9", locationType="AWS Outposts"),
        ],
    )

    found = instance_prices(pricing, region="eu-west-1")

    assert (found.currency, found.region) == ("USD", "eu-west-1")
    assert found.instance_hour == {"ml.m5.large": Decimal("0.3"), "ml.c5.xlarge": Decimal("0.5")}


def test_fails_when_the_price_list_lacks_a_type() -> None:
    pricing = listed([product("EU-Tsform:ml.m5.large", "0.3")])

    with pytest.raises(CommandError, match=r"in eu-west-1, got none of ml\.m6\.large; correct"):
        instance_prices(pricing, region="eu-west-1", instance_types=["ml.m6.large"])


def test_fails_when_a_type_has_two_prices() -> None:
    pricing = listed([product("EU-Tsform:ml.m5.large", price) for price in ("0.3", "0.4")])

    with pytest.raises(CommandError, match=r"must have one price in eu-west-1, got 0\.3 and 0\.4"):
        instance_prices(pricing, region="eu-west-1")


def test_a_file_is_filled_and_what_else_it_has_stays(made_up: Path) -> None:
    made_up.write_text(MADE_UP + "sqs: 0.1\n")
    found = Prices(
        currency="USD",
        region="us-east-1",
        instance_hour={"ml.m5.large": Decimal("0.4"), "ml.c5.large": Decimal(1)},
    )

    assert prices_file.fill(made_up, found) == 3
    filled = load_prices(made_up)
    assert {name: str(price) for name, price in filled.instance_hour.items()} == {
        "ml.c5.large": "1",
        "ml.m5.large": "0.4",
        "ml.p3.2xlarge": "9",
    }
    assert filled.calls == {"sqs": Decimal("0.1")}


def test_fails_when_a_file_is_of_another_region(made_up: Path) -> None:
    found = Prices(currency="USD", region="eu-west-1", instance_hour={})

    with pytest.raises(CommandError, match="must be of region eu-west-1, got us-east-1"):
        prices_file.fill(made_up, found)
    assert made_up.read_text() == MADE_UP


@pytest.mark.parametrize(
    ("region", "code", "said"),
    [("us-gov-west-1", 1, "must be a Price List for us-gov-west-1"), ("mars", 2, "one of AWS")],
)
def test_fails_when_a_region_has_no_price_list(
    region: str, code: int, said: str, aws: None, batch_transform: Run
) -> None:
    ended = batch_transform("cost", "prices", "--region", region)

    assert (ended.code, said in ended.err) == (code, True), ended.err
