"""The command batch-transform."""
