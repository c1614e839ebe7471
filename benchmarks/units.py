"""What DynamoDB counts for a request, by its own rules of sizes and units.

https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html
"""

from collections.abc import Mapping, Sequence
from typing import Any

_WRITE_BYTES, _READ_BYTES = 1024, 4096


def item_bytes(item: Mapping[str, Any]) -> int:
    """Return the size of an item: its names and values."""
    return sum(len(name.encode()) + _value_bytes(value) for name, value in item.items())


def write_units(
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
    *,
    index: Sequence[str],
    transaction: bool,
) -> int:
    """Return what a write of one item costs, in the table and in its one index of all attributes.

    :param index: the attributes of the index's key; without them an item is not in it.
    """
    larger = max(item_bytes(before or {}), item_bytes(after or {}))
    units = max(1, -(-larger // _WRITE_BYTES)) * (2 if transaction else 1)
    old, new = (
        item if item is not None and all(name in item for name in index) else None
        for item in (before, after)
    )
    moved = old and new and any(old[name] != new[name] for name in index)
    # A change of the key is a deletion and a put.
    for each in (old, new) if moved else (new or old,):
        if each is not None:
            units += max(1, -(-item_bytes(each) // _WRITE_BYTES))
    return units


def read_units(items: Sequence[Mapping[str, Any]], *, consistent: bool) -> float:
    """Return what reading these items together costs."""
    read = sum(map(item_bytes, items))
    return max(1, -(-read // _READ_BYTES)) * (1.0 if consistent else 0.5)


def _value_bytes(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, bool) or value is None:
        return 1
    if isinstance(value, Mapping):
        return 3 + sum(1 + len(name.encode()) + _value_bytes(of) for name, of in value.items())
    if isinstance(value, list | tuple):
        return 3 + sum(1 + _value_bytes(of) for of in value)
    return len(str(value)) // 2 + 2  # a number: a byte for two digits, and one or two
