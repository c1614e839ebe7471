"""The whole way through the real code, undisturbed and disturbed."""

from collections.abc import Callable
from typing import Any

import pytest

from transform_lambdas.dispatch import run_of
from transform_lambdas.transform_jobs import Job

World = Any  # conftest's


def test_files_dropped_close_together_become_one_run(world: World) -> None:
    for number in range(8):
        world.drop(f"input/{number}.csv", f"{number},0.5\n".encode())
    assert world.dispatch() == []
    world.pass_time(60)

    (run_id,) = world.dispatch()
    result = world.execute(run_id)
    world.execution_ended(run_id)

    assert result["counts"] == {"done": 8, "waiting": 0, "failed": 0, "superseded": 0}
    assert result["outcome"] == "Completed"
    assert set(world.statuses().values()) == {"done"}
    assert world.prediction("input/3.csv") == b"3,0.5\n"
    assert world.permits_held() == []
    assert world.ledger.run(run_id).status == "closed"


def test_a_file_the_model_refuses_fails_with_its_words_and_leaves_the_others_alone(
    world: World,
) -> None:
    world.drop("input/good.csv")
    bad = world.drop("input/bad.csv")
    world.jobs.said["input/bad.csv"] = "ClientError: 400 row 2, column 5 must be a number"
    world.pass_time(60)
    (run_id,) = world.dispatch()

    result = world.execute(run_id)

    assert result["outcome"] == "PartiallyCompleted"
    assert world.statuses() == {"input/bad.csv": "failed", "input/good.csv": "done"}
    assert world.reason(bad) == "input/bad.csv: ClientError: 400 row 2, column 5 must be a number"


def test_a_drop_that_a_broken_model_misses_waits_again_and_fails_in_the_end(world: World) -> None:
    drop = world.drop("input/a.csv")
    world.jobs.said["input/a.csv"] = "Bad HTTP status received from algorithm: 500"
    for _ in range(world.attempts):
        world.pass_time(60)
        (run_id,) = world.dispatch()
        world.execute(run_id)
        world.execution_ended(run_id)

    assert world.statuses() == {"input/a.csv": "failed"}
    assert "algorithm: 500 (given up after 3 attempts)" in world.reason(drop)
    world.pass_time(60)
    assert world.dispatch() == []


def test_a_refused_job_fails_its_drops_with_the_refusal(world: World) -> None:
    drop = world.drop("input/a.csv")
    world.pass_time(60)
    (run_id,) = world.dispatch()

    result = world.settle(
        {
            "run_id": run_id,
            "step": 1,
            "error": "SageMaker.AmazonSageMakerException",
            "cause": 'Member "x" must satisfy constraint. (Error Code: ValidationException)',
        },
    )

    assert result["outcome"] == "Failed"
    assert world.statuses() == {"input/a.csv": "failed"}
    assert "no transform job could be created: SageMaker." in world.reason(drop)
    assert 'Member "x" must satisfy constraint' in world.reason(drop)


def test_a_throttled_job_gives_its_drops_back(world: World) -> None:
    world.drop("input/a.csv")
    world.pass_time(60)
    (run_id,) = world.dispatch()

    world.settle(
        {
            "run_id": run_id,
            "step": 1,
            "error": "SageMaker.AmazonSageMakerException",
            "cause": "ThrottlingException: Rate exceeded",
        },
    )

    assert world.statuses() == {"input/a.csv": "waiting"}
    world.pass_time(60)
    assert world.dispatch()


def test_no_drop_is_given_back_while_its_job_still_runs(world: World) -> None:
    world.drop("input/a.csv")
    world.pass_time(60)
    (run_id,) = world.dispatch()
    world.jobs.jobs[run_id] = [Job(f"{run_id}-s1-0", "InProgress", "")]

    result = world.settle({"run_id": run_id, "step": 1, "error": "States.Timeout"})

    assert result == {
        "status": "JobStillRuns",
        "run_id": run_id,
        "step": 1,
        "error": "States.Timeout",
    }
    assert world.jobs.stopped == [f"{run_id}-s1-0"]
    assert world.statuses() == {"input/a.csv": "claimed"}


