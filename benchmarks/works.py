"""The works that are measured: what the engine does, and what it is compared with."""

import csv
import importlib.util
import json
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from benchmarks import inputs
from benchmarks.bench import MB, MIB, Bench, Sizes, consists_of, same
from benchmarks.engine import Job
from benchmarks.errors import BenchmarkError, Missing
from benchmarks.inputs import CSV_BYTES, JSON_BYTES
from benchmarks.program import PROJECT, Run, run_program
from benchmarks.servers import Server, example_model, interim_server, sklearn_model
from benchmarks.wrk import run_wrk

_HERE = Path(__file__).parent
_EXAMPLE = PROJECT / "examples" / "breast_cancer"
_OUTPUT_FILTER = "$['SageMakerOutput','id']"
_WRK_LINES = 10_000  # as many different requests as wrk keeps ready
_SINGLE = {"BatchStrategy": "SingleRecord"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One measured run: work done in a second, in the work's unit; the rest as in Run."""

    rate: float
    cpu_s: float
    peak_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """What the engine is compared with.

    :param at_least: which multiple of its rate the engine must reach; None is no demand.
    """

    name: str
    measure: Callable[[], float]
    at_least: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """One work and the rates to compare."""

    title: str
    unit: str
    engine: Callable[[], Sample]
    references: Sequence[Reference]


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """One work at several sizes.

    :param sizes: of its input, in bytes.
    :param peak: runs the work at one of them.
    :param under_bytes: what no run's peak may reach.
    :param apart_bytes: how far the peaks of the sizes may be apart; None is no demand.
    """

    title: str
    sizes: Sequence[int]
    peak: Callable[[int], Sample]
    under_bytes: int
    apart_bytes: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Limit:
    """What a multiple of the first program's CPU time may be at most.

    :param of: takes the median CPU seconds of every program by its name, and returns the multiple.
    """

    name: str
    of: Callable[[Mapping[str, float]], float]
    at_most: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """The CPU time of programs that do ever more of one thing.

    :param programs: each returns its CPU seconds, user and system, its children's included.
    """

    title: str
    programs: Mapping[str, Callable[[], float]]
    limits: Sequence[Limit]


@dataclass(frozen=True, kw_only=True, slots=True)
class Growth:
    """What one work takes at several sizes: its cost for each unit of the size, and its largest.

    :param measure: runs it at the sizes, which rise; returns figures by size.
    :param flat: the figures that are costs of a whole size, with the multiple of their cost per
        unit, from the smallest size to the largest, that they may reach; None is no demand.
    :param under: the figures that are the largest of something, with what they must be under.
    """

    title: str
    unit: str
    measure: Callable[[], Mapping[int, Mapping[str, float]]]
    flat: Mapping[str, float | None]
    under: Mapping[str, float]


Work = Speed | Memory | Cost | Growth


def _sample(run: Run, work_done: float) -> Sample:
    return Sample(rate=work_done / run.phase_s, cpu_s=run.cpu_s, peak_bytes=run.peak_bytes)


def replies(sizes: Sizes) -> Mapping[int, bytes]:
    """Return what `by_length` replies: as many lines as the request has, each with its number.

    :raises BenchmarkError: two inputs have payloads of the same length, but not of as many lines.
    """
    lines_of: dict[int, int] = {}
    joined = [(CSV_BYTES, 6 * MIB, size // CSV_BYTES) for size in sizes.memory_bytes]
    for record_bytes, limit, records in [*joined, (JSON_BYTES, MIB, sizes.json_lines)]:
        full = limit // record_bytes
        for lines in {min(full, records), records % full} - {0}:
            if lines_of.setdefault(lines * record_bytes, lines) != lines:
                raise BenchmarkError(
                    f"a payload's length must tell its lines, got two inputs with {lines} lines in "
                    f"{lines * record_bytes} bytes; change Sizes"
                )
    return {
        length: b"".join(b"%d\n" % number for number in range(lines))
        for length, lines in lines_of.items()
    }


# Single records.


@contextmanager
def single_record(bench: Bench) -> Iterator[Work]:
    """Small requests over many connections, each reply a line of the output."""
    count = bench.sizes.lines
    server = bench.nginx["identity"]
    with _lines(bench, server, count, concurrent=16) as (engine, wrk):

        def local_mode() -> float:
            few = bench.sizes.local_mode_lines
            # They leave each line its line feed, and add another one to each reply.
            expected = b"".join(inputs.csv_lines(few)).replace(b"\n", b"\n\n")
            return few / _local_mode(bench, server, few, "SingleRecord", expected, requests=few)

        yield Speed(
            title=f"{count:,} CSV lines of {CSV_BYTES} B, SingleRecord, 16 concurrent",
            unit="requests/s",
            engine=engine,
            references=(
                Reference(name="wrk", measure=wrk, at_least=0.75),
                Reference(name="local-mode", measure=local_mode, at_least=1000),
            ),
        )


@contextmanager
def closing(bench: Bench) -> Iterator[Work]:
    """A server that closes the connection after each reply."""
    count = bench.sizes.odd_lines
    with _lines(bench, bench.nginx["closing"], count, concurrent=16) as (engine, wrk):
        yield Speed(
            title=f"{count:,} single records, a connection for each (Connection: close)",
            unit="requests/s",
            engine=engine,
            references=(Reference(name="wrk", measure=wrk),),
        )


@contextmanager
def failing(bench: Bench) -> Iterator[Work]:
    """A server that refuses now and then, so that requests are sent again."""
    count = bench.sizes.odd_lines
    server = bench.nginx["failing"]
    with _lines(bench, server, count, concurrent=16, may_refuse=True) as (engine, wrk):
        yield Speed(
            title=f"{count:,} single records, one of 256 replies is a 503 (retries)",
            unit="requests/s",
            engine=engine,
            references=(Reference(name="wrk", measure=wrk),),
        )


@contextmanager
def stalling(bench: Bench) -> Iterator[Work]:
    """A server that lets some requests hang until their timeout, so that they are sent again."""
    count, stall_at = bench.sizes.odd_lines, bench.sizes.stall_at
    client = {"ModelClientConfig": {"InvocationsTimeoutInSeconds": 1, "InvocationsMaxRetries": 3}}
    with _lines(
        bench,
        bench.nginx["stalling"],
        count,
        concurrent=16,
        members=client,
        unanswered=count // stall_at + 16,
    ) as (engine, _):
        yield Speed(
            title=f"{count:,} single records, a tenth of the connections get stuck",
            unit="requests/s",
            engine=engine,
            references=(),
        )


@contextmanager
def interim(bench: Bench) -> Iterator[Work]:
    """A server that sends `100 Continue` before each reply, and the same without."""
    count = bench.sizes.odd_lines
    with (
        interim_server(bench.new_path("interim"), plain=False) as server,
        interim_server(bench.new_path("plain"), plain=True) as plain,
        _lines(bench, server, count, concurrent=16) as (engine, _),
        _lines(bench, plain, count, concurrent=16) as (engine_of_plain, _),
    ):
        yield Speed(
            title=f"{count:,} single records, 100 Continue before each reply",
            unit="requests/s",
            engine=engine,
            references=(Reference(name="none-before", measure=lambda: engine_of_plain().rate),),
        )


@contextmanager
def gunicorn(bench: Bench) -> Iterator[Work]:
    """The example's model, which needs no scikit-learn any more: flask under gunicorn."""
    rows = _example_rows(bench)
    with example_model(bench.folder / "example" / "model", bench.new_path("gunicorn")) as server:
        title = "the example's model under gunicorn"
        with _model(bench, server, rows, bench.sizes.model_lines, title=title) as work:
            yield work


@contextmanager
def gunicorn_sklearn(bench: Bench) -> Iterator[Work]:
    """The same model, asked by scikit-learn: flask under gunicorn."""
    rows = _example_rows(bench)
    with sklearn_model(bench.new_path("gunicorn")) as server:
        title = "a scikit-learn model under gunicorn"
        with _model(bench, server, rows, bench.sizes.sklearn_lines, title=title) as work:
            yield work


@contextmanager
def _model(
    bench: Bench, server: Server, rows: Sequence[bytes], count: int, *, title: str
) -> Iterator[Work]:
    with bench.file("rows.csv", islice(cycle(rows), count)) as source:
        scores = [_score(server, row) for row in rows[:count]]
        job = Job(input_path=source, max_concurrent=8, members=_SINGLE)

        def engine() -> Sample:
            run = bench.engine(
                job,
                server,
                requests=count,
                check=lambda output: consists_of(
                    output / "rows.csv.out", islice(cycle(scores), count)
                ),
            )
            return _sample(run, count)

        def wrk() -> float:
            return run_wrk(
                bench.tools,
                server,
                body=source,
                lines=True,
                connections=8,
                seconds=bench.sizes.wrk_s,
            )

        yield Speed(
            title=f"{count:,} rows, {title}, SingleRecord",
            unit="requests/s",
            engine=engine,
            references=(Reference(name="wrk", measure=wrk, at_least=0.95),),
        )


@contextmanager
def _lines(
    bench: Bench,
    server: Server,
    count: int,
    *,
    concurrent: int,
    members: Mapping[str, object] | None = None,
    unanswered: int = 0,
    may_refuse: bool = False,
) -> Iterator[tuple[Callable[[], Sample], Callable[[], float]]]:
    """Give what sends CSV lines one by one to a server that replies with them: engine and wrk."""
    with (
        bench.file("lines.csv", inputs.csv_lines(count)) as source,
        bench.file("some.csv", inputs.csv_lines(min(count, _WRK_LINES))) as some,
    ):
        job = Job(
            input_path=source,
            assemble_with="Line",
            max_concurrent=concurrent,
            members={**_SINGLE, **(members or {})},
        )

        def engine() -> Sample:
            run = bench.engine(
                job,
                server,
                requests=count,
                unanswered=unanswered,
                check=lambda output: same(output / "lines.csv.out", source),
            )
            return _sample(run, count)

        def wrk() -> float:
            return run_wrk(
                bench.tools,
                server,
                body=some,
                lines=True,
                connections=concurrent,
                seconds=bench.sizes.wrk_s,
                may_refuse=may_refuse,
            )

        yield engine, wrk


def _example_rows(bench: Bench) -> Sequence[bytes]:
    """Train the example's model in the bench's folder and return rows for it to score."""
    spec = importlib.util.spec_from_file_location("breast_cancer_train", _EXAMPLE / "train.py")
    assert spec is not None
    assert spec.loader is not None
    train = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = train  # dataclasses look their module up
    spec.loader.exec_module(train)
    training = train.train(bench.folder / "example")
    rows = []
    for path in training.drops:
        if path != training.malformed:
            with path.open(newline="") as drop:
                rows += [",".join(row[1:]).encode() + b"\n" for row in csv.reader(drop)]
    return rows


def _score(server: Server, row: bytes) -> bytes:
    request = urllib.request.Request(
        f"{server.url}/invocations", data=row, headers={"Content-Type": "text/csv"}
    )
    with urllib.request.urlopen(request, timeout=10) as reply:
        score: bytes = reply.read()
    return score


# Many records in a request.


@contextmanager
def multi_record_6mb(bench: Bench) -> Iterator[Work]:
    """Large requests and small replies, also in local mode."""
    server = bench.nginx["head"]
    records = bench.sizes.local_mode_bytes // CSV_BYTES

    def local_mode() -> float:
        expected = b"%010d\n" % 0
        phase_s = _local_mode(bench, server, records, "MultiRecord", expected, requests=1)
        return records * CSV_BYTES / MB / phase_s

    with _multi_record(
        bench,
        max_payload_mb=6,
        at_least=0.60,
        others=(Reference(name="local-mode", measure=local_mode, at_least=1000),),
    ) as work:
        yield work


@contextmanager
def multi_record_1mb(bench: Bench) -> Iterator[Work]:
    """Requests of a megabyte and small replies."""
    with _multi_record(bench, max_payload_mb=1, at_least=0.40) as work:
        yield work


@contextmanager
def _multi_record(
    bench: Bench, *, max_payload_mb: int, at_least: float, others: Sequence[Reference] = ()
) -> Iterator[Work]:
    count = bench.sizes.big_lines
    server = bench.nginx["head"]
    per_payload = min(count, max_payload_mb * MIB // CSV_BYTES)
    with (
        bench.file("big.csv", inputs.csv_lines(count)) as source,
        bench.file("payload.csv", inputs.csv_lines(per_payload)) as payload,
    ):
        job = _big_job(source, max_payload_mb)

        def engine() -> Sample:
            run = _run_big(bench, job, count)
            return _sample(run, count * CSV_BYTES / MB)

        def wrk() -> float:
            requests_per_s = run_wrk(
                bench.tools,
                server,
                body=payload,
                connections=job.max_concurrent,
                seconds=bench.sizes.wrk_s,
            )
            return requests_per_s * per_payload * CSV_BYTES / MB

        yield Speed(
            title=f"{count * CSV_BYTES / 1e9:g} GB of CSV, MultiRecord {max_payload_mb} MB, "
            f"{job.max_concurrent} concurrent",
            unit="MB/s",
            engine=engine,
            references=(Reference(name="wrk", measure=wrk, at_least=at_least), *others),
        )


def _big_job(source: Path, max_payload_mb: int) -> Job:
    return Job(
        input_path=source,
        max_concurrent=4,
        members={"BatchStrategy": "MultiRecord", "MaxPayloadInMB": max_payload_mb},
    )


def _run_big(bench: Bench, job: Job, count: int) -> Run:
    """Send a file in large requests; each reply is the number of the request's first record."""
    per_payload = job.members["MaxPayloadInMB"] * MIB // CSV_BYTES
    firsts = range(0, count, per_payload)
    return bench.engine(
        job,
        bench.nginx["head"],
        requests=len(firsts),
        check=lambda output: consists_of(
            output / f"{job.input_path.name}.out", (b"%010d" % first for first in firsts)
        ),
    )


@contextmanager
def json_join(bench: Bench) -> Iterator[Work]:
    """JSON Lines, each joined with its line of the reply and filtered."""
    count = bench.sizes.json_lines
    server = bench.nginx["by_length"]
    per_payload = MIB // JSON_BYTES
    requests = -(-count // per_payload)
    with bench.file("lines.jsonl", inputs.json_lines(count)) as source:
        job = Job(
            input_path=source,
            content_type="application/jsonlines",
            assemble_with="Line",
            max_concurrent=4,
            members={
                "BatchStrategy": "MultiRecord",
                "MaxPayloadInMB": 1,
                "DataProcessing": {"JoinSource": "Input", "OutputFilter": _OUTPUT_FILTER},
            },
        )

        def expected() -> Iterator[bytes]:
            for number in range(count):
                yield b'{"SageMakerOutput":%d,"id":"%010d"}\n' % (number % per_payload, number)

        def engine() -> Sample:
            run = bench.engine(
                job,
                server,
                requests=requests,
                check=lambda output: consists_of(output / "lines.jsonl.out", expected()),
            )
            return _sample(run, count)

        def script() -> float:
            output = bench.new_path("output")
            before = server.answered()
            run = run_program(
                [
                    *(sys.executable, _HERE / "requests_script.py", source, output),
                    *(server.url, str(MIB), _OUTPUT_FILTER),
                ]
            )
            _must_have_counted(server, before, requests)
            consists_of(output, expected())
            output.unlink()
            return count / run.phase_s

        yield Speed(
            title=f"{count:,} JSON lines of {JSON_BYTES} B, join and output filter, "
            "MultiRecord 1 MB",
            unit="records/s",
            engine=engine,
            references=(Reference(name="requests-script", measure=script, at_least=12),),
        )


# Many objects.


@contextmanager
def many_objects(bench: Bench) -> Iterator[Work]:
    """Small objects, each a request and an output.

    All outputs stay until the end: ext4 looks at each inode that was freed in the last minutes
    before it gives a file another one, so that a run after a removal took up to ten times as long.
    """
    count = bench.sizes.objects
    source, kept = bench.new_path("objects"), bench.new_path("kept")
    kept.mkdir()
    inputs.write_objects(source, count)
    names = sorted(path.name for path in source.iterdir())
    job = Job(
        input_path=source,
        content_type="application/octet-stream",
        split_type="None",
        max_concurrent=16,
        members={},
    )

    def check(output: Path) -> None:
        written = sorted(path.name for path in output.iterdir())
        if written != [f"{name}.out" for name in names]:
            raise BenchmarkError(f"each object must have one output, got {len(written)} files")
        for name in names:
            same(output / f"{name}.out", source / name)

    def engine() -> Sample:
        run = bench.engine(job, bench.nginx["identity"], requests=count, check=check, keep=kept)
        return _sample(run, count)

    def copying() -> float:
        output = kept / bench.new_path("output").name
        output.mkdir()
        run = run_program([sys.executable, _HERE / "copy_files.py", source, output])
        check(output)
        return count / run.phase_s

    try:
        yield Speed(
            title=f"{count:,} objects of 1 KB",
            unit="objects/s",
            engine=engine,
            references=(Reference(name="copying", measure=copying, at_least=0.70),),
        )
    finally:
        shutil.rmtree(source)
        shutil.rmtree(kept)


# Memory.


@contextmanager
def memory(bench: Bench) -> Iterator[Work]:
    """The memory of large requests."""

    def peak(size: int) -> Sample:
        count = size // CSV_BYTES
        with bench.file("big.csv", inputs.csv_lines(count)) as source:
            return _sample(_run_big(bench, _big_job(source, 6), count), size / MB)

    yield Memory(
        title="peak memory, MultiRecord 6 MB, 4 concurrent",
        sizes=bench.sizes.memory_bytes,
        peak=peak,
        under_bytes=64 * MB,
        apart_bytes=6 * MB,
    )


@contextmanager
def memory_join(bench: Bench) -> Iterator[Work]:
    """The memory of large requests whose replies are joined to their records."""
    per_payload = 6 * MIB // CSV_BYTES

    def peak(size: int) -> Sample:
        count = size // CSV_BYTES
        with bench.file("big.csv", inputs.csv_lines(count)) as source:
            run = bench.engine(
                Job(
                    input_path=source,
                    max_concurrent=4,
                    assemble_with="Line",
                    members={
                        "BatchStrategy": "MultiRecord",
                        "MaxPayloadInMB": 6,
                        "DataProcessing": {"JoinSource": "Input"},
                    },
                ),
                bench.nginx["by_length"],
                requests=-(-count // per_payload),
                check=lambda output: consists_of(
                    output / "big.csv.out", _joined(count, per_payload)
                ),
            )
            return _sample(run, size / MB)

    yield Memory(
        title="peak memory, the same with a join",
        sizes=bench.sizes.memory_bytes,
        peak=peak,
        under_bytes=128 * MB,
    )


def _joined(count: int, per_payload: int) -> Iterator[bytes]:
    replies = [b",%d\n" % number for number in range(per_payload)]
    endless = cycle(replies)
    for block in inputs.csv_lines(count):
        yield b"".join([row + next(endless) for row in block.splitlines()])


# Synthesis.


@contextmanager
def synthesis(bench: Bench) -> Iterator[Work]:
    """What pipelines add to the synthesis of a CDK app."""
    model = bench.new_path("model")
    model.mkdir()
    (model / "model.json").write_text("{}")

    def synthesize(pipelines: int) -> float:
        folder = bench.new_path("cdk.out")
        run = run_program(
            [
                *(sys.executable, _HERE / "synthesize_app.py"),
                *(folder, model, _EXAMPLE / "image", str(pipelines)),
            ],
            environment={"CDK_VALIDATION": "false"},
        )
        templates = [*folder.glob("*.template.json")]
        made = sum(path.read_text().count('"AWS::SageMaker::Model"') for path in templates)
        if made != pipelines or not templates:
            raise BenchmarkError(f"the app must have {pipelines} models, got {made}")
        shutil.rmtree(folder)
        return run.cpu_s

    def each_further(count: int) -> Callable[[Mapping[str, float]], float]:
        return lambda cpu_s: (cpu_s[str(count)] - cpu_s["1"]) / (count - 1) / cpu_s["0"]

    many = bench.sizes.pipelines
    yield Cost(
        title="CPU of a synthesis, with so many pipelines with index and lookup",
        programs={str(count): partial(synthesize, count) for count in (0, 1, *many)},
        limits=[
            Limit(name="one", of=lambda cpu_s: cpu_s["1"] / cpu_s["0"], at_most=2.4),
            *(
                Limit(name=f"further-of-{count}", of=each_further(count), at_most=0.3)
                for count in many
            ),
        ],
    )
    shutil.rmtree(model)


_ACCOUNTS = ("Test", "Stage", "Prod")
_MOST_RESOURCES = 500
_MOST_BYTES = 10**6


@contextmanager
def pipelines_file(bench: Bench) -> Iterator[Work]:
    """Synthesis and check of a file of many pipelines, each in one of three accounts."""
    count = bench.sizes.pipelines_of_a_file
    folder = bench.new_path("file")
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "model.json").write_text("{}")
    file = folder / "pipelines.yaml"
    file.write_text("pipelines:\n" + "".join(map(_pipeline, range(count))))
    (folder / "accounts.yaml").write_text(
        "accounts:\n"
        + "".join(
            f'  {name}: {{account: "{number:012}", region: eu-west-1}}\n'
            for number, name in enumerate(_ACCOUNTS, start=1)
        )
    )

    def synthesize(of: Path | None) -> float:
        output = bench.new_path("cdk.out")
        run = run_program(
            [sys.executable, _HERE / "synthesize_file.py", output, *([] if of is None else [of])],
            environment={"CDK_VALIDATION": "false"},
        )
        templates = [path.read_text() for path in output.rglob("*.template.json")]
        if len(templates) != (1 if of is None else count):
            raise BenchmarkError(f"each pipeline must be a stack, got {len(templates)} stacks")
        resources = max(len(json.loads(text).get("Resources", {})) for text in templates)
        size = max(map(len, templates))
        if resources > _MOST_RESOURCES or size > _MOST_BYTES:
            raise BenchmarkError(
                f"a stack must have at most {_MOST_RESOURCES} resources in {_MOST_BYTES} bytes, "
                f"got up to {resources} in {size}"
            )
        shutil.rmtree(output)
        return run.cpu_s

    def validate() -> float:
        return run_program([sys.executable, _HERE / "validate_file.py", file]).cpu_s

    def of_empty(name: str) -> Callable[[Mapping[str, float]], float]:
        return lambda cpu_s: cpu_s[name] / cpu_s["0"]

    yield Cost(
        title=f"CPU of an empty app, of a file of {count} pipelines in {len(_ACCOUNTS)} accounts, "
        "and of its check",
        programs={
            "0": partial(synthesize, None),
            str(count): partial(synthesize, file),
            "validate": validate,
        },
        limits=[
            Limit(name="file", of=of_empty(str(count)), at_most=18),
            Limit(name="validate", of=of_empty("validate"), at_most=0.7),
        ],
    )
    shutil.rmtree(folder)


def _pipeline(number: int) -> str:
    return f"""\
  Pipeline{number}:
    accounts: [{_ACCOUNTS[number % len(_ACCOUNTS)]}]
    model: {{artifact: model, image: {_EXAMPLE / "image"}}}
    instance_type: ml.m5.large
    settings: {{csv: {{id_column: 0}}}}
    index: {{record_id: 0, retention_days: 90}}
    batch: {{max_wait_minutes: 5}}
"""


# Load.


@contextmanager
def load_in_memory(bench: Bench) -> Iterator[Work]:
    """The functions with ever more drops, on AWS in memory."""
    phases = ("intake", "dispatch", "settle")
    with _assembly(bench) as assembly:

        def run(drops: int) -> Mapping[str, float]:
            program = (sys.executable, "-m", "benchmarks.load_in_memory", assembly, str(drops))
            ended = run_program(program).ended
            counted = {
                f"{phase} {figure}": ended["phases"][phase][figure]
                for phase in phases
                for figure in ("calls", "write_units", "read_units", "cpu_us")
            }
            of_kinds = {
                kind: sum(ended["phases"][phase].get(kind, 0) for phase in phases)
                for kind in _CALLS
            }
            return {**counted, **of_kinds, **ended["largest"]}

        yield Growth(
            title="a burst of drops, in memory",
            unit="drop",
            measure=lambda: {drops: run(drops) for drops in bench.sizes.drops_in_memory},
            flat={
                **{f"{phase} calls": 1.05 for phase in phases},
                **{f"{phase} write_units": 1.01 for phase in phases},
                "intake read_units": 1.01,
                # It looks at what waits: at more with each drop, until that is 8 MB.
                "dispatch read_units": None,
                "settle read_units": 1.01,
                **{f"{phase} cpu_us": None for phase in phases},
                **dict.fromkeys(_CALLS),
            },
            under=_PAYLOADS,
        )


@contextmanager
def load_on_cloud(bench: Bench) -> Iterator[Work]:
    """The whole way on the local cloud: queues, Lambda workers, state machine, engine."""
    functions = ("intake", "dispatch", "settle", "index")
    with _assembly(bench) as assembly:

        def measure() -> Mapping[int, Mapping[str, float]]:
            folder = bench.new_path("cloud")
            folder.mkdir()
            sizes = bench.sizes.drops_on_cloud
            ended = run_program(
                [
                    *(sys.executable, "-m", "benchmarks.load_on_cloud", assembly, folder),
                    *map(str, sizes),
                ],
                limit_s=7200,
            ).ended
            shutil.rmtree(folder)
            return {
                int(size): _of_cloud(took, ended["limits"]) for size, took in ended["sizes"].items()
            }

        yield Growth(
            title="a burst of drops, on the local cloud",
            unit="drop",
            measure=measure,
            flat={
                "elapsed_s": None,
                **{f"{each} calls": 1.2 for each in functions},
                **{f"{each} seconds": None for each in functions},
            },
            under={
                "state_bytes": _PAYLOADS["state_bytes"],
                "invocation_bytes": _PAYLOADS["invocation_bytes"],
                **{f"{each} share of its memory": 1 for each in functions},
                **{f"{each} share of its time": 1 for each in functions},
            },
        )


# The limits of Step Functions and of Lambda, and the most objects that a batch may have.
_PAYLOADS = {
    "state_bytes": 256 * 1024,
    "invocation_bytes": 6 * MIB,
    "manifest_lines": 10_000,
}


_CALLS = (
    *("query", "get_item", "batch_get_item", "put_item", "update_item", "transact_write_items"),
    *("put_object", "get_object", "head_object", "copy_object", "list_objects_v2"),
    *("send_message", "start_execution", "describe_execution", "list_transform_jobs"),
)


def _of_cloud(took: Mapping[str, Any], limits: Mapping[str, Any]) -> Mapping[str, float]:
    found: dict[str, float] = {"elapsed_s": took["took_s"], "state_bytes": took["state_bytes"]}
    for name, of_it in took["functions"].items():
        found[f"{name} calls"] = sum(of_it["calls"].values())
        found[f"{name} seconds"] = of_it["seconds"]
        found[f"{name} share of its memory"] = of_it["largest_peak_bytes"] / limits[name]["bytes"]
        found[f"{name} share of its time"] = of_it["largest_seconds"] / limits[name]["seconds"]
    largest = (of_it["largest_payload_bytes"] for of_it in took["functions"].values())
    return found | {"invocation_bytes": max(largest)}


@contextmanager
def _assembly(bench: Bench) -> Iterator[Path]:
    """Synthesize an app with one pipeline, whose model is that of the quick start."""
    folder = bench.new_path("cdk.out")
    examples = PROJECT / "examples"
    run_program(
        [
            *(sys.executable, _HERE / "synthesize_app.py", folder),
            *(examples / "quick_start" / "model", examples / "image", "1"),
        ]
    )
    yield folder
    shutil.rmtree(folder)


# What others do.


def _local_mode(
    bench: Bench, server: Server, lines: int, strategy: str, expected: bytes, *, requests: int
) -> float:
    """Run sagemaker's local mode on some lines and return its seconds.

    :raises Missing: there is no docker command, or no environment can be made for sagemaker.
    """
    if shutil.which("docker") is None:
        raise Missing("local mode must have a docker command, got none; apt-get install docker-cli")
    made = subprocess.run(
        [PROJECT / "scripts" / "environment-for", "sagemaker-sdk"],
        capture_output=True,
        text=True,
        timeout=900,
    )
    if made.returncode != 0:
        raise Missing(
            f"sagemaker must be installed in an environment of its own, got {made.stderr}"
        )
    output = bench.new_path("output")
    before = server.answered()
    with bench.file("lines.csv", inputs.csv_lines(lines)) as source:
        run = run_program(
            [
                *(made.stdout.strip(), _HERE / "local_mode.py", source, output),
                *(server.url.rpartition(":")[2], strategy, "6"),
            ],
            environment={"AWS_EC2_METADATA_DISABLED": "true"},
        )
    _must_have_counted(server, before, requests)
    consists_of(output / "lines.csv.out", [expected])
    shutil.rmtree(output)
    return run.phase_s


def _must_have_counted(server: Server, before: int, requests: int) -> None:
    counted = server.answered() - before
    if counted != requests:
        raise BenchmarkError(f"the server must have counted {requests} requests, got {counted}")


WORKS: Mapping[str, Callable[[Bench], AbstractContextManager[Work]]] = {
    "single-record": single_record,
    "multi-record-6mb": multi_record_6mb,
    "multi-record-1mb": multi_record_1mb,
    "many-objects": many_objects,
    "json-join": json_join,
    "gunicorn": gunicorn,
    "gunicorn-sklearn": gunicorn_sklearn,
    "closing": closing,
    "failing": failing,
    "stalling": stalling,
    "interim": interim,
    "memory": memory,
    "memory-join": memory_join,
    "synthesis": synthesis,
    "pipelines-file": pipelines_file,
    "load-in-memory": load_in_memory,
    "load-on-cloud": load_on_cloud,
}
