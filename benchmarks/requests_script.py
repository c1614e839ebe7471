"""What one writes in an afternoon instead: JSON Lines through a model, joined and filtered.

    python requests_script.py INPUT OUTPUT URL MAX_PAYLOAD_BYTES OUTPUT_FILTER

Whole records in payloads up to the limit, one kept connection, one request at a time, the reply's
lines joined to the records one to one, the output in order.
"""

import json
import sys
from collections.abc import Iterator
from typing import IO

import requests
from jsonpath_ng.parser import parse


def payloads(records: IO[bytes], limit: int) -> Iterator[list[bytes]]:
    """Group records into payloads of at most `limit` bytes."""
    payload: list[bytes] = []
    size = 0
    for record in records:
        if size + len(record) > limit and payload:
            yield payload
            payload, size = [], 0
        payload.append(record)
        size += len(record)
    if payload:
        yield payload


def transform(source: str, target: str, url: str, limit: int, output_filter: str) -> None:
    """Send a file's records through the model and write what the filter leaves of each."""
    expression = parse(output_filter)
    headers = {"Content-Type": "application/jsonlines", "Accept": "application/jsonlines"}
    with open(source, "rb") as records, open(target, "wb") as output, requests.Session() as session:
        for payload in payloads(records, limit):
            reply = session.post(
                f"{url}/invocations", data=b"".join(payload), headers=headers, timeout=600
            )
            reply.raise_for_status()
            predictions = reply.content.splitlines()
            lines = []
            for record, prediction in zip(payload, predictions, strict=True):
                joined = json.loads(record)
                joined["SageMakerOutput"] = json.loads(prediction)
                # What names match are Fields, which the type of a match does not say.
                kept = {m.path.fields[0]: m.value for m in expression.find(joined)}  # type: ignore[attr-defined]
                line = json.dumps(kept, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
                lines.append(line + "\n")
            output.write("".join(lines).encode())


if __name__ == "__main__":
    source, target, url, limit, output_filter = sys.argv[1:]
    print('{"event": "started"}', flush=True)
    transform(source, target, url, int(limit), output_filter)
    print('{"event": "ended"}', flush=True)
