"""Scores rows of 30 numbers: CSV in, one probability of malignancy a line out."""

import csv
import io
import json
import math
import os
from pathlib import Path

import numpy as np
from flask import Flask, Response, request


class Model:
    """A standard scaler and a logistic regression, as `train.py` wrote them down."""

    def __init__(self, folder: Path) -> None:
        try:
            text = (folder / "model.json").read_text()
        except OSError as error:
            raise SystemExit(
                f"the model archive must hold model.json, got {error}; pack what train.py wrote"
            ) from None
        parameters = json.loads(text)
        self.columns: list[str] = parameters["columns"]
        self._mean = np.array(parameters["mean"])
        self._scale = np.array(parameters["scale"])
        self._coefficients = np.array(parameters["coefficients"])
        self._intercept = float(parameters["intercept"])

    def score(self, rows: list[list[float]]) -> list[float]:
        """Return the probability of malignancy for each row."""
        scaled = (np.array(rows) - self._mean) / self._scale
        scores: list[float] = (
            1 / (1 + np.exp(-(scaled @ self._coefficients + self._intercept)))
        ).tolist()
        return scores


class BadRow(ValueError):
    """A row that cannot be scored: says which one, and why."""


def read_rows(body: str, columns: list[str]) -> list[list[float]]:
    """Read CSV rows that hold one number for each column.

    :raises BadRow: for the first row that does not.
    """
    rows = []
    for number, texts in enumerate(csv.reader(io.StringIO(body)), start=1):
        if len(texts) != len(columns):
            raise BadRow(
                f"row {number} must have {len(columns)} columns, got {len(texts)}; "
                "mend it and drop the file again"
            )
        rows.append(
            [
                _finite(text, f"row {number}, column {name!r}")
                for text, name in zip(texts, columns, strict=True)
            ]
        )
    return rows


def _finite(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise BadRow(f"{where} must be a number, got {text!r}; mend it and drop the file again")
    return value


def create_app(model: Model) -> Flask:
    """Return the WSGI app that keeps SageMaker's container contract for `model`."""
    app = Flask(__name__)

    @app.get("/ping")
    def ping() -> Response:
        return Response(status=200)

    @app.post("/invocations")
    def invocations() -> Response:
        if request.mimetype != "text/csv":
            return _refusal(
                415,
                f"Content-Type must be text/csv, got {request.mimetype or 'none'}; send CSV rows",
            )
        try:
            rows = read_rows(request.get_data().decode(), model.columns)
        except UnicodeDecodeError as error:
            byte = error.object[error.start]
            return _refusal(400, f"the body must be UTF-8, got byte {byte:#04x}; send CSV text")
        except (BadRow, csv.Error) as error:
            return _refusal(400, str(error))
        if not rows:
            return _refusal(400, "the body must hold at least one row, got none; send CSV rows")
        return Response(
            "".join(f"{score:.6f}\n" for score in model.score(rows)), mimetype="text/csv"
        )

    return app


def _refusal(status: int, reason: str) -> Response:
    return Response(reason + "\n", status=status, mimetype="text/plain")


def load() -> Flask:
    """Return the app for the model that stands where SageMaker unpacks it."""
    return create_app(Model(Path(os.environ.get("SM_MODEL_DIR", "/opt/ml/model"))))
