"""The same app, deployed by the real CDK CLI: `cdk bootstrap` and `cdk deploy`."""

import subprocess
import sys
from pathlib import Path

from local_cloud import LocalCloud

from .conftest import PROJECT, Trace, deployed

CDK = Path(sys.executable).with_name("cdk")
LIMIT_S = 120


def test_what_the_cdk_cli_deploys_scores_a_drop(
    build: Path, rows: dict[str, list[str]], trace: Trace, tmp_path: Path
) -> None:
    with LocalCloud() as cloud:
        for arguments in (
            ["bootstrap", "aws://000000000000/us-east-1"],
            ["deploy", "--all", "--require-approval", "never"],
        ):
            ended = subprocess.run(
                [CDK, *arguments, "--output", tmp_path, "--no-notices"],
                cwd=PROJECT,
                env=trace.environment(**cloud.cdk_environment(), CI="1"),
                capture_output=True,
                text=True,
                timeout=LIMIT_S,
            )
            assert ended.returncode == 0, ended.stderr

        stack = cloud.client("cloudformation").describe_stacks(StackName="BreastCancer")
        outputs = stack["Stacks"][0]["Outputs"]
        pipeline = deployed(cloud, {o["OutputKey"]: o["OutputValue"] for o in outputs})
        key = pipeline.drop("a.csv", ",".join(["P1", *rows["P0001"]]).encode())
        (drop,) = pipeline.wait(key)

        assert (drop.status, drop.reason) == ("done", "")
        assert pipeline.output(key).startswith(b"P1,0.")
        assert pipeline.client.lookup("P1") is not None
    assert trace.nothing_is_left(), trace.processes()
