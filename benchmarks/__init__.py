"""Measures the engine: `python -m benchmarks`, see docs/benchmarks.md."""
