"""Where a pipeline keeps what in its output bucket."""

from dataclasses import dataclass

from batch_transform.names import check_prefix
from batch_transform.tokens import is_token

PREDICTIONS = "predictions/"
RUNS = "runs/"
REPORTS = "reports/"

# With the longest key of a drop it is no longer than what a run's files have.
_PREFIX_LENGTH = 64


@dataclass(frozen=True, slots=True)
class StepPlace:
    """Where a step has its files under the prefix of a run; it is one `of` so many, from 1 on."""

    number: int
    of: int

    @property
    def manifest(self) -> str:
        """The list of what its job reads."""
        return f"manifest-{self.number}.json"

    @property
    def folder(self) -> str:
        """Where its job writes."""
        return f"step-{self.number}-of-{self.of}"

    @property
    def before(self) -> "StepPlace | None":
        """The place of the step whose outputs it reads; `None` for the first, which reads drops."""
        return StepPlace(self.number - 1, self.of) if self.number > 1 else None


def check_output_prefix(output_prefix: str) -> None:
    """Refuse a prefix under which the outputs of a pipeline cannot lie.

    :raises ValueError: it is no folder's, too long, or that of a run's own files.
    """
    if is_token(output_prefix):
        return
    check_prefix(
        "output_prefix",
        output_prefix,
        better="output",
        otherwise="outputs would lie beside it",
    )
    if len(output_prefix) > _PREFIX_LENGTH:
        raise ValueError(
            f"output_prefix must have at most {_PREFIX_LENGTH} characters, got "
            f"{len(output_prefix)}; the keys of drops follow it"
        )
    for prefix in (RUNS, REPORTS):
        if output_prefix.startswith(prefix):
            raise ValueError(
                f"output_prefix must not lie under {prefix!r}, where runs keep their own files, "
                f"got {output_prefix!r}; use for example {PREDICTIONS!r}"
            )
