"""Simulates a day at each volume: `python -m benchmarks.scale`, see docs/scale.md.

Prints the tables. With the committed inputs and --write it brings docs/scale.md and its picture up
to date.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.scale.inputs import COMMITTED, Inputs
from benchmarks.scale.report import draw, results, tables

PAGE = Path(__file__).resolve().parents[2] / "docs" / "scale.md"
BEGIN, END = "<!-- written by python -m benchmarks.scale --write -->", "<!-- until here -->"


def main(arguments: Sequence[str]) -> int:
    """Simulate what the arguments name and print it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale")
    parser.add_argument("--inputs", type=Path, default=COMMITTED, help="a file like inputs.yaml")
    parser.add_argument("--up-to", type=int, help="leave larger volumes out, which take longer")
    parser.add_argument("--picture", type=Path, help="where to draw it, as .svg or .png")
    parser.add_argument("--write", action="store_true", help="write the page in docs/ anew")
    asked = parser.parse_args(arguments)
    try:
        inputs = Inputs.read(asked.inputs)
    except (ValueError, OSError) as error:
        print(f"scale: the inputs must be like {COMMITTED.name}: {error}", file=sys.stderr)
        return 2
    found = []
    for result in results(inputs, up_to=asked.up_to):
        print(f"{result.uploads:,} uploads, {result.way}", file=sys.stderr)
        found.append(result)
    print(tables(found))
    if asked.picture:
        draw(found, asked.picture)
    if asked.write:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n\n{tables(found)}\n\n{END}{rest.partition(END)[2]}")
        draw(found, PAGE.with_suffix(".svg"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