def test_settling_twice_changes_nothing(world: World) -> None:
    world.drop("input/a.csv")
    world.pass_time(60)
    (run_id,) = world.dispatch()
    first = world.execute(run_id)
    before = world.items()

    assert world.settle({"run_id": run_id}) == first
    assert world.items() == before


def test_a_newer_version_of_a_key_waits_for_the_older_one_s_run(world: World) -> None:
    world.drop("input/a.csv", b"a,1\n")
    world.pass_time(60)
    (first,) = world.dispatch()
    world.drop("input/a.csv", b"a,2\n")
    world.pass_time(60)
    assert world.dispatch() == []
    assert world.statuses() == {"input/a.csv": "claimed, waiting"}

    world.execute(first)
    world.pass_time(60)
    (second,) = world.dispatch()
    world.execute(second)

    assert world.statuses() == {"input/a.csv": "superseded, done"}
    assert world.prediction("input/a.csv") == b"a,2\n"


def test_a_version_that_waits_for_another_one_s_run_hurries_no_other_drop(world: World) -> None:
    world.drop("input/a.csv")
    world.pass_time(60)
    world.dispatch()
    world.drop("input/a.csv")
    world.pass_time(60)
    assert world.dispatch() == []

    world.drop("input/b.csv")

    assert world.dispatch() == []
    assert world.statuses() == {"input/a.csv": "claimed, waiting", "input/b.csv": "waiting"}
    world.pass_time(60)
    assert len(world.dispatch()) == 1
    assert world.statuses() == {"input/a.csv": "claimed, waiting", "input/b.csv": "claimed"}


def test_an_older_version_given_back_is_superseded_by_the_one_that_came_meanwhile(
    world: World,
) -> None:
    world.drop("input/a.csv", b"a,1\n")
    world.pass_time(60)
    (run_id,) = world.dispatch()
    world.drop("input/a.csv", b"a,2\n")
    world.settle({"run_id": run_id, "step": 1, "error": "States.Timeout"})

    assert world.statuses() == {"input/a.csv": "superseded, waiting"}


def test_a_full_batch_does_not_wait(make_world: Callable[..., World]) -> None:
    world = make_world(max_objects=3)
    for number in range(7):
        world.drop(f"input/{number}.csv")

    assert len(world.dispatch()) == 2
    assert sorted(world.statuses().values()) == ["claimed"] * 6 + ["waiting"]


def test_dispatch_wakes_itself_only_when_the_schedule_would_come_too_late(
    make_world: Callable[..., World],
) -> None:
    world = make_world(max_wait_s=3600)
    world.drop("input/a.csv")
    before = world.wake_ups()

    # Each of them would be answered by another one, hour after hour.
    for _ in range(5):
        world.dispatch()
        world.pass_time(60)
    assert world.wake_ups() == before

    world.pass_time(3600 - 5 * 60 - 20)
    assert world.dispatch() == []
    assert world.wake_ups() == before + 1


def test_a_marker_object_makes_what_came_before_it_due(world: World) -> None:
    world.drop("input/a.csv")
    assert world.dispatch() == []
    world.drop("input/_SUCCESS", b"")

    assert len(world.dispatch()) == 1
    assert world.statuses() == {"input/a.csv": "claimed"}


def test_no_more_runs_are_in_flight_than_there_are_slots(make_world: Callable[..., World]) -> None:
    world = make_world(max_objects=1)
    for number in range(5):
        world.drop(f"input/{number}.csv")

    started = world.dispatch()
    assert len(started) == world.slots == world.permits_held().count("slot")
    assert world.dispatch() == []
    world.execute(started[0])
    assert len(world.dispatch()) == 1


