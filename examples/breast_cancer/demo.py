"""The whole product in one go: train, deploy to a local cloud, drop files, look predictions up.

Nothing is faked: the app of app.py is synthesized and deployed as it is, and everything after the
drop is the pipeline's own doing. Exits 0 only if all of it is as it should be.
"""

import argparse
import csv
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from types import FrameType

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from batch_transform_cli.cloud import Cloud
from batch_transform_cli.errors import CommandError
from batch_transform_cli.outside import AWS_ERRORS, one_line
from batch_transform_cli.pipelines.client import PipelineClient
from batch_transform_cli.pipelines.records import Drop, Prediction, Status
from batch_transform_cli.pipelines.views import watch
from batch_transform_cli.synthesis import synthesize
from local_cloud import LocalCloud, LocalCloudError

EXAMPLE = Path(__file__).resolve().parent
PROJECT = EXAMPLE.parents[1]
LOOKUPS = 6
WIDTH = 104
RUN_LIMIT_S = 120.0
TO_EXPORT = (
    *("AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
)
PING_LIMIT_S = 30.0
# As rich's own, but with no font to fetch: the picture must look the same without a network.
SVG_FONTS = 'font-family: "Fira Code", "DejaVu Sans Mono", Menlo, Consolas, monospace;'


class Screen:
    """Where the demo writes: the terminal, or plain lines; and a picture of it, if asked for."""

    def __init__(self, picture: Path | None) -> None:
        self.console = Console(highlight=False, width=None if sys.stdout.isatty() else 500)
        self._picture = picture
        self._recorder = Console(
            record=True, file=io.StringIO(), width=WIDTH, highlight=False, force_terminal=True
        )
        self._started = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the demo began."""
        return time.monotonic() - self._started

    def say(self, text: str, style: str = "") -> None:
        """Write one line, with the time."""
        self.show(self._line(text, style))

    def pass_on(self, text: str) -> None:
        """Write one line that the picture shows in another way."""
        self._print(self._line(text))

    def show(self, what: RenderableType) -> None:
        """Write a line or a table."""
        self._print(what)
        self.record(what)

    def record(self, what: RenderableType) -> None:
        """Put into the picture what is on the terminal already."""
        self._recorder.print(what)

    def _line(self, text: str, style: str = "") -> Text:
        return Text.assemble((f"{self.elapsed_s:5.1f} s  ", "dim"), (text, style))

    def _print(self, what: RenderableType) -> None:
        self.console.print(what, soft_wrap=not self.console.is_terminal)

    def save(self) -> None:
        """Write the picture."""
        if self._picture is not None:
            svg = self._recorder.export_svg(title="scripts/demo", unique_id="demo")
            self._picture.write_text(without_fonts(svg))


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong in the file that `train.py` spoils on purpose."""

    file: str
    row: int
    text: str

    def is_named_by(self, drop: Drop) -> bool:
        """Whether the ledger's reason tells file, row and text."""
        named = (drop.key, f"row {self.row},", repr(self.text))
        return drop.key.endswith(self.file) and all(part in drop.reason for part in named)


class Unexpected(Exception):
    """Something is not as it should be, though nothing broke."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument(
        "--keep", action="store_true", help="leave the cloud up until Ctrl-C, and say what to try"
    )
    parser.add_argument("--port", type=int, help="port of the local cloud (default: a free one)")
    parser.add_argument("--svg", type=Path, help="write a picture of the terminal to this file")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _as_interrupt)
    screen = Screen(options.svg)
    try:
        run(screen, keep=options.keep, port=options.port)
        screen.save()
    except KeyboardInterrupt:
        print("demo: stopped; nothing is left running", file=sys.stderr)
        return 130
    except AWS_ERRORS as error:
        print(f"demo: {one_line(error)}", file=sys.stderr)
        return 1
    except (CommandError, LocalCloudError, Unexpected) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0


def run(screen: Screen, *, keep: bool, port: int | None) -> None:
    """Go the whole way.

    :raises Unexpected: the pipeline did something else than it should.
    """
    with tempfile.TemporaryDirectory(prefix="demo-") as name, ExitStack() as started:
        folder = Path(name)
        training_log = folder / "training.log"
        with training_log.open("wb") as log:  # one core trains while the other starts the cloud
            training = started.enter_context(
                subprocess.Popen([sys.executable, EXAMPLE / "train.py"], stdout=log, stderr=log)
            )
        cloud = started.enter_context(LocalCloud(port=port, ping_timeout_s=PING_LIMIT_S))
        screen.say(f"local cloud is up at {cloud.endpoint}")
        training.wait()
        said = training_log.read_text(errors="replace").strip().splitlines() or ["nothing said"]
        if training.returncode != 0:
            raise Unexpected(f"train.py must train the model, got: {said[-1]}; run it by itself")
        screen.say(said[-1])
        files = sorted((EXAMPLE / "build" / "drops").glob("*.csv"))
        fault = find_fault(files)
        truth = dict(read_rows(EXAMPLE / "build" / "truth.csv"))

        assembly = folder / "cdk.out"
        synthesize(PROJECT, assembly)
        screen.say("synthesized app.py")
        cloud.deploy(assembly)
        client = PipelineClient.find(Cloud(cloud.endpoint))
        screen.say(f"deployed pipeline {client.pipeline_id}")

        s3 = cloud.client("s3")
        for path in files:
            s3.upload_file(str(path), client.input_bucket, f"{client.input_prefix}{path.name}")
        screen.say(f"dropped {len(files)} files in its input bucket, one of them malformed")
        dropped_at = screen.elapsed_s
        try:
            status, picture = watch(
                client,
                screen.console,
                until=lambda status: has_ended(status, len(files)),
                limit_s=RUN_LIMIT_S,
                say=screen.pass_on,
            )
            scored_s = screen.elapsed_s - dropped_at
            screen.record(picture)
            check(status, fault)
        except AWS_ERRORS:
            cloud.check()  # names the cause if the server has died
            raise
        except (CommandError, Unexpected) as error:
            raise Unexpected("\n  | ".join([str(error), *last_words(client)])) from error

        ids = list(some_ids([path for path in files if path.name != fault.file], truth))
        found = [(look(client, record_id), truth[record_id]) for record_id in ids]
        screen.show(lookup_table(found))
        screen.say(summary(status), "bold green")
        screen.say(f"{scored_s:.1f} s from drop to prediction, {screen.elapsed_s:.1f} s in all")
        if keep:
            stay(screen, cloud, client, ids[0])


def read_rows(path: Path) -> Iterator[list[str]]:
    """Yield the rows of a CSV file."""
    with path.open(newline="") as lines:
        yield from csv.reader(lines)


def find_fault(files: Sequence[Path]) -> Fault:
    """Return the first cell that is no number, but for the id."""
    for path in files:
        for number, row in enumerate(read_rows(path), start=1):
            for text in row[1:]:
                if not is_number(text):
                    return Fault(path.name, number, text)
    raise Unexpected("train.py must spoil one file, got none; run it again")


def is_number(text: str) -> bool:
    """Whether the model could read it."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def some_ids(files: Sequence[Path], truth: Mapping[str, str]) -> Iterator[str]:
    """Yield an id of each file, ill and well by turns."""
    for path, wanted in zip(files[:LOOKUPS], cycle(("malignant", "benign")), strict=False):
        yield next(row[0] for row in read_rows(path) if truth[row[0]] == wanted)


def has_ended(status: Status, drops: int) -> bool:
    """Whether all drops are there and none of them, and no run, can still change."""
    return (
        len(status.drops) == drops
        and not any(drop.is_open for drop in status.drops)
        and not any(run.is_open for run in status.runs)
    )


def check(status: Status, fault: Fault) -> None:
    """Hold what happened against what should.

    :raises Unexpected: it is not so.
    """
    if len(status.runs) != 1:
        raise Unexpected(f"the files must become one run, got {len(status.runs)}; see above")
    for drop in status.drops:
        wanted = "failed" if drop.key.endswith(fault.file) else "done"
        if drop.status != wanted:
            why = drop.reason or "no reason given"
            raise Unexpected(f"{drop.key} must be {wanted}, got {drop.status} ({why}); see above")
        if wanted == "failed" and not fault.is_named_by(drop):
            raise Unexpected(
                f"the reason of {drop.key} must name file, row and fault, got {drop.reason!r}"
            )


def last_words(client: PipelineClient) -> list[str]:
    """Return the last lines that the newest run's model server and agent logged."""
    runs = client.status().runs
    lines = client.log_lines(runs[-1].run_id, newest=12) if runs else []
    return [line.message for line in lines]


def look(client: PipelineClient, record_id: str) -> Prediction:
    """Ask the HTTP API for one id.

    :raises Unexpected: it has no prediction.
    """
    prediction = client.lookup(record_id)
    if prediction is None:
        raise Unexpected(f"{record_id} must have a prediction, got none; see the index's log")
    return prediction


def score_of(prediction: Prediction) -> float:
    """Return the score, which is all that the row has beside its id."""
    (score,) = prediction.prediction
    return float(score)


def lookup_table(found: Sequence[tuple[Prediction, str]]) -> Padding:
    """Return the predictions beside the true labels."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    table.add_column("GET /predictions/…")
    table.add_column("malignant", justify="right")
    table.add_column("truth")
    table.add_column("from")
    for prediction, truth in found:
        score = score_of(prediction)
        right = (score > 0.5) == (truth == "malignant")
        table.add_row(
            prediction.record_id,
            f"{score:.1%}",
            Text(truth, "green" if right else "red"),
            prediction.source_key,
        )
    return Padding(table, (0, 0, 1, 2), expand=False)


def summary(status: Status) -> str:
    """Say in one line what came of the drops."""
    (run,) = status.runs
    return (
        f"{len(status.drops)} files in {len(status.runs)} run: {run.done} done and indexed, "
        f"{run.failed} failed with its reason"
    )


def stay(screen: Screen, cloud: LocalCloud, client: PipelineClient, record_id: str) -> None:
    """Leave the cloud up until Ctrl-C."""
    environment = " ".join(
        f"{name}={value}" for name, value in cloud.environment().items() if name in TO_EXPORT
    )
    bucket = client.input_bucket
    drop = EXAMPLE / "build" / "drops" / "patients-01.csv"
    for line in (
        f"endpoint       {cloud.endpoint}",
        f"input bucket   {bucket}",
        f"output bucket  {client.output_bucket}",
        "Try in another terminal:",
        f"  export {environment}",
        f"  aws s3 cp {os.path.relpath(drop)} s3://{bucket}/{client.input_prefix}again.csv",
        f"  aws s3 ls --recursive s3://{client.output_bucket}/predictions/",
        f"  aws dynamodb scan --table-name {client.ledger_table} --output text "
        "--query 'Items[?drop_status].[object_key.S, drop_status.S, reason.S]'",
        f"or, without the aws CLI: .venv/bin/batch-transform lookup {record_id} "
        f"--endpoint {cloud.endpoint}",
        "Ctrl-C ends the cloud.",
    ):
        screen.console.print(line, soft_wrap=True, markup=False)
    try:
        while True:
            time.sleep(1)
            cloud.check()
    except KeyboardInterrupt:
        print("demo: the cloud is stopped; nothing is left running", file=sys.stderr)


def without_fonts(svg: str) -> str:
    """Return rich's picture with no reference to fonts on the network."""
    head, style, rest = svg.partition("<style>")
    rules, end, body = rest.partition("</style>")
    while "@font-face" in rules:
        start = rules.index("@font-face")
        rules = rules[:start] + rules[rules.index("}", start) + 1 :]
    rules = rules.replace("font-family: Fira Code, monospace;", SVG_FONTS)
    return head + style + rules + end + body


def _as_interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
