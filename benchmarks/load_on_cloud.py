"""Drops files on the local cloud: `load_on_cloud.py ASSEMBLY FOLDER DROPS`, of one or more sizes.

The assembly is deployed as it is, but for a handler around each function's own that notes what an
invocation takes.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from batch_transform_cli.cloud import Cloud
from batch_transform_cli.pipelines.client import PipelineClient
from local_cloud import LocalCloud

HERE = Path(__file__).resolve().parent
_FUNCTIONS = ("intake", "dispatch", "settle", "index")
_LIMIT_S = 4 * 3600
_LOOK_S = 2
_LOOKS_SHARE = 0.02  # A look reads the whole ledger, and what is measured waits meanwhile.


def main(assembly: Path, folder: Path, sizes: list[int]) -> dict[str, Any]:
    """Drop so many files, a size after the other, and return what each took."""
    notes = folder / "notes.jsonl"
    notes.touch()
    limits = _meter(assembly, notes)
    figures = {}
    with LocalCloud(state_dir=folder / "state") as cloud:
        cloud.deploy(assembly)
        client = PipelineClient.find(Cloud(cloud.endpoint))
        before = 0
        for size in sizes:
            took = _drop(cloud, client, f"{size}", size, before=before)
            before += size
            lines = notes.read_text().splitlines()
            notes.write_text("")
            figures[str(size)] = {
                **took,
                "functions": _summed_up([json.loads(line) for line in lines]),
                "state_bytes": _largest_state(cloud),
            }
    return {"sizes": figures, "limits": limits}


def _meter(assembly: Path, notes: Path) -> dict[str, Any]:
    """Put the handler around each function's; return the memory and the time each has."""
    (path,) = assembly.glob("*.template.json")
    template = json.loads(path.read_text())
    limits = {}
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::Lambda::Function":
            properties = resource["Properties"]
            module = properties["Handler"].removesuffix(".handle")
            properties["Handler"] = "metered.handle"
            properties["Environment"]["Variables"] |= {
                "METERED_MODULE": module,
                "METERED_NOTES": str(notes),
                "PYTHONPATH": str(HERE / "metered"),
            }
            limits[module.rpartition(".")[2]] = {
                "bytes": properties["MemorySize"] * 2**20,
                "seconds": properties["Timeout"],
            }
    path.write_text(json.dumps(template))
    return limits


def _drop(
    cloud: LocalCloud, client: PipelineClient, name: str, size: int, *, before: int
) -> dict[str, float]:
    s3 = cloud.client("s3")
    began = time.monotonic()

    def put(number: int) -> None:
        key = f"{client.input_prefix}{name}/{number:06}.csv"
        s3.put_object(Bucket=client.input_bucket, Key=key, Body=b"%d,2,3\n" % (number % 100))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(size)))
    uploaded_s = time.monotonic() - began
    while True:
        looked = time.monotonic()
        status = client.status()
        counts = Counter(drop.status for drop in status.drops)
        if counts["done"] == before + size and not any(run.is_open for run in status.runs):
            break
        if counts["failed"] or time.monotonic() - began > _LIMIT_S:
            reasons = Counter(drop.reason.partition(": ")[2] for drop in status.drops)
            raise AssertionError(
                f"every drop must be done within {_LIMIT_S} s, got {counts}; "
                f"{reasons.most_common(5)}"
            )
        time.sleep(max(_LOOK_S, (time.monotonic() - looked) / _LOOKS_SHARE))
    took_s = time.monotonic() - began
    return {"uploaded_s": uploaded_s, "took_s": took_s, "drops_per_s": size / took_s}


def _summed_up(notes: list[Mapping[str, Any]]) -> dict[str, Any]:
    found = {}
    for name in _FUNCTIONS:
        of_it = [note for note in notes if note["function"] == name]
        calls: Counter[str] = Counter()
        for note in of_it:
            calls.update(note["calls"])
        found[name] = {
            "invocations": len(of_it),
            "seconds": sum(note["seconds"] for note in of_it),
            "calls": dict(calls),
            **{
                f"largest_{each}": max(note[each] for note in of_it)
                for each in ("seconds", "peak_bytes", "payload_bytes")
            },
        }
    return found


def _largest_state(cloud: LocalCloud) -> int:
    """Return the bytes of the largest input or output of a state that any execution has had."""
    states = cloud.client("stepfunctions")
    (machine,) = states.list_state_machines()["stateMachines"]
    largest = 0
    pages = states.get_paginator("list_executions").paginate(
        stateMachineArn=machine["stateMachineArn"]
    )
    for page in pages:
        for execution in page["executions"]:
            history = states.get_paginator("get_execution_history")
            for events in history.paginate(executionArn=execution["executionArn"]):
                for event in events["events"]:
                    for details in event.values():
                        if isinstance(details, dict):
                            sizes = [len(details.get(name, "")) for name in ("input", "output")]
                            largest = max(largest, *sizes)
    return largest


if __name__ == "__main__":
    print(json.dumps({"event": "started"}), flush=True)
    assembly, folder, *sizes = sys.argv[1:]
    ended = main(Path(assembly), Path(folder), [int(size) for size in sizes])
    print(json.dumps({"event": "ended", **ended}), flush=True)
