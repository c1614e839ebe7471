"""The chance that a customer leaves, from months, support calls and monthly charge.

A model to begin with: a weighted sum, whose numbers stand in `model.json` beside this file. Yours
may be anything that answers `predict`; what it imports, the image has to install.
"""

import json
from math import isfinite, tanh
from pathlib import Path

MODEL = json.loads(Path(__file__).with_name("model.json").read_text("utf-8"))


def predict(body: bytes) -> bytes:
    """Answer each row with one number; line feeds stand between rows, the service adds the last.

    :raises ValueError: a row is not as it should be; that fails the file, with this reason.
    """
    rows = enumerate(body.splitlines(), start=1)
    return b"\n".join(b"%.3f" % score(_numbers(row, number)) for number, row in rows)


def score(values: list[float]) -> float:
    weighted = zip(MODEL["weights"].values(), values, strict=True)
    total = MODEL["bias"] + sum(weight * value for weight, value in weighted)
    return 0.5 + 0.5 * tanh(total / 2)  # the logistic function, in a form that cannot overflow


def _numbers(row: bytes, number: int) -> list[float]:
    columns = list(MODEL["weights"])
    cells = row.decode().split(",")
    if len(cells) != len(columns):
        raise ValueError(
            f"row {number} must have {len(columns)} columns ({', '.join(columns)}), "
            f"got {len(cells)}"
        )
    values = []
    for column, cell in zip(columns, cells, strict=True):
        try:
            value = float(cell)
        except ValueError:
            value = float("nan")
        if not isfinite(value):
            raise ValueError(f"row {number}, column {column!r} must be a number, got {cell!r}")
        values.append(value)
    return values