def test_an_aborted_execution_is_finished_by_the_next_dispatch(world: World) -> None:
    world.drop("input/a.csv")
    world.drop("input/b.csv")
    world.pass_time(60)
    (run_id,) = world.dispatch()
    world.do_job(run_id)
    world.executions.statuses[run_id] = "ABORTED"

    world.execution_ended(run_id)

    assert world.executions.started[f"{run_id}-f1"] == {
        "run_id": run_id,
        "finish": True,
    }
    world.execute(f"{run_id}-f1")
    world.execution_ended(f"{run_id}-f1")
    assert set(world.statuses().values()) == {"done"}
    assert world.ledger.run(run_id).status == "closed"


def test_an_execution_that_dies_after_settle_is_finished_too_so_that_all_is_indexed(
    world: World,
) -> None:
    world.drop("input/a.csv", b"a,1\n")
    world.pass_time(60)
    (run_id,) = world.dispatch()
    world.do_job(run_id)
    world.settle({"run_id": run_id})
    world.executions.statuses[run_id] = "FAILED"

    world.pass_time(60)
    world.dispatch()
    world.execute(f"{run_id}-f1")

    assert world.prediction_table.scan()["Count"] == 1


def test_a_run_that_dies_again_and_again_is_finished_ever_less_often(world: World) -> None:
    world.drop("input/a.csv")
    world.pass_time(60)
    (run_id,) = world.dispatch()
    world.executions.statuses[run_id] = "FAILED"
    finished_at: list[int] = []
    for minute in range(1, 32):
        world.pass_time(60)
        world.dispatch()
        for name in list(world.executions.statuses):
            if world.executions.statuses[name] == "RUNNING":
                finished_at.append(minute)
                world.executions.statuses[name] = "FAILED"
                world.execution_ended(name)  # the event alone must not spin it

    assert finished_at == [1, 2, 4, 8, 16]


def test_the_end_of_an_execution_is_that_of_its_run_whatever_the_digits_of_its_id() -> None:
    for run_id in ("churn-20260301t120000-f12345", "churn-f2-20260301t120000-0a1b2c"):
        for name in (run_id, f"{run_id}-f1", f"{run_id}-f12"):
            assert run_of({"detail": {"name": name}}) == run_id
    assert run_of({}) is None


def test_a_status_event_that_comes_before_its_time_changes_nothing(world: World) -> None:
    world.drop("input/a.csv")
    world.pass_time(60)
    (run_id,) = world.dispatch()
    before = world.items()

    world.execution_ended(run_id)

    assert world.items() == before


CHAIN = ("clean", "score")


def test_a_step_reads_exactly_what_the_one_before_it_has_written(
    make_world: Callable[..., World],
) -> None:
    world = make_world(steps=CHAIN)
    world.drop("input/a.csv", b"a,1\n")
    unclean = world.drop("input/b.csv")
    unfit = world.drop("input/deep/c.csv.out", b"c,1\n")
    world.jobs.said["input/b.csv"] = "ClientError: 400 no number"
    world.jobs.said["step-1-of-2/input/deep/c.csv.out.out"] = "ClientError: 400 no column"
    world.pass_time(60)
    (run_id,) = world.dispatch()

    result = world.execute(run_id)

    assert result["outcome"] == "PartiallyCompleted"
    assert result["counts"] == {"done": 1, "waiting": 0, "failed": 2, "superseded": 0}
    assert world.prediction("input/a.csv") == b"a,1\n"
    assert world.reason(unclean) == "input/b.csv in step 'clean': ClientError: 400 no number"
    assert world.reason(unfit) == (
        "input/deep/c.csv.out in step 'score': ClientError: 400 no column"
    )
    assert [item["record_id"] for item in world.prediction_table.scan()["Items"]] == ["a"]
    assert world.read(f"runs/{run_id}/manifest-2.json") == [
        {"prefix": f"s3://output-bucket/runs/{run_id}/step-1-of-2/"},
        "input/a.csv.out",
        "input/deep/c.csv.out.out",
    ]
    report = world.read(f"reports/{run_id}.json")
    assert world.read(report["outputs"].removeprefix("s3://output-bucket/")) == [
        {"prefix": "s3://output-bucket/predictions/"},
        "input/a.csv.out",
    ]
    assert [job["name"] for job in report["jobs"]] == [
        f"{run_id}-s2-0",
        f"{run_id}-s1-0",
    ]


