"""The tags of models and transform jobs."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from local_cloud import emulator, listing
from local_cloud.refusals import invalid

_LIMIT = 50


class Tags:
    """The tags of every account's and region's resources, by ARN."""

    def __init__(self) -> None:
        self.stored = emulator.scoped_dict()
        self._exists: list[Callable[[str], bool]] = []

    def cover(self, exists: Callable[[str], bool]) -> None:
        """Let callers tag a kind of resource: those whose ARN `exists` knows."""
        self._exists.append(exists)

    def put(self, arn: str, tags: Iterable[Mapping[str, str]]) -> None:
        """Add tags to a resource, in place of its tags of the same keys."""
        merged = {**self.of(arn), **{tag["Key"]: tag["Value"] for tag in tags}}
        if len(merged) > _LIMIT:
            raise invalid(
                f"A resource must have at most {_LIMIT} tags, got {len(merged)}; remove some"
            )
        self.stored[arn] = merged

    def of(self, arn: str) -> dict[str, str]:
        """Return the tags of a resource, by key."""
        found: dict[str, str] = self.stored.get(arn, {})
        return found

    def forget(self, arn: str) -> None:
        """Drop the tags of a resource that goes."""
        self.stored.pop(arn, None)

    def add(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Add or overwrite tags of a resource."""
        arn = self._known(request)
        self.put(arn, request["Tags"])
        return {"Tags": self._listed(arn)}

    def list(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the tags of a resource; the shortest page there is has room for all of them."""
        arn = self._known(request)
        listing.refuse_token(request)
        return {"Tags": self._listed(arn)}

    def delete(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Remove the tags of those keys."""
        arn = self._known(request)
        gone = set(request["TagKeys"])
        self.stored[arn] = {key: value for key, value in self.of(arn).items() if key not in gone}
        return {}

    def _known(self, request: Mapping[str, Any]) -> str:
        arn: str = request["ResourceArn"]
        if not any(exists(arn) for exists in self._exists):
            raise invalid(f"Could not find resource {arn}.")
        return arn

    def _listed(self, arn: str) -> Any:
        return [{"Key": key, "Value": value} for key, value in self.of(arn).items()]
