"""What a transform job's instances cost, as AWS's Price List API tells it."""

import json
from collections.abc import Collection, Iterator, Mapping
from decimal import Decimal
from typing import Any

from botocore.exceptions import UnknownRegionError

from batch_transform_cli.cloud import Cloud
from batch_transform_cli.cost.prices import Prices
from batch_transform_cli.errors import BadValue, CommandError

_USAGE = "Tsform:"
"""In usage types of transform jobs, before the instance type: `EU-Tsform:ml.m5.large`."""


def instance_prices(pricing: Any, *, region: str, instance_types: Collection[str] = ()) -> Prices:
    """Ask for the prices on demand of a region.

    :param pricing: a client of the service `pricing`, which is in few regions and knows all.
    :param instance_types: Default: all that a transform job can have there.
    :raises CommandError: the list has none, lacks one of the types, or has two prices for one.
    """
    wanted = {
        "productFamily": "ML Instance",
        "regionCode": region,
        "platoinstancetype": "BatchTransform",
    }
    pages = pricing.get_paginator("get_products").paginate(
        ServiceCode="AmazonSageMaker",
        Filters=[
            {"Type": "TERM_MATCH", "Field": name, "Value": value} for name, value in wanted.items()
        ],
    )
    hours: dict[str, Decimal] = {}
    currency = ""
    for instance_type, unit_prices in _products(pages):
        if instance_types and instance_type not in instance_types:
            continue
        ((currency, price),) = unit_prices.items()
        if hours.setdefault(instance_type, price) != price:
            raise CommandError(
                f"{instance_type} must have one price in {region}, got {hours[instance_type]} and "
                f"{price}; write the one that you pay into the file"
            )
    lacking = sorted({*instance_types} - {*hours}) or ([] if hours else ["any type"])
    if lacking:
        raise CommandError(
            f"the Price List must have transform jobs' instances in {region}, got none of "
            f"{', '.join(lacking)}; correct the type or --region"
        )
    return Prices(currency=currency, region=region, instance_hour=hours)


def price_list(region: str | None) -> tuple[Any, str]:
    """Return a client of the Price List, and the region whose prices are asked for.

    :param region: Default: that of the AWS environment.
    :raises CommandError: there is no Price List of it.
    """
    cloud = Cloud()
    region = region or cloud.session.region_name
    if region is None:
        raise CommandError("--region must be given, got none, nor AWS_REGION; name one")
    if cloud.endpoint is not None:
        raise CommandError(
            f"prices must come from AWS, got {cloud.endpoint}; unset AWS_ENDPOINT_URL"
        )
    try:
        partition = cloud.session.get_partition_for_region(region)
    except UnknownRegionError:
        raise BadValue(f"--region must be one of AWS, got {region!r}; correct it") from None
    homes = cloud.session.get_available_regions("pricing", partition_name=partition)
    if not homes:
        raise CommandError(
            f"there must be a Price List for {region}, got none in partition {partition}; "
            "write the prices that you pay into the file"
        )
    home = region if region in homes else max(homes)  # us-east-1 is there for all of `aws`
    return cloud.session.client("pricing", region_name=home), region


def _products(pages: Any) -> Iterator[tuple[str, Mapping[str, Decimal]]]:
    """Yield each instance type with its price an hour, by currency."""
    for page in pages:
        for text in page["PriceList"]:
            product = json.loads(text)
            attributes = product["product"]["attributes"]
            _, is_transform, instance_type = attributes["usagetype"].rpartition(_USAGE)
            if not is_transform or attributes.get("locationType") != "AWS Region":
                continue
            for term in product["terms"].get("OnDemand", {}).values():
                for dimension in term["priceDimensions"].values():
                    if dimension["unit"] in ("Hrs", "Hours"):
                        told = dimension["pricePerUnit"].items()
                        yield instance_type, {name: Decimal(price) for name, price in told}