def test_when_a_step_leaves_nothing_the_next_one_is_not_run(
    make_world: Callable[..., World],
) -> None:
    world = make_world(steps=CHAIN)
    drop = world.drop("input/a.csv")
    world.jobs.said["input/a.csv"] = "ClientError: 400 no number"
    world.pass_time(60)
    (run_id,) = world.dispatch()

    world.execute(run_id)

    assert [job.step for job in world.jobs.jobs[run_id]] == [1]
    assert world.reason(drop).startswith("input/a.csv in step 'clean': ")


def test_a_refusal_is_told_of_the_step_that_was_refused(make_world: Callable[..., World]) -> None:
    world = make_world(steps=CHAIN)
    drop = world.drop("input/a.csv")
    world.pass_time(60)
    (run_id,) = world.dispatch()
    world.do_job(run_id)
    begin = world.settle({"run_id": run_id, "step": 1})
    assert begin["status"] == "NextStep"

    refused = {"error": "SageMaker.AmazonSageMakerException", "cause": "ValidationException"}
    world.settle({**begin, **refused})

    assert world.reason(drop) == (
        "input/a.csv in step 'score': no transform job could be created: "
        "SageMaker.AmazonSageMakerException: ValidationException"
    )
    assert world.statuses() == {"input/a.csv": "failed"}


@pytest.mark.parametrize("dies_after", [0, 1], ids=["before it hands on", "after that"])
def test_a_run_that_dies_between_two_steps_gives_its_drops_back(
    make_world: Callable[..., World], dies_after: int
) -> None:
    world = make_world(steps=CHAIN)
    drop = world.drop("input/a.csv")
    world.pass_time(60)
    (run_id,) = world.dispatch()
    world.do_job(run_id)
    for _ in range(dies_after):
        world.settle({"run_id": run_id, "step": 1})
    world.executions.statuses[run_id] = "ABORTED"
    world.execution_ended(run_id)

    world.execute(f"{run_id}-f1")

    assert world.statuses() == {"input/a.csv": "waiting"}
    assert "in step 'score': no transform job could be created" in world.reason(drop)
    world.pass_time(60)
    (again,) = world.dispatch()
    world.execute(again)
    assert world.statuses() == {"input/a.csv": "done"}


@pytest.mark.parametrize(
    "steps", [("clean",), ("score",), ("clean", "enrich", "score")], ids=["first", "last", "more"]
)
def test_what_a_step_hands_on_is_no_prediction_when_a_deployment_changes_the_steps_meanwhile(
    make_world: Callable[..., World], steps: tuple[str, ...]
) -> None:
    world = make_world(steps=CHAIN)
    world.drop("input/a.csv")
    world.drop("input/a.csv.out")
    world.pass_time(60)
    (run_id,) = world.dispatch()
    world.do_job(run_id)
    begin = world.settle({"run_id": run_id, "step": 1})
    world.do_job(run_id, begin)
    world.steps = steps

    result = world.settle({"run_id": run_id, "step": 2})

    assert (result["counts"]["done"], result["counts"]["waiting"]) == (0, 2)
    listed = world.s3.list_objects_v2(Bucket="output-bucket", Prefix="predictions/")
    assert listed["KeyCount"] == 0


