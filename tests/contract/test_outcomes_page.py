"""The kinds of failures, as the page for operators has them."""

from pathlib import Path

from transform_lambdas import outcomes

PAGE = Path(__file__).resolve().parents[2] / "docs" / "operating.md"


def test_the_page_has_every_kind_and_what_it_means() -> None:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    rows = {cells[0]: cells for cells in ([*map(str.strip, line.split("|")[1:])] for line in lines)}
    kinds = [kind for kind in vars(outcomes).values() if isinstance(kind, outcomes.Kind)]

    assert len(kinds) == 14
    for kind in kinds:
        again, ages, apart = rows[kind.name][2:5]
        assert again.startswith("no") != kind.again
        if kind.again:
            assert (ages == "no") != kind.ages
            assert (apart == "yes") == kind.apart
