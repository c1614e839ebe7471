"""Filters, order and pages of List operations."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_cloud import listing
from local_cloud.refusals import Refusal

SORT_MEMBERS = {
    "Name": "TransformJobName",
    "CreationTime": "CreationTime",
    "Status": "TransformJobStatus",
}
ORDERS = [(by, order) for by in SORT_MEMBERS for order in ("Ascending", "Descending")]


def job(
    name: str, *, created: float = 100, modified: float = 200, status: str = "Completed"
) -> Any:
    return {
        "TransformJobName": name,
        "CreationTime": created,
        "LastModifiedTime": modified,
        "TransformJobStatus": status,
    }


def page(jobs: Any, **request: Any) -> tuple[list[str], str | None]:
    entries, more = listing.page(request, jobs, name="TransformJobName", sort_members=SORT_MEMBERS)
    return [entry["TransformJobName"] for entry in entries], more.get("NextToken")


@pytest.mark.parametrize(
    ("filters", "stays"),
    [
        ({"NameContains": "churn"}, True),
        ({"NameContains": "Churn"}, False),
        ({"StatusEquals": "Completed"}, True),
        ({"StatusEquals": "Failed"}, False),
        ({"CreationTimeAfter": 99.999}, True),
        ({"CreationTimeAfter": 100}, False),
        ({"CreationTimeBefore": 100.001}, True),
        ({"CreationTimeBefore": 100}, False),
        ({"LastModifiedTimeAfter": 199.999}, True),
        ({"LastModifiedTimeAfter": 200}, False),
        ({"LastModifiedTimeBefore": 200.001}, True),
        ({"LastModifiedTimeBefore": 200}, False),
        ({"NameContains": "churn", "StatusEquals": "Failed"}, False),
        ({}, True),
    ],
    ids=str,
)
def test_an_entry_passes_when_every_filter_lets_it(filters: dict[str, Any], stays: bool) -> None:
    assert listing.passes(job("a-churn-job"), filters, name="TransformJobName") is stays


@pytest.mark.parametrize(
    ("order", "names"),
    [
        ({}, "cba"),
        ({"SortOrder": "Ascending"}, "abc"),
        ({"SortBy": "Name", "SortOrder": "Ascending"}, "abc"),
        ({"SortBy": "Name"}, "cba"),
        ({"SortBy": "Status", "SortOrder": "Ascending"}, "bac"),
        ({"SortBy": "Status"}, "cab"),
    ],
    ids=str,
)
def test_the_newest_come_first_unless_another_order_is_asked_for(
    order: dict[str, str], names: str
) -> None:
    jobs = [
        job("b", created=2, status="Completed"),
        job("c", created=3, status="Stopped"),
        job("a", created=1, status="Failed"),
    ]
    assert page(jobs, **order) == ([*names], None)


def test_a_page_has_ten_entries_unless_another_size_is_asked_for() -> None:
    jobs = [job(f"{number:02}", created=number) for number in range(11)]
    names, token = page(jobs)
    assert len(names) == 10
    assert page(jobs, NextToken=token) == (["00"], None)
    assert page(jobs[:10])[1] is None


@given(
    created=st.lists(st.integers(0, 3), max_size=12),
    size=st.integers(1, 5),
    order=st.sampled_from(ORDERS),
)
def test_the_pages_are_the_listing(created: list[int], size: int, order: tuple[str, str]) -> None:
    jobs = [job(f"j{number}", created=time) for number, time in enumerate(created)]
    asked: dict[str, Any] = {"SortBy": order[0], "SortOrder": order[1], "MaxResults": size}
    whole, _ = page(jobs, **asked | {"MaxResults": 100})
    seen, token = page(jobs, **asked)
    while token is not None:
        names, token = page(jobs, **asked, NextToken=token)
        assert names, "a page after a token has entries"
        seen += names
    assert seen == whole


def test_entries_that_come_and_go_between_pages_move_no_other() -> None:
    jobs = [job(f"j{number}", created=number) for number in range(6)]
    first, token = page(jobs, MaxResults=2)
    assert first == ["j5", "j4"]
    later = [job("new", created=9), *jobs[:4]]  # The last one of the first page has gone too.
    assert page(later, MaxResults=2, NextToken=token)[0] == ["j3", "j2"]
    assert page([], MaxResults=2, NextToken=token) == ([], None)


def _encoded(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


@pytest.mark.parametrize(
    "token",
    [
        "",
        "garbage",
        "é",
        _encoded(7),
        _encoded([]),
        _encoded(["CreationTime", True, "yesterday", "a"]),
        _encoded(["CreationTime", True, 1, None]),
        _encoded(["CreationTime", False, 1, "a"]),
        _encoded(["Name", True, "a", "a"]),
        base64.b64encode(b"\xff\xfe").decode(),
    ],
)
def test_refuses_a_token_that_this_listing_did_not_give(token: str) -> None:
    with pytest.raises(Refusal, match="Invalid pagination token") as refused:
        page([job("a"), job("b")], NextToken=token)
    assert refused.value.code == "ValidationException"