def test_a_dead_run_is_not_settled_while_a_job_of_its_second_step_still_runs(
    make_world: Callable[..., World],
) -> None:
    world = make_world(steps=CHAIN)
    world.drop("input/a.csv")
    world.pass_time(60)
    (run_id,) = world.dispatch()
    world.do_job(run_id)
    world.jobs.jobs[run_id].insert(0, Job(f"{run_id}-s2-1000", "InProgress", ""))

    result = world.settle({"run_id": run_id, "finish": True})

    assert result == {"run_id": run_id, "finish": True, "status": "JobStillRuns"}
    assert world.jobs.stopped == [f"{run_id}-s2-1000"]


def test_what_a_job_that_failed_as_a_whole_has_left_is_tried_in_halves(world: World) -> None:
    for name in "abcd":
        world.drop(f"input/{name}.csv")
    world.pass_time(60)
    (run_id,) = world.dispatch()
    world.jobs.jobs[run_id] = [Job(f"{run_id}-s1-0", "Failed", "AlgorithmError: it died")]

    world.settle({"run_id": run_id, "step": 1})
    (first,) = world.dispatch()  # one at a time, for nothing shows that the model works
    assert world.statuses() == {
        "input/a.csv": "claimed",
        "input/b.csv": "claimed",
        "input/c.csv": "waiting",
        "input/d.csv": "waiting",
    }
    world.execute(first)
    (second,) = world.dispatch()
    world.execute(second)

    assert set(world.statuses().values()) == {"done"}


def test_fresh_drops_do_not_wait_for_those_that_are_tried_apart(
    make_world: Callable[..., World],
) -> None:
    world = make_world(max_wait_s=0)
    for name in "ab":
        world.drop(f"input/{name}.csv")
    (run_id,) = world.dispatch()
    world.jobs.jobs[run_id] = [Job(f"{run_id}-s1-0", "Failed", "AlgorithmError: it died")]
    world.settle({"run_id": run_id, "step": 1})
    world.drop("input/c.csv")

    assert len(world.dispatch()) == 2
    assert world.statuses() == {
        "input/a.csv": "claimed",
        "input/b.csv": "waiting",
        "input/c.csv": "claimed",
    }


def test_a_quota_does_not_age_a_drop(world: World) -> None:
    drop = world.drop("input/a.csv")
    limit = {"error": "SageMaker.ResourceLimitExceededException", "cause": "quota"}
    for _ in range(world.attempts + 2):
        world.pass_time(60)
        (run_id,) = world.dispatch()
        world.settle({"run_id": run_id, "step": 1, **limit})
        world.execution_ended(run_id)

    assert world.statuses() == {"input/a.csv": "waiting"}
    assert "ResourceLimitExceeded" in world.reason(drop)


def test_a_model_that_does_not_answer_pings_is_not_tried_again(world: World) -> None:
    drop = world.drop("input/a.csv")
    world.pass_time(60)
    (run_id,) = world.dispatch()
    world.jobs.jobs[run_id] = [
        Job(f"{run_id}-s1-0", "Failed", "AlgorithmError: Model container failed to respond to ping")
    ]

    world.settle({"run_id": run_id, "step": 1})

    assert world.statuses() == {"input/a.csv": "failed"}
    assert "failed to respond to ping" in world.reason(drop)


def test_a_job_whose_name_is_in_use_is_ours_and_is_waited_for(world: World) -> None:
    world.drop("input/a.csv")
    world.pass_time(60)
    (run_id,) = world.dispatch()
    world.jobs.jobs[run_id] = [Job(f"{run_id}-s1-0", "InProgress", "")]
    in_use = {"error": "SageMaker.ResourceInUseException", "cause": "Job name must be unique"}

    told = world.settle({"run_id": run_id, "step": 1, **in_use})

    assert told["status"] == "JobStillRuns"
    assert world.jobs.stopped == []
    world.do_job(run_id, world.executions.started[run_id])
    world.jobs.jobs[run_id] = world.jobs.jobs[run_id][:1]
    assert world.settle(told)["outcome"] == "Completed"


