"""Where works run, how much of them there is, and how their outputs are checked."""

import filecmp
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import inputs
from benchmarks.engine import Job, run_engine
from benchmarks.errors import BenchmarkError
from benchmarks.program import Run
from benchmarks.servers import Nginx, Server, Tools

MB = 10**6
MIB = 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """How much work there is: the issue's figures, or so little that it only shows that it runs."""

    lines: int = 1_000_000
    odd_lines: int = 200_000  # for servers that behave in odd ways
    stall_at: int = 1_000
    big_lines: int = 10_000_000
    objects: int = 10_000
    json_lines: int = 200_000
    model_lines: int = 8_000
    sklearn_lines: int = 5_000
    wrk_s: int = 5
    local_mode_lines: int = 40
    local_mode_bytes: int = 6 * MIB
    memory_bytes: tuple[int, ...] = (100 * MB, 1000 * MB, 3000 * MB)
    pipelines: tuple[int, ...] = (5, 10)
    pipelines_of_a_file: int = 50
    drops_in_memory: tuple[int, ...] = (10_000, 100_000)
    drops_on_cloud: tuple[int, ...] = (1_000, 10_000)


QUICK = Sizes(
    lines=1_000,
    odd_lines=2_000,
    stall_at=20,
    big_lines=150_000,
    objects=50,
    json_lines=9_000,
    model_lines=200,
    sklearn_lines=50,
    wrk_s=1,
    local_mode_lines=2,
    local_mode_bytes=20_000,
    memory_bytes=(MB, 10 * MB),
    pipelines=(2,),
    pipelines_of_a_file=3,
    drops_in_memory=(200, 400),
    drops_on_cloud=(5, 10),
)


@dataclass(kw_only=True, slots=True)
class Bench:
    """Where works run: a folder for all their files, nginx, and what is installed."""

    folder: Path
    tools: Tools
    nginx: Nginx
    sizes: Sizes
    _made: int = field(default=0, init=False)

    def new_path(self, name: str) -> Path:
        """Return a path in the folder that nobody uses."""
        self._made += 1
        return self.folder / f"{self._made:04}-{name}"

    @contextmanager
    def file(self, name: str, blocks: Iterable[bytes]) -> Iterator[Path]:
        """Keep an input file as long as it is needed."""
        path = self.new_path("inputs") / name
        inputs.write(path, blocks)
        try:
            yield path
        finally:
            shutil.rmtree(path.parent)

    def engine(
        self,
        job: Job,
        server: Server,
        *,
        check: Callable[[Path], None],
        requests: int,
        unanswered: int = 0,
        keep: Path | None = None,
    ) -> Run:
        """Run the engine, count its requests and check its outputs.

        :param requests: how many the server must have answered.
        :param unanswered: it let some hang, at least one and at most so many.
        :param keep: a folder for the outputs, which otherwise are removed.
        :raises BenchmarkError: the engine fails, or its requests or outputs are others.
        """
        before = server.answered()
        output = self.new_path("output")
        run = run_engine(job, server.url, output)
        try:
            counted = server.answered() - before
            if not requests + min(1, unanswered) <= counted <= requests + unanswered:
                raise BenchmarkError(
                    f"the server must have counted {requests} requests of the engine, got {counted}"
                )
            check(output)
        finally:
            if keep is None:
                shutil.rmtree(output)
            else:
                output.rename(keep / output.name)
        return run


def same(output: Path, expected: Path) -> None:
    """Check that a file is another's copy.

    :raises BenchmarkError: it is not.
    """
    if not output.is_file() or not filecmp.cmp(output, expected, shallow=False):
        raise BenchmarkError(
            f"the output must be {expected.name} byte for byte, got another {output.name}; "
            "records are lost, changed or out of order"
        )


def consists_of(output: Path, expected: Iterable[bytes]) -> None:
    """Check that a file has these bytes, in pieces of any size, and no more.

    :raises BenchmarkError: it has others.
    """
    position = 0
    if not output.is_file():
        raise BenchmarkError(f"the output must be there, got no {output.name}")
    with output.open("rb") as file:
        for piece in expected:
            got = file.read(len(piece))
            if got != piece:
                pairs = enumerate(zip(got, piece, strict=False))
                at = next((index for index, (g, p) in pairs if g != p), len(got))
                wanted, found = piece[at : at + 40], got[at : at + 40]
                raise BenchmarkError(
                    f"the output must have {wanted!r} at byte {position + at}, got {found!r}"
                )
            position += len(piece)
        if more := file.read(40):
            raise BenchmarkError(f"the output must end at byte {position}, got {more!r} there")
