"""One transform job on this machine, without a pipeline: `batch-transform run`."""