def lose(world: World, lost: int, of: int) -> list[Any]:
    """Run a batch of which so many drops come out without predictions, by the model's fault."""
    drops = [world.drop(f"input/{number:02}.csv") for number in range(of)]
    for drop in drops[:lost]:
        world.jobs.said[drop.key] = "Bad HTTP status received from algorithm: 500"
    world.pass_time(60)
    (run_id,) = world.dispatch()
    world.execute(run_id)
    return drops


def test_a_batch_that_is_over_its_error_budget_is_not_tried_again(world: World) -> None:
    world.budget = 0.25

    drops = lose(world, 4, 12)

    assert sorted(world.statuses().values()) == ["done"] * 8 + ["failed"] * 4
    assert world.reason(drops[0]) == (
        "input/00.csv: Bad HTTP status received from algorithm: 500 (4 of the 12 drops of its run "
        "came out without predictions, more than max_failed_fraction=0.25 allows, so none of them "
        "is tried again)"
    )


@pytest.mark.parametrize(
    ("lost", "of", "budget"),
    [
        pytest.param(3, 12, 0.25, id="as much as the budget"),
        pytest.param(9, 9, 0.25, id="too few drops"),
        pytest.param(12, 12, None, id="no budget"),
    ],
)
def test_what_a_batch_within_its_budget_has_lost_is_tried_in_halves(
    world: World, lost: int, of: int, budget: float | None
) -> None:
    world.budget = budget

    lose(world, lost, of)

    assert list(world.statuses().values()).count("waiting") == lost


def test_what_is_tried_in_halves_is_not_held_to_the_budget(world: World) -> None:
    world.budget = 0.6
    drops = lose(world, 20, 40)
    world.jobs.said.clear()
    for drop in drops[:7]:
        world.jobs.said[drop.key] = "Bad HTTP status received from algorithm: 500"

    (half,) = [run_id for run_id in world.dispatch() if run_id]
    world.execute(half)

    assert list(world.statuses().values()).count("failed") == 0


def test_bad_data_counts_against_the_budget_and_keeps_its_own_reason(world: World) -> None:
    world.budget = 0.0
    bad, broken, *_ = [world.drop(f"input/{number:02}.csv") for number in range(10)]
    world.jobs.said[bad.key] = "ClientError: 400 no number"
    world.jobs.said[broken.key] = "Bad HTTP status received from algorithm: 500"
    world.pass_time(60)
    (run_id,) = world.dispatch()

    world.execute(run_id)

    assert world.reason(bad) == "input/00.csv: ClientError: 400 no number"
    assert "(2 of the 10 drops of its run" in world.reason(broken)


def test_a_quota_is_not_held_against_the_budget(world: World) -> None:
    world.budget = 0.0
    for number in range(10):
        world.drop(f"input/{number:02}.csv")
    world.pass_time(60)
    (run_id,) = world.dispatch()
    limit = {"error": "SageMaker.ResourceLimitExceededException", "cause": "quota"}

    world.settle({"run_id": run_id, "step": 1, **limit})

    assert set(world.statuses().values()) == {"waiting"}
    assert "ResourceLimitExceeded" in world.reason(world.files.read_plan(run_id)[0])


def test_a_settlement_cut_short_decides_the_same_of_what_is_left(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a drop that is settled second would be judged by the few that are still claimed."""
    world.budget = 0.25
    drops = [world.drop(f"input/{number:02}.csv") for number in range(12)]
    for drop in drops[:4]:
        world.jobs.said[drop.key] = "Bad HTTP status received from algorithm: 500"
    world.pass_time(60)
    (run_id,) = world.dispatch()
    world.do_job(run_id)
    for drop in drops[:2] + drops[6:]:
        world.ledger.fail_drop(run_id, drop, reason="settled before the cut")

    world.settle({"run_id": run_id, "step": 1})

    assert "(4 of the 12 drops" in world.reason(drops[2])
    assert world.statuses()[drops[3].key] == "failed"
