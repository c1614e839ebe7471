"""What a PNG file's header says of it, in the place of a network that needs a GPU."""

import json
import struct


def predict(body: bytes) -> bytes:
    """Answer one image with one JSON document."""
    if body[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError(f"a file must be a PNG image, got one that begins with {body[:8]!r}")
    width, height, depth = struct.unpack_from(">IIB", body, 16)
    return json.dumps({"width": width, "height": height, "bits": depth}).encode()
