"""The emulator with SageMaker plugged in, and the deployer of cloud assemblies.

with LocalCloud() as cloud:
    outputs = cloud.deploy("cdk.out")
    cloud.client("s3").upload_file("july.csv", outputs["Churn"]["InputBucket"], "input/july.csv")
"""

from local_cloud.cloud import ACCOUNT, REGION, LocalCloud
from local_cloud.errors import (
    CloudUnavailable,
    DeployFailed,
    EmulatorMismatch,
    ImageRefused,
    LocalCloudError,
    PortInUse,
)
from local_cloud.images import Image, Images

__all__ = [
    "ACCOUNT",
    "REGION",
    "CloudUnavailable",
    "DeployFailed",
    "EmulatorMismatch",
    "Image",
    "ImageRefused",
    "Images",
    "LocalCloud",
    "LocalCloudError",
    "PortInUse",
]
