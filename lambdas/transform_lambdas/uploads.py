"""Which objects of the input bucket are drops, and which of those can be scored."""

from collections.abc import Sequence
from dataclasses import dataclass

from transform_lambdas.drops import Drop


@dataclass(frozen=True, kw_only=True, slots=True)
class Uploads:
    """What is asked of an object's name and size.

    :ivar suffixes: a drop's key ends with one of them; none lets every key be one.
    :ivar marker: the name of the objects that are no drops but make a batch due; empty for none.
    """

    prefix: str
    suffixes: Sequence[str] = ()
    marker: str = ""
    min_bytes: int | None = None
    max_bytes: int | None = None

    def is_marker(self, key: str) -> bool:
        """Whether it is the name of a marker object."""
        return bool(self.marker) and key.rsplit("/", 1)[-1] == self.marker

    def is_named_as_drop(self, key: str) -> bool:
        """Whether a drop may be called so."""
        return (
            key.startswith(self.prefix)
            and key.endswith(tuple(self.suffixes) or "")
            and not self.is_marker(key)
        )

    def problem(self, drop: Drop) -> str | None:
        """Why this drop can never be scored, if so."""
        if drop.problem:
            return drop.problem
        if self.max_bytes is not None and drop.size > self.max_bytes:
            return (
                f"a drop must have at most {self.max_bytes} bytes, got {drop.size}; "
                "cut it into several objects, or let the pipeline take larger ones"
            )
        if self.min_bytes is not None and drop.size < self.min_bytes:
            return (
                f"a drop must have at least {self.min_bytes} bytes, got {drop.size}; "
                "upload it whole, or let the pipeline take smaller ones"
            )
        return None
