"""Print the schema of a file of pipelines."""

import json
from typing import Annotated

import typer


def schema(
    accounts: Annotated[bool, typer.Option("--accounts", help="Of the file of accounts.")] = False,
) -> None:
    """Print the JSON Schema of a file of pipelines, for editors and other programs."""
    from batch_transform.accounts_file import AccountsFile
    from batch_transform.pipelines_file import schema as schema_of

    print(json.dumps(schema_of(AccountsFile if accounts else None), indent=1))
