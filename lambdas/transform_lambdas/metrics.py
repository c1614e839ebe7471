"""Metrics by CloudWatch's embedded metric format: one JSON line on stdout, no call, no permission.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

import json
import time
from collections.abc import Mapping

NAMESPACE = "BatchTransform"


def emit(pipeline_id: str, values: Mapping[str, int], *, unit: str = "Count") -> None:
    """Write values as metrics of the pipeline; the construct's `metrics` facade reads them."""
    definition = {
        "Namespace": NAMESPACE,
        "Dimensions": [["Pipeline"]],
        "Metrics": [{"Name": name, "Unit": unit} for name in values],
    }
    line = {
        "_aws": {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [definition]},
        "Pipeline": pipeline_id,
        **values,
    }
    print(json.dumps(line), flush=True)
