"""What pipelines may ask for at once, held against an account's quotas."""

from batch_transform_cli.doctor.needs import Jobs
from batch_transform_cli.doctor.quotas import Demand, demands, quota_findings

LARGE = "ml.m5.large for transform job usage"
ALL = "Number of instances across all transform jobs"


def test_a_run_has_one_job_at_a_time_and_a_fallback_asks_as_much() -> None:
    churn = Jobs(owner="churn", runs=3, instances={"ml.m5.large": 2, "ml.m5.xlarge": 2})
    own = Jobs(owner="Own.Machine", runs=None, instances={"ml.m5.large": 4})

    assert demands([churn, own]) == {
        LARGE: Demand(at_once={"churn": 6, "Own.Machine": 4}, largest_job=4),
        "ml.m5.xlarge for transform job usage": Demand(at_once={"churn": 6}, largest_job=2),
        ALL: Demand(at_once={"churn": 6, "Own.Machine": 4}, largest_job=4),
    }


def test_no_jobs_ask_for_nothing() -> None:
    assert demands([]) == {}


ASKED = {LARGE: Demand(at_once={"a": 4, "b": 2, "c": 1, "d": 1}, largest_job=2)}


def test_a_quota_below_one_job_is_a_failure_with_the_request() -> None:
    (found,) = quota_findings({LARGE: ("L-236AE59F", 0.0)}, ASKED, {}, "eu-west-1")

    assert found.level == "fail"
    assert f"{LARGE}: 0, 8 may be wanted at once (a 4, b 2, c 1, 1 other)" in found.found
    assert found.fix == (
        "aws service-quotas request-service-quota-increase --service-code sagemaker "
        "--quota-code L-236AE59F --desired-value 8 --region eu-west-1"
    )


def test_a_quota_below_all_jobs_is_a_warning() -> None:
    (found,) = quota_findings({LARGE: ("L-236AE59F", 7.0)}, ASKED, {}, "eu-west-1")
    assert (found.level, "wait for each other" in found.found) == ("warn", True)


def test_a_quota_for_all_jobs_is_good() -> None:
    (found,) = quota_findings({LARGE: ("L-236AE59F", 8.0)}, ASKED, {}, "eu-west-1")
    assert (found.level, found.fix) == ("ok", "")


def test_an_increase_that_is_asked_for_is_not_asked_for_again() -> None:
    quotas, requested = {LARGE: ("L-236AE59F", 0.0)}, {LARGE: 8.0}
    (found,) = quota_findings(quotas, ASKED, requested, "eu-west-1")

    assert "8 is asked for already" in found.found
    assert "request-service-quota-increase" not in found.fix


def test_a_type_that_a_region_has_no_quota_for_is_a_failure() -> None:
    (found,) = quota_findings({}, ASKED, {}, "eu-west-1")
    assert found.level == "fail"
