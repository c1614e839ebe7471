"""When a batch is due."""

from dataclasses import dataclass, field

from batch_transform.quantities import DAY_S, Duration, Size, gibibytes, minutes

# A run's manifest and plan are one object each, and every drop is claimed by a conditional write.
_MAX_OBJECTS = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchPolicy:
    """A batch is due when its oldest drop waited long enough, or when it is full.

    :param max_wait: the longest that a drop waits for others.
    :param max_objects: a batch of so many drops is full; at most 10,000.
    :param max_bytes: a batch of so many bytes is full.
    :param marker: the name of an object (such as `_SUCCESS`) whose upload makes what lies beside
        it due at once. Default: none.
    """

    max_wait: Duration = field(default_factory=lambda: minutes(1))
    max_objects: int = 1000
    max_bytes: Size = field(default_factory=lambda: gibibytes(10))
    marker: str | None = None

    def __post_init__(self) -> None:
        if self.max_wait.to_seconds() > DAY_S:
            raise ValueError(
                f"max_wait must be at most 1 day, got {self.max_wait.to_human_string()}; "
                "set a shorter one, or a marker and drop it when the set is complete"
            )
        if not 1 <= self.max_objects <= _MAX_OBJECTS:
            raise ValueError(
                f"max_objects must be 1 to {_MAX_OBJECTS}, got {self.max_objects}; "
                "more drops than that become more than one batch"
            )
        if self.max_bytes.to_bytes() < 1:
            raise ValueError("max_bytes must be at least 1, got 0; leave it out for 10 GiB")
        if self.marker is not None and (not self.marker or "/" in self.marker):
            raise ValueError(
                f"marker must be an object's name without folders, got {self.marker!r}; "
                "use for example '_SUCCESS'"
            )

    def to_environment(self) -> dict[str, str]:
        """Return the policy as dispatch reads it."""
        return {
            "MAX_WAIT_S": str(int(self.max_wait.to_seconds())),
            "MAX_OBJECTS": str(self.max_objects),
            "MAX_BYTES": str(int(self.max_bytes.to_bytes())),
            "MARKER": self.marker or "",
        }
