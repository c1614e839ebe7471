"""The chance that a customer leaves, from months, support calls and monthly charge."""

from math import exp


def predict(body: bytes) -> bytes:
    """Answer each row with one number; line feeds stand between rows, the service adds the last."""
    return b"\n".join(b"%.3f" % score(*map(float, row.split(b","))) for row in body.splitlines())


def score(months: float, calls: float, charge: float) -> float:
    return 1 / (1 + exp(0.08 * months - 0.6 * calls - 0.01 * charge))
