"""The members of the service's own model of its API."""

from collections.abc import Collection, Iterator
from typing import Any


def members(shape: Any, path: str = "", *, but: Collection[str] = ()) -> Iterator[str]:
    """Every leaf of a shape as `TransformInput.DataSource…`, without what lies in members `but`."""
    if shape.type_name == "structure":
        for name, member in shape.members.items():
            if name not in but:
                yield from members(member, f"{path}.{name}" if path else name, but=but)
    elif shape.type_name == "list":
        yield from members(shape.member, path, but=but)
    else:
        yield path
