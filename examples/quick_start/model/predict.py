"""The chance that a customer leaves, from months, support calls and monthly charge."""

from math import tanh


def predict(body: bytes) -> bytes:
    """Answer each row with one number; line feeds stand between rows, the service adds the last."""
    return b"\n".join(b"%.3f" % score(*map(float, row.split(b","))) for row in body.splitlines())


def score(months: float, calls: float, charge: float) -> float:
    # The logistic function, in a form that cannot overflow.
    return 0.5 + 0.5 * tanh((0.6 * calls + 0.01 * charge - 0.08 * months) / 2)
