"""The machine at hand."""

import pytest

from batch_transform_cli.doctor.machine import (
    disk_finding,
    engine_finding,
    machine_findings,
    node_finding,
    python_finding,
)


def test_this_machine_can_synthesize() -> None:
    found = [*machine_findings([], is_local=True)]
    assert {each.level for each in found} == {"ok"}, found


@pytest.mark.parametrize(("version", "level"), [((3, 10, 9), "fail"), ((3, 11, 0), "ok")])
def test_python_must_be_new_enough(version: tuple[int, ...], level: str) -> None:
    assert python_finding(version).level == level


@pytest.mark.parametrize(
    ("version", "level"), [(None, "fail"), ("v18.1.0", "fail"), ("v22.0.0", "ok"), ("?", "fail")]
)
def test_node_must_be_new_enough(version: str | None, level: str) -> None:
    assert node_finding(version).level == level


@pytest.mark.parametrize(("free", "level"), [(10**7, "fail"), (10**9, "warn"), (10**10, "ok")])
def test_there_must_be_room(free: int, level: str) -> None:
    assert disk_finding("/tmp", free).level == level


@pytest.mark.parametrize(
    ("built", "without_serve", "is_local", "level"),
    [
        pytest.param(0, 0, False, "ok", id="no image"),
        pytest.param(1, 0, False, "warn", id="to be built for AWS"),
        pytest.param(1, 0, True, "ok", id="a serve runs as a process"),
        pytest.param(2, 1, True, "fail", id="to be run here"),
    ],
)
def test_a_container_engine_is_needed_by_some_images(
    built: int, without_serve: int, is_local: bool, level: str
) -> None:
    found = engine_finding(None, built=built, without_serve=without_serve, is_local=is_local)
    assert found.level == level
