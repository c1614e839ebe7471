"""A drop: one version of one uploaded object."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Self

from transform_lambdas import clock

# An S3 key has at most 1,024 bytes; the longest that we make is that of the last of nine steps,
# runs/<run id>/step-9-of-9/<key>.out.out…, to which each has added its own `.out`.
KEY_LIMIT_BYTES = 1024 - len("runs/") - 52 - len("/step-9-of-9/") - 9 * len(".out")
# Sequencers of one key compare as text once the shorter is filled up with zeros on the right
# (https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html).
_SEQUENCER_WIDTH = 32
# S3 dates an event by when it had done the upload and a listing by when it began, in whole seconds.
_CLOCKS_DIFFER = timedelta(seconds=5)


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
        return _is_folder_marker(self.key, self.size)

    @property
    def was_listed(self) -> bool:
        """Whether a backfill found it, and not an event told of it."""
        return "+" in self.order

    def is_same_upload(self, other: "Drop") -> bool:
        """Whether a listing and an event, of one key, speak of the same upload."""
        apart = abs(clock.from_text(self.dropped_at) - clock.from_text(other.dropped_at))
        return self.etag == other.etag and apart <= _CLOCKS_DIFFER

    def below_if_older(self, listed: "Drop") -> "Drop":
        """Return the drop with an order below a listed one's, if it is an older version of its key.

        The sequencer of a late event may be above what was known when its key was listed.
        """
        ended = clock.from_text(self.dropped_at) + _CLOCKS_DIFFER
        if ended >= clock.from_text(listed.dropped_at):
            return self
        return replace(self, order=f"{listed.order.partition('+')[0]}!{self.order}")

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """An object as a listing shows it: the current version of its key."""

    key: str
    size: int
    etag: str
    modified_at: datetime

    @classmethod
    def from_s3(cls, entry: Mapping[str, Any]) -> Self:
        """Read an entry of ListObjectsV2."""
        return cls(
            key=entry["Key"],
            size=int(entry["Size"]),
            etag=entry["ETag"].strip('"'),
            modified_at=entry["LastModified"],
        )

    @property
    def is_folder_marker(self) -> bool:
        """Whether this is the empty object that consoles make for a folder."""
        return _is_folder_marker(self.key, self.size)

    def is_known(self, newest: Drop, listed_at: datetime) -> bool:
        """Whether `newest`, the newest drop of the key in the ledger, is this upload or after it.

        In doubt it is not: the object is then scored once too often, rather than never.
        """
        dropped_at = clock.from_text(newest.dropped_at)
        if newest.etag == self.etag:
            return dropped_at >= self.modified_at - _CLOCKS_DIFFER
        return dropped_at >= listed_at - _CLOCKS_DIFFER

    def to_drop(self, *, after: Drop | None) -> Drop:
        """Return the drop of this object.

        A listing has no sequencer. So its order is that of the newest drop known and a number:
        above all that are known, and below every upload that comes.
        """
        order, _, number = (after.order if after else "0" * _SEQUENCER_WIDTH).partition("+")
        return Drop(
            key=self.key,
            order=f"{order}+{int(number or 0) + 1:06d}",
            size=self.size,
            etag=self.etag,
            version_id="",
            dropped_at=clock.to_text(self.modified_at),
        )


def _is_folder_marker(key: str, size: int) -> bool:
    return key.endswith("/") and size == 0
