"""The file of prices: what the user pays, for `batch-transform cost`.

Nothing here knows a price; all are the user's, or the Price List's (see `price_list`).
"""

import os
import tempfile
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from batch_transform.yaml_existing import Entry, Written
from batch_transform.yaml_problems import validated
from batch_transform.yaml_text import YamlError, YamlText
from batch_transform_cli.errors import CommandError

_MOST = 1_000_000


def _exact(given: object) -> Decimal:
    if isinstance(given, int | float | str | Decimal) and not isinstance(given, bool):
        try:
            price = Decimal(str(given))  # of the digits that were written, not of the binary float
        except InvalidOperation:
            price = Decimal("NaN")
        if price.is_finite() and 0 <= price <= _MOST:
            return price
    raise ValueError(f"a price must be a number from 0 to {_MOST:,}, got {given!r}; correct it")


Price = Annotated[
    Decimal, BeforeValidator(_exact), WithJsonSchema({"type": "number", "minimum": 0})
]


def _each(what: str) -> Any:
    return Field(default=None, description=f"One {what}.")


class Prices(Entry):
    """What one unit costs; what has no price is counted and not priced."""

    currency: Annotated[str, Written(r"[A-Z]{3}", "three letters such as USD")] = Field(
        description="Of all prices."
    )
    region: Annotated[str, Written(r"[a-z]{2}(-[a-z]+)+-\d", "a region such as eu-west-1")] = Field(
        description="Where these prices hold."
    )
    instance_hour: dict[str, Price] = Field(
        description="An hour of one instance in a transform job, by type."
    )
    step_functions: Price | None = _each("state transition")
    lambda_: Price | None = Field(
        default=None, alias="lambda", description="One request of a function."
    )
    lambda_gb_s: Price | None = _each("second of a function with one GB")
    dynamodb_write: Price | None = _each("write unit, on demand")
    dynamodb_read: Price | None = _each("read unit, on demand")
    s3_get: Price | None = _each("GET or HEAD")
    s3_put: Price | None = _each("PUT or COPY")
    s3_list: Price | None = _each("LIST")
    sqs: Price | None = _each("request of a queue")

    @property
    def calls(self) -> Mapping[str, Decimal]:
        """What each kind of call costs, of those that have a price."""
        told = self.model_dump(by_alias=True, exclude_none=True)
        return {name: price for name, price in told.items() if isinstance(price, Decimal)}


def load_prices(path: Path) -> Prices:
    """Read a file of prices, which is YAML or JSON.

    :raises CommandError: with every problem, a line each.
    """
    try:
        return validated(YamlText(path), Prices)
    except YamlError as refused:
        raise CommandError(str(refused).replace("\n", "\nbatch-transform: ")) from None


def written(prices: Prices) -> str:
    """Return the file that `load_prices` reads as these prices."""
    lines = [f"currency: {prices.currency}", f"region: {prices.region}", "instance_hour:"]
    lines += [f"  {name}: {price:f}" for name, price in sorted(prices.instance_hour.items())]
    lines += [f"{name}: {price:f}" for name, price in prices.calls.items()]
    return "\n".join(lines) + "\n"


def fill(path: Path, found: Prices) -> int:
    """Write prices into a file, where what it has besides them stays; return how many types it has.

    :raises CommandError: it is a file of another region or currency, or no file of prices.
    """
    if path.exists():
        known = load_prices(path)
        for what, before, now in (
            ("region", known.region, found.region),
            ("currency", known.currency, found.currency),
        ):
            if before != now:
                raise CommandError(
                    f"{path} must be of {what} {now}, got {before}; write to another file"
                )
        merged = {**known.instance_hour, **found.instance_hour}
        found = known.model_copy(update={"instance_hour": merged})
    # Beside it and renamed, so that it is whole even if this is cut short.
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        file.write(written(found))
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)
    return len(found.instance_hour)
