"""The whole way, on this machine: what is dropped comes out, and is found by its id."""

import subprocess
import sys
from pathlib import Path

import pytest

from batch_transform_cli.synthesis import synthesize
from local_cloud import LocalCloud

PROJECT = Path(__file__).resolve().parents[1]
LIMIT_S = 120


@pytest.fixture(scope="module")
def assembly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cdk.out")
    synthesize(PROJECT, folder)
    return folder


def test_the_app_has_a_stack_for_each_pipeline(assembly: Path) -> None:
    assert [path.name for path in assembly.rglob("*.template.json")] == ["Starter.template.json"]


def test_a_dropped_file_is_scored_and_its_records_are_found_by_their_ids(assembly: Path) -> None:
    with LocalCloud() as cloud:
        cloud.deploy(assembly)

        batch_transform(cloud, "drop", PROJECT / "data" / "customers.csv", "--wait")

        assert (
            batch_transform(cloud, "lookup", "C-1001", "C-1002") == "C-1001\t0.95\nC-1002\t0.026\n"
        )


def batch_transform(cloud: LocalCloud, *arguments: object) -> str:
    """Run the command against the cloud, and return what it printed."""
    command = [sys.executable, "-m", "batch_transform_cli", *map(str, arguments)]
    ended = subprocess.run(
        [*command, "--endpoint", cloud.endpoint],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
