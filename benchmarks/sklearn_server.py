"""A model server as many are written: flask, and the example's model asked by scikit-learn.

Run by the example's `serve`, in the place of the example's `model_server.py`, which needs no
scikit-learn to score a row.
"""

import io

import numpy as np
from flask import Flask, Response, request
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def load() -> Flask:
    """Train the model, always the same one, and return the application that asks it."""
    table = load_breast_cancer()
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(table.data, table.target)
    app = Flask(__name__)

    @app.get("/ping")
    def ping() -> str:
        return ""

    @app.post("/invocations")
    def invocations() -> Response:
        rows = np.loadtxt(io.StringIO(request.get_data(as_text=True)), delimiter=",", ndmin=2)
        scores = model.predict_proba(rows)[:, 1]
        return Response("".join(f"{score:.6f}\n" for score in scores), mimetype="text/csv")

    return app
