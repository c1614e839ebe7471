import csv
from pathlib import Path
from types import ModuleType


def test_training_twice_writes_the_same_bytes(train: ModuleType, tmp_path: Path) -> None:
    for name in ("one", "two"):
        train.train(tmp_path / name)
    one, two = (
        {p.relative_to(tmp_path / name): p.read_bytes() for p in files if p.is_file()}
        for name in ("one", "two")
        for files in [(tmp_path / name).rglob("*")]
    )
    assert one == two


def test_every_row_that_is_dropped_has_its_truth_and_one_row_alone_is_malformed(
    train: ModuleType, tmp_path: Path
) -> None:
    result = train.train(tmp_path)

    ids = []
    malformed = []
    for drop in result.drops:
        with drop.open() as lines:
            for row in csv.reader(lines):
                ids.append(row[0])
                if "n/a" in row:
                    malformed.append(drop)
    assert ids == list(result.truth)
    assert malformed == [result.malformed]
    assert len(result.drops) == 8
