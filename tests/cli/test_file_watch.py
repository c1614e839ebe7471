import os
from pathlib import Path

import pytest

from batch_transform_cli.local.file_watch import FileWatch


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("app.py", "models/churn/model.json", ".venv/lib/a.py", "env/pyvenv.cfg"):
        write(tmp_path / name, "1")
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def settled(watch: FileWatch) -> list[str]:
    """Look twice: the first look cannot know that the files lie still."""
    assert watch.changed() == []
    return watch.changed()


def test_a_change_is_told_once_when_it_is_over(project: Path) -> None:
    watch = FileWatch([project])
    app, model, added = (project / name for name in ("app.py", "models/churn/model.json", "new"))
    write(app, "half of")
    assert watch.changed() == []
    write(app, "half of it, and all")
    write(added, "a file")
    model.unlink()
    assert watch.changed() == []
    assert watch.changed() == sorted(map(str, (app, model, added)))
    assert settled(watch) == []


@pytest.mark.parametrize(
    "name",
    [
        ".git/index",
        ".app.py.swp",
        "app.py~",
        "env/lib/site.py",
        "cdk.out/manifest.json",
        "models/__pycache__/a.cpython-311.pyc",
        "state/server",
        "up.log",
    ],
)
def test_what_is_no_source_is_not_watched(name: str, project: Path) -> None:
    watch = FileWatch([project], ignored=[project / "state"])
    write(project / name, "new")
    assert settled(watch) == []


def test_what_the_program_says_itself_is_not_watched(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with (project / "nohup.out").open("w") as said, capfd.disabled():
        ours = os.dup(1)
        os.dup2(said.fileno(), 1)
        try:
            watch = FileWatch([project])
        finally:
            os.dup2(ours, 1)
            os.close(ours)
        said.write("deploying")
    assert settled(watch) == []


def test_an_executable_bit_is_a_change(project: Path) -> None:
    watch = FileWatch([project])
    (project / "app.py").chmod(0o755)
    assert settled(watch) == [str(project / "app.py")]


def test_what_an_app_writes_anew_as_it_was_is_no_change_the_second_time(project: Path) -> None:
    watch = FileWatch([project])
    write(project / "built.txt", "as the app makes it")
    assert settled(watch) == [str(project / "built.txt")]
    os.utime(project / "built.txt", (1, 1))
    assert settled(watch) == []
    write(project / "built.txt", "something else")
    assert settled(watch) == [str(project / "built.txt")]


def test_what_the_app_writes_in_three_runs_in_a_row_is_no_longer_watched(project: Path) -> None:
    watch = FileWatch([project])
    built, app = project / "built", project / "app.py"

    def run(text: str, *edited: Path) -> list[str]:
        before = watch.look()
        for path in (built, *edited):
            write(path, text)
        return watch.app_has_run(before)

    assert run("1", app) == []
    assert run("22", app) == []
    assert settled(watch) == [str(app), str(built)]
    assert run("333") == [str(built)]
    assert run("4444", app) == []
    assert settled(watch) == [str(app)]


def test_a_circle_of_links_ends(project: Path) -> None:
    (project / "models" / "again").symlink_to(project)
    watch = FileWatch([project, project / "models"])
    write(project / "models" / "b.json", "1")
    assert len(settled(watch)) == 1
