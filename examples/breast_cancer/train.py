"""Trains the example's model and cuts the files that the demo drops.

Everything comes from the breast-cancer table that scikit-learn ships, and the same run always
writes the same bytes:

    build/model/model.json    what model.tar.gz will hold
    build/drops/*.csv         id first, no header, one of them malformed on purpose
    build/truth.csv           id and diagnosis of every row in build/drops
"""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

BUILD = Path(__file__).parent / "build"
FILES = 8
MALFORMED_FILE = 5
MALFORMED_ROW = 7
MALFORMED_COLUMN = 4  # of the features, so the fifth column of the file


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """What a training left behind."""

    model: Path
    drops: list[Path]
    malformed: Path
    truth: dict[str, str]
    training_rows: int
    accuracy: float


def train(build: Path = BUILD) -> Training:
    """Train on one half of the table, and write the other half as the files to score."""
    table = load_breast_cancer()
    malignant = table.target == 0
    seen_x, held_out_x, seen_y, held_out_y = train_test_split(
        table.data, malignant, test_size=0.5, random_state=0, stratify=malignant
    )
    pipeline = make_pipeline(StandardScaler(), LogisticRegression())
    pipeline.fit(seen_x, seen_y)

    scaler, classifier = pipeline[0], pipeline[1]
    # Plain numbers rather than a pickle: nothing in an archive can then run code when it is
    # loaded, and the image does not have to carry the version of scikit-learn that trained it.
    parameters = {
        "columns": [str(name) for name in table.feature_names],
        "mean": scaler.mean_.tolist(),
        "scale": scaler.scale_.tolist(),
        "coefficients": classifier.coef_[0].tolist(),
        "intercept": float(classifier.intercept_[0]),
    }
    model = build / "model"
    model.mkdir(parents=True, exist_ok=True)
    (model / "model.json").write_text(json.dumps(parameters, indent=1) + "\n")

    truth = {
        f"P{number:04}": "malignant" if is_malignant else "benign"
        for number, is_malignant in enumerate(held_out_y, start=1)
    }
    rows = [
        [patient, *map(str, features)] for patient, features in zip(truth, held_out_x, strict=True)
    ]
    drops = list(_write_drops(rows, build / "drops"))
    with (build / "truth.csv").open("w", newline="") as truth_file:
        csv.writer(truth_file, lineterminator="\n").writerows(truth.items())
    return Training(
        model=model,
        drops=drops,
        malformed=drops[MALFORMED_FILE - 1],
        truth=truth,
        training_rows=len(seen_y),
        accuracy=float(accuracy_score(held_out_y, pipeline.predict(held_out_x))),
    )


def _write_drops(rows: Sequence[Sequence[str]], folder: Path) -> Iterator[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    shares = np.array_split(np.arange(len(rows)), FILES)
    for number, share in enumerate(shares, start=1):
        part = [list(rows[int(index)]) for index in share]
        if number == MALFORMED_FILE:
            part[MALFORMED_ROW - 1][MALFORMED_COLUMN] = "n/a"
        path = folder / f"patients-{number:02}.csv"
        with path.open("w", newline="") as drop:
            csv.writer(drop, lineterminator="\n").writerows(part)
        yield path


if __name__ == "__main__":
    result = train()
    print(
        f"trained on {result.training_rows} rows, {result.accuracy:.1%} right on the other "
        f"{len(result.truth)}, which are in {len(result.drops)} files now"
    )
