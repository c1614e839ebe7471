"""Writes the JSON Schemas of the files of pipelines and of accounts, for editors, into docs/."""

import json
from pathlib import Path

from batch_transform.accounts_file import AccountsFile
from batch_transform.pipelines_file import schema

DOCS = Path(__file__).resolve().parents[1] / "docs"


def main() -> None:
    """Write the files."""
    for path, text in rendered().items():
        path.write_text(text)


def rendered() -> dict[Path, str]:
    """Return what the files are to hold."""
    schemas = {"pipelines": schema(), "accounts": schema(AccountsFile)}
    return {
        DOCS / f"{name}.schema.json": json.dumps(made, indent=1) + "\n"
        for name, made in schemas.items()
    }


if __name__ == "__main__":
    main()
