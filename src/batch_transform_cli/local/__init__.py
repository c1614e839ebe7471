"""The cloud of a project on this machine: `batch-transform up`, and how others find it."""
