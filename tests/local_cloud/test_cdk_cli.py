"""The real CDK CLI against the local cloud, without a container engine."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from local_cloud import LocalCloud

from .assembly import model, write_assembly
from .conftest import ROLE

CDK = Path(sys.executable).with_name("cdk")

pytestmark = pytest.mark.skipif(not CDK.exists(), reason="scripts/setup installs the CDK CLI")


def _cdk(cloud: LocalCloud, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(CDK.parent), os.environ["PATH"]])
    return subprocess.run(
        [CDK, *arguments, "--require-approval", "never"],
        env={**os.environ, **cloud.cdk_environment(), "PATH": path, "CI": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
    )


def test_the_cdk_cli_goes_on_after_our_deployer_with_images_and_models(
    tmp_path: Path, image_dir: Path
) -> None:
    template = {"Resources": {"Model": model("1a2b", ROLE)}}
    shutil.copytree(image_dir, tmp_path / "cdk.out" / "asset.1a2b")
    write_assembly(tmp_path / "cdk.out", {"ByCli": template}, images={"1a2b": Path("asset.1a2b")})
    with LocalCloud() as cloud:
        write_assembly(tmp_path / "before", {"Before": {"Resources": {}}})
        cloud.deploy(tmp_path / "before")
        bootstrapped = _cdk(cloud, tmp_path, "bootstrap", "aws://000000000000/us-east-1")
        assert bootstrapped.returncode == 0, bootstrapped.stderr
        for expected in ("Published", "no changes"):
            deployed = _cdk(cloud, tmp_path, "deploy", "--app", "cdk.out", "--all")
            assert deployed.returncode == 0, deployed.stderr
            assert expected in deployed.stdout + deployed.stderr
            assert "Warning" not in deployed.stderr

        (summary,) = cloud.client("sagemaker").list_models()["Models"]
        described = cloud.client("sagemaker").describe_model(ModelName=summary["ModelName"])
        image = cloud.images.find(described["PrimaryContainer"]["Image"])
        assert Path(image.command[0]).read_text() == (image_dir / "serve").read_text()

        (tmp_path / "cdk.out" / "asset.1a2b" / "serve").unlink()
        write_assembly(
            tmp_path / "cdk.out", {"NoServe": template}, images={"3c4d": Path("asset.1a2b")}
        )
        refused = _cdk(cloud, tmp_path, "deploy", "--app", "cdk.out", "--all")
        assert refused.returncode != 0
        assert "must hold a program `serve`" in refused.stderr
