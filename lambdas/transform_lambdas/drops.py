"""A drop: one version of one uploaded object."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from transform_lambdas import clock

# An S3 key has at most 1,024 bytes; the longest that we make is that of the last of nine steps,
# runs/<run id>/step-9/<key>.out.out…, to which each has added its own `.out`.
KEY_LIMIT_BYTES = 1024 - len("runs/") - 52 - len("/step-9/") - 9 * len(".out")
# Sequencers of one key compare as text once the shorter is filled up with zeros on the right
# (https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html).
_SEQUENCER_WIDTH = 32


@dataclass(frozen=True, slots=True)
class Drop:
    """One version of one object under the watched prefix.

    :ivar order: sorts the versions of one key by upload, and tells them apart.
    :ivar dropped_at: when S3 took it, as `clock.to_text` writes it; S3 gives whole seconds.
    """

    key: str
    order: str
    size: int
    etag: str
    version_id: str
    dropped_at: str

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> Self:
        """Read EventBridge's "Object Created" event."""
        s3_object = event["detail"]["object"]
        return cls(
            key=s3_object["key"],
            order=s3_object["sequencer"].ljust(_SEQUENCER_WIDTH, "0"),
            size=int(s3_object.get("size", 0)),
            etag=s3_object.get("etag", ""),
            version_id=s3_object.get("version-id", ""),
            dropped_at=clock.to_text(clock.from_text(event["time"])),
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote."""
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @property
    def is_folder_marker(self) -> bool:
        """Whether this is the empty object that consoles make for a folder."""
        return self.key.endswith("/") and self.size == 0

    @property
    def problem(self) -> str | None:
        """Why this drop can never be scored, if so."""
        if self.size == 0:
            return (
                "a drop must hold at least one record, got an empty object; "
                "drop it again with its records, or name it as the batch's marker if it is one"
            )
        length = len(self.key.encode())
        if length > KEY_LIMIT_BYTES:
            return (
                f"a key must have at most {KEY_LIMIT_BYTES} bytes, or its output's is too long, "
                f"got {length}; upload it under a shorter key"
            )
        return None
