"""How a job's run and its end meet, whenever the stop comes."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from local_cloud import Images, processes
from local_cloud.images import ImageSources
from local_cloud.job_runner import JobRunner, Order, Outcome

from .conftest import transform_request

ARN = "arn:aws:sagemaker:us-east-1:000000000000:transform-job/a-job"
MODEL = {"PrimaryContainer": {"Image": "capitals:1"}}
LIMIT_S = 10


class FakeRun:
    """An engine that ends when it is told to."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.may_end = threading.Event()
        self.stops = 0

    def wait(self) -> Outcome:
        assert self.may_end.wait(LIMIT_S)
        return self.outcome

    def stop(self) -> None:
        self.stops += 1
        self.may_end.set()


class Job:
    """One job that a runner runs."""

    def __init__(self, runner: JobRunner) -> None:
        self.runner = runner
        self.outcomes: list[Outcome] = []
        self.started, self.ended = threading.Event(), threading.Event()

    def start(self, on_start: Callable[[], None] = lambda: None) -> None:
        def note(outcome: Outcome) -> None:
            self.outcomes.append(outcome)
            self.ended.set()

        def start() -> None:
            on_start()
            self.started.set()

        request = transform_request("a-job", "a-model", "a-bucket")
        self.runner.start(ARN, request, MODEL, on_start=start, on_end=note)

    def outcome(self) -> Outcome:
        assert self.ended.wait(LIMIT_S)
        (outcome,) = self.outcomes
        return outcome


@pytest.fixture
def runner(
    tmp_path: Path, image_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[Order], FakeRun]], JobRunner]:
    monkeypatch.setenv(processes.MARKER, "this-test")
    images = Images(tmp_path / "images")
    images.register("capitals:1", image_dir)
    sources = ImageSources(images, lambda uri: "no container engine is there")
    return lambda launch: JobRunner(sources, launch, work_root=tmp_path / "jobs")


Runner = Callable[[Callable[[Order], FakeRun]], JobRunner]


def test_a_job_ends_as_the_engine_says_and_leaves_no_folder(runner: Runner, tmp_path: Path) -> None:
    run = FakeRun(Outcome("Failed", "ClientError: See job logs for more information"))
    orders: list[Order] = []

    def launch(order: Order) -> FakeRun:
        assert order.work_dir.is_dir()
        orders.append(order)
        return run

    job = Job(runner(launch))
    job.start()
    run.may_end.set()
    assert job.outcome() == run.outcome
    (order,) = orders
    assert order.containers[0].environment[processes.MARKER] == "this-test"
    assert list((tmp_path / "jobs").iterdir()) == []


def test_a_stop_before_the_launch_launches_nothing(runner: Runner) -> None:
    def launch(order: Order) -> FakeRun:
        raise AssertionError("launched")

    job = Job(runner(launch))
    job.start(on_start=lambda: job.runner.stop(ARN))
    assert job.outcome() == Outcome("Stopped")


def test_a_stop_reaches_the_engine(runner: Runner) -> None:
    run = FakeRun(Outcome("Stopped"))
    launched = threading.Event()

    def launch(order: Order) -> FakeRun:
        launched.set()
        return run

    job = Job(runner(launch))
    job.start()
    assert launched.wait(LIMIT_S)
    job.runner.stop(ARN)
    assert job.outcome() == Outcome("Stopped")
    assert run.stops == 1


def test_a_stop_that_comes_too_late_leaves_the_outputs_and_the_job_completed(
    runner: Runner,
) -> None:
    run = FakeRun(Outcome("Completed"))
    launched = threading.Event()

    def launch(order: Order) -> FakeRun:
        launched.set()
        return run

    job = Job(runner(launch))
    job.start()
    assert launched.wait(LIMIT_S)
    job.runner.stop(ARN)
    assert job.outcome() == Outcome("Completed")
    job.runner.stop(ARN)  # Later still: there is nothing to stop.


def test_a_job_that_cannot_be_launched_has_failed(runner: Runner) -> None:
    def launch(order: Order) -> FakeRun:
        raise OSError("no more processes")

    job = Job(runner(launch))
    job.start()
    outcome = job.outcome()
    assert outcome.status == "Failed"
    assert outcome.failure_reason is not None
    assert outcome.failure_reason.startswith("InternalServerError: ")
    assert "no more processes" in outcome.failure_reason
