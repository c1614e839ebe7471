"""What goes wrong in a benchmark, in words for the one who runs it."""


class BenchmarkError(Exception):
    """A measurement that is worth nothing: something failed, or an output is not as it must be."""


class Missing(BenchmarkError):
    """Something that the benchmarks need is not on this machine."""
