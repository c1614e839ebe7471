import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

# aws_cdk reads these when it is imported; its own validation costs 4 CPU seconds a template.
os.environ["CDK_VALIDATION"] = "false"
os.environ["JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION"] = "20"

import pytest


@pytest.fixture(scope="session")
def train() -> ModuleType:
    """Return the example's train.py: examples are scripts, on nobody's import path."""
    path = Path(__file__).parents[2] / "examples" / "breast_cancer" / "train.py"
    spec = importlib.util.spec_from_file_location("breast_cancer_train", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
