"""A cloud that goes down in the middle of a run, and comes up again with what it had."""

import csv
from pathlib import Path

from batch_transform_cli.pipeline_client import Status
from local_cloud import LocalCloud

from .conftest import deployed, eventually


def test_a_run_that_a_restart_cuts_off_is_finished_and_its_drops_are_scored(
    assembly: Path, rows: dict[str, list[str]], tmp_path: Path
) -> None:
    state_dir = tmp_path / "state"
    with LocalCloud(state_dir=state_dir) as cloud:
        outputs = cloud.deploy(assembly)["BreastCancer"]
        port = int(cloud.endpoint.rpartition(":")[2])
        pipeline = deployed(cloud, outputs)
        keys = [
            pipeline.drop(f"{record_id}.csv", ",".join([record_id, *row]).encode())
            for record_id, row in list(rows.items())[:3]
        ]

        def runs(status: Status) -> bool:
            return any(run.status == "running" for run in status.runs)

        eventually(pipeline.client.status, runs)

    # Its execution failed with the server, and no event says so: the schedule has to find it.
    with LocalCloud(state_dir=state_dir, port=port) as cloud:
        drops = deployed(cloud, outputs).wait(*keys)

        assert {drop.status for drop in drops} == {"done"}
        for key in keys:
            ((record_id, _),) = csv.reader(pipeline.output(key).decode().splitlines())
            assert key.endswith(f"{record_id}.csv")
