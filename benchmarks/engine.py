"""Runs the engine: one instance of a job, as the process that a job starts."""

import shutil
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.errors import BenchmarkError
from benchmarks.program import Run, run_program
from transform_engine.spec import Container, InstanceSpec, JobSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What the engine shall do with an input.

    :param input_path: a file, or a folder of objects.
    :param members: top-level members of the CreateTransformJob request.
    :param transform_input: members of its TransformInput; Line is the default for SplitType.
    """

    input_path: Path
    content_type: str = "text/csv"
    split_type: str = "Line"
    assemble_with: str = "None"
    max_concurrent: int = 1
    members: Mapping[str, Any]

    def request(self, output: Path) -> dict[str, Any]:
        """Return the CreateTransformJob request."""
        end = "/" if self.input_path.is_dir() else ""
        uri = self.input_path.as_uri() + end
        return {
            "TransformJobName": "benchmark",
            "ModelName": "benchmark",
            "MaxConcurrentTransforms": self.max_concurrent,
            "TransformInput": {
                "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri}},
                "ContentType": self.content_type,
                "SplitType": self.split_type,
            },
            "TransformOutput": {
                "S3OutputPath": output.as_uri(),
                "Accept": self.content_type,
                "AssembleWith": self.assemble_with,
            },
            "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
            **self.members,
        }


def run_engine(job: Job, url: str, output: Path) -> Run:
    """Run a job against a server that runs, with its outputs in a new folder `output`.

    :raises BenchmarkError: the job fails, or leaves something in its work folder.
    """
    scratch = output.with_name(f"scratch-{uuid.uuid4().hex[:8]}")
    work = scratch / "work"
    work.mkdir(parents=True)
    output.mkdir()
    spec = InstanceSpec(
        job=JobSpec(
            job_name="benchmark",
            request=job.request(output),
            containers=(Container(url=url),),
            work_dir=str(work),
        ),
        instance_id="i-benchmark",
        instance_index=0,
        instance_count=1,
        started_at=0,
    )
    try:
        spec.write(scratch / "spec.json")
        run = run_program(
            [sys.executable, "-m", "transform_engine.instance", scratch / "spec.json"]
        )
        left = [path.name for path in work.rglob("*") if not path.is_dir()]
        if left:
            raise BenchmarkError(f"a job must leave no file in its work folder, got {left}")
        return run
    finally:
        shutil.rmtree(scratch)
