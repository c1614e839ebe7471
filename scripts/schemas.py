"""Writes the JSON Schemas of files of pipelines, accounts and prices, for editors, into docs/."""

import json
from pathlib import Path

from batch_transform.accounts_file import AccountsFile
from batch_transform.pipelines_file import schema
from batch_transform_cli.cost.prices import Prices

DOCS = Path(__file__).resolve().parents[1] / "docs"


def main() -> None:
    """Write the files."""
    for path, text in rendered().items():
        path.write_text(text)


def rendered() -> dict[Path, str]:
    """Return what the files are to hold."""
    schemas = {"pipelines": schema(), "accounts": schema(AccountsFile), "prices": schema(Prices)}
    return {
        DOCS / f"{name}.schema.json": json.dumps(made, indent=1) + "\n"
        for name, made in schemas.items()
    }


if __name__ == "__main__":
    main()
