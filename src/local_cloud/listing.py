"""What the service's List operations have in common: filters, order and pages."""

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any

from local_cloud.refusals import invalid

_DEFAULT_SIZE = 10
_FOR_EVER = float("inf")


def passes(entry: Mapping[str, Any], request: Mapping[str, Any], *, name: str) -> bool:
    """Tell whether the filters of a List request leave an entry in.

    :param name: the member of the entry that `NameContains` looks at.
    """
    return (
        request.get("NameContains", "") in entry[name]
        and request.get("StatusEquals") in (None, entry.get("TransformJobStatus"))
        and all(
            request.get(f"{time}After", 0) < entry[time] < request.get(f"{time}Before", _FOR_EVER)
            for time in ("CreationTime", "LastModifiedTime")
            if time in entry
        )
    )


def page(
    request: Mapping[str, Any],
    entries: Iterable[Mapping[str, Any]],
    *,
    name: str,
    sort_members: Mapping[str, str],
) -> tuple[list[Mapping[str, Any]], dict[str, str]]:
    """Return one page in the order asked for, and the `NextToken` when more is to come.

    A token says which entry was the last one, so that pages neither repeat nor skip an entry when
    others come and go in between.

    :param name: the member that is unique.
    :param sort_members: which member of an entry each value of `SortBy` means.
    """
    sort_by = request.get("SortBy", "CreationTime")
    descending = request.get("SortOrder", "Descending") == "Descending"

    def place(entry: Mapping[str, Any]) -> tuple[Any, str]:
        return entry[sort_members[sort_by]], entry[name]

    ordered = sorted(entries, key=place, reverse=descending)
    if "NextToken" in request:
        last = _read(request["NextToken"], sort_by, descending)
        ordered = [
            entry
            for entry in ordered
            if (place(entry) < last if descending else place(entry) > last)
        ]
    size = request.get("MaxResults", _DEFAULT_SIZE)
    cut = ordered[:size]
    if len(ordered) <= size:
        return cut, {}
    return cut, {"NextToken": _token(sort_by, descending, *place(cut[-1]))}


def refuse_token(request: Mapping[str, Any]) -> None:
    """Refuse any `NextToken` of a listing that always fits on one page."""
    if "NextToken" in request:
        raise _bad_token()


def _token(*parts: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()


def _read(token: str, sort_by: str, descending: bool) -> tuple[Any, str]:
    try:
        sorted_by, was_descending, value, name = json.loads(
            base64.b64decode(token, altchars=b"-_", validate=True)
        )
    except (ValueError, TypeError) as error:
        raise _bad_token() from error
    kind = (int, float) if sort_by == "CreationTime" else str
    # Another order has another last entry.
    if (
        (sorted_by, was_descending) != (sort_by, descending)
        or not isinstance(value, kind)
        or not isinstance(name, str)
    ):
        raise _bad_token()
    return value, name


def _bad_token() -> Exception:
    return invalid("Invalid pagination token.")
