"""Which objects of the input bucket are drops."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from batch_transform.names import check_prefix
from batch_transform.quantities import Size

# EventBridge refuses a rule that has too many wildcards, and tells nobody how many that are.
_MAX_SUFFIXES = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Uploads:
    """An object under `prefix` that ends with `suffix` is a drop.

    Each ends as predictions, or as failed with the reason: also one of a size that is not wanted,
    for what nobody is told of, nobody misses.

    :param prefix: ends with `/`.
    :param suffix: one, or up to five of which a drop ends with any. Default: any name is a drop's.
    :param min_size: a smaller drop fails, such as an upload that was cut off.
    :param max_size: a larger drop fails, which would otherwise occupy the jobs for hours.
    :param events: whether each upload is taken when it happens, for which the bucket has to send
        its events to EventBridge. Without it, drops are what a `schedule` or a backfill finds.
    """

    prefix: str = "input/"
    suffix: str | Sequence[str] = ""
    min_size: Size | None = None
    max_size: Size | None = None
    events: bool = True

    def __post_init__(self) -> None:
        check_prefix(
            "the prefix of uploads",
            self.prefix,
            better="input",
            otherwise="objects beside it would be taken for drops",
        )
        if len(self.suffixes) > _MAX_SUFFIXES:
            raise ValueError(
                f"suffix must be at most {_MAX_SUFFIXES} suffixes, got {len(self.suffixes)}; "
                "take what they have in common, or make a pipeline for each format"
            )
        if not isinstance(self.suffix, str) and not all(self.suffixes):
            raise ValueError(
                "each of several suffixes must have a character, got ''; "
                "leave suffix out to take every name"
            )
        sizes = self.min_bytes, self.max_bytes
        if None not in sizes and sizes[0] > sizes[1]:  # type: ignore[operator]  # neither is None
            raise ValueError(
                f"max_size must be at least min_size, got {sizes[1]} and {sizes[0]} bytes; "
                "exchange them"
            )

    @property
    def suffixes(self) -> list[str]:
        """Every suffix; none when any name is a drop's."""
        if isinstance(self.suffix, str):
            return [self.suffix] if self.suffix else []
        return list(self.suffix)

    @property
    def min_bytes(self) -> int | None:
        """The smallest size."""
        return None if self.min_size is None else int(self.min_size.to_bytes())

    @property
    def max_bytes(self) -> int | None:
        """The largest size."""
        return None if self.max_size is None else int(self.max_size.to_bytes())


def uploads_told(uploads: Uploads, *, marker: str | None) -> dict[str, Any]:
    """Return what a client cannot see by the prefix; what is not set is left out.

    :param marker: the name of the objects that make a batch due.
    """
    facts = {
        "suffixes": uploads.suffixes,
        "marker": marker,
        "min-bytes": uploads.min_bytes,
        "max-bytes": uploads.max_bytes,
        "events": None if uploads.events else False,
    }
    return {name: value for name, value in facts.items() if value not in (None, [])}
