"""Deployed pipelines, on AWS or here: what the ledger knows of them, and what can be asked."""
