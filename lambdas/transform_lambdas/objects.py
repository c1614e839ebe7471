"""Objects of one bucket, as they are read."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

_CHUNK_BYTES = 1024 * 1024


class Objects:
    """Opens objects, and reads them piece by piece."""

    def __init__(self, s3: Any, bucket: str) -> None:
        self._s3 = s3
        self.bucket = bucket

    def open(self, key: str, *, start: int = 0, etag: str = "") -> Any:
        """Return the stream of an object's bytes from `start` on, to be closed.

        :param etag: of the version that it must be, or S3 refuses. Default: any.
        """
        more: dict[str, str] = {}
        if start:
            more["Range"] = f"bytes={start}-"  # an empty object has no range
        if etag:
            more["IfMatch"] = f'"{etag}"'
        return self._s3.get_object(Bucket=self.bucket, Key=key, **more)["Body"]

    def chunks(self, key: str, *, start: int = 0, etag: str = "") -> Iterator[bytes]:
        """Yield an object's bytes from `start` on."""
        with closing(self.open(key, start=start, etag=etag)) as stream:
            yield from stream.iter_chunks(_CHUNK_BYTES)
