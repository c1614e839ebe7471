"""CDK constructs for event-driven SageMaker Batch Transform."""

from batch_transform.containers import ModelContainer, PrivateRegistry
from batch_transform.functions_vpc import FunctionsVpc
from batch_transform.grants import BatchTransformGrants
from batch_transform.index import PredictionIndex
from batch_transform.metrics import BatchTransformMetrics
from batch_transform.model import TransformModel
from batch_transform.model_roles import ModelVpc
from batch_transform.monitoring import Monitoring
from batch_transform.pipeline import BatchTransform
from batch_transform.policy import BatchPolicy
from batch_transform.server_limits import ModelServer, with_server_limits
from batch_transform.settings import (
    AssembleWith,
    BatchStrategy,
    CompressionType,
    DataCapture,
    DataProcessing,
    Experiment,
    JoinSource,
    ModelClientConfig,
    SplitType,
    TransformSettings,
)
from batch_transform.steps import InstanceCount, TransformStep
from batch_transform.task import S3Location, TransformTask
from batch_transform.uploads import Uploads

__all__ = [
    "AssembleWith",
    "BatchPolicy",
    "BatchStrategy",
    "BatchTransform",
    "BatchTransformGrants",
    "BatchTransformMetrics",
    "CompressionType",
    "DataCapture",
    "DataProcessing",
    "Experiment",
    "FunctionsVpc",
    "InstanceCount",
    "JoinSource",
    "ModelClientConfig",
    "ModelContainer",
    "ModelServer",
    "ModelVpc",
    "Monitoring",
    "PredictionIndex",
    "PrivateRegistry",
    "S3Location",
    "SplitType",
    "TransformModel",
    "TransformSettings",
    "TransformStep",
    "TransformTask",
    "Uploads",
    "with_server_limits",
]
