"""CDK constructs for event-driven SageMaker Batch Transform."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from batch_transform.account_settings import AccountSettings, AccountVpc
from batch_transform.containers import ModelContainer, PrivateRegistry
from batch_transform.model import TransformModel
from batch_transform.monitoring_policy import Monitoring
from batch_transform.networks import FunctionsVpc, ModelVpc
from batch_transform.policy import BatchPolicy
from batch_transform.prediction_index import PredictionIndex
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
from batch_transform.uploads import Uploads

if TYPE_CHECKING:
    from batch_transform.account import Account
    from batch_transform.account_baseline import AccountBaseline
    from batch_transform.account_stack_set import AccountBaselineStackSet
    from batch_transform.grants import BatchTransformGrants
    from batch_transform.metrics import BatchTransformMetrics
    from batch_transform.pipeline import BatchTransform
    from batch_transform.pipelines_app import define_pipelines
    from batch_transform.task import S3Location, TransformTask
    from batch_transform.yaml_text import YamlError

__all__ = [
    "Account",
    "AccountBaseline",
    "AccountBaselineStackSet",
    "AccountSettings",
    "AccountVpc",
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
    "YamlError",
    "define_pipelines",
    "with_server_limits",
]

# CDK takes a second to import and starts Node, which only those wait for who make constructs.
_LATER = {
    "Account": "account",
    "AccountBaseline": "account_baseline",
    "AccountBaselineStackSet": "account_stack_set",
    "BatchTransform": "pipeline",
    "BatchTransformGrants": "grants",
    "BatchTransformMetrics": "metrics",
    "S3Location": "task",
    "TransformTask": "task",
    "YamlError": "yaml_text",
    "define_pipelines": "pipelines_app",
}


def __getattr__(name: str) -> Any:
    """Import what needs CDK, or YAML, when it is first asked for."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
