"""What `up` shows: where everything is, and then a line for whatever happens."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.text import Text

from batch_transform_cli.local.session import Event, Ready
from batch_transform_cli.screen import printable

_STYLES = {
    "deployed": "green",
    "refused": "red",
    "unreadable": "yellow",
    "left": "yellow",
    "unwatched": "yellow",
}
_OF_STATUSES = {
    r"(?<=: )(done|closed Completed)\b": "green",
    r"(?<=: )closed PartiallyCompleted\b": "yellow",
    r"(?<=: )(failed|closed Failed)\b": "red",
}


class Lines:
    """Shows lines, with colours on a terminal."""

    def __init__(self) -> None:
        # A line is never broken: it is searched for, and a terminal breaks it itself.
        self._console = Console(highlight=False, soft_wrap=True)

    def begin(self, ready: Ready) -> None:
        """Show the cloud."""
        first, rest = header(ready).split("\n", 1)
        self._console.print(Text.assemble((first, "bold"), "\n", rest))

    def say(self, event: Event) -> None:
        """Show what happened."""
        for line in event.lines:
            text = Text(printable(line), style=_STYLES.get(event.kind, ""))
            for pattern, style in _OF_STATUSES.items():
                text.highlight_regex(pattern, style)
            at = f"{datetime.now():%H:%M:%S}  "
            self._console.print(Text.assemble((at, "dim"), text))


class Documents:
    """Prints a JSON document on a line of its own for each event."""

    def begin(self, ready: Ready) -> None:
        """Print where the cloud is."""
        pipelines = [
            {
                "pipeline": client.pipeline_id,
                "account": place.account,
                "region": place.region,
                "input": f"s3://{client.input_bucket}/{client.input_prefix}",
                "lookup": client.has_api,
            }
            for place, client in ready.pipelines
        ]
        self._print("ready", {"endpoint": ready.endpoint, "pipelines": pipelines})

    def say(self, event: Event) -> None:
        """Print what happened."""
        self._print(event.kind, event.facts)

    def _print(self, kind: str, facts: Any) -> None:
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        print(json.dumps({"event": kind, "at": at, **facts}), flush=True)


def header(ready: Ready) -> str:
    """Return where the cloud is, its pipelines, and what to try."""
    ends = (
        f"Ctrl-C ends it; its data stays in {ready.state_dir}"
        if ready.state_dir
        else "Ctrl-C ends it and removes its data"
    )
    lines = [
        f"local cloud at {ready.endpoint}",
        f"changes of the app are deployed to it; {ends}" if ready.watch else ends,
        "",
        *_pipelines(ready),
        "",
        *_tries(ready),
        "",
    ]
    return "\n".join(lines)


def _pipelines(ready: Ready) -> Iterator[str]:
    """Tell where files are dropped; whole, for whoever copies it from a narrow terminal."""
    if not ready.pipelines:
        yield "the app has no pipeline"
        return
    several = _has_several_places(ready)
    width = max(len(client.pipeline_id) for _, client in ready.pipelines)
    for place, client in ready.pipelines:
        where = f"  in {place.account} {place.region}" if several else ""
        target = f"s3://{client.input_bucket}/{client.input_prefix}"
        yield f"pipeline {client.pipeline_id:{width}}  takes files in {target}{where}"


def _tries(ready: Ready) -> Iterator[str]:
    """Give commands for another terminal in this folder, which find the cloud by themselves."""
    if not ready.pipelines:
        return
    place, client = ready.pipelines[0]
    which = f" --pipeline {client.pipeline_id}" if len(ready.pipelines) > 1 else ""
    before = ""
    if _has_several_places(ready):
        before = f"AWS_ACCESS_KEY_ID={place.account} AWS_REGION={place.region} "
    yield "try in this folder:"
    yield f"  {before}batch-transform status"
    yield f"  {before}batch-transform drop FILE{which}"
    if client.has_api:
        yield f"  {before}batch-transform lookup ID{which}"


def _has_several_places(ready: Ready) -> bool:
    return len({place for place, _ in ready.pipelines}) > 1
