"""scripts/setup, with stand-ins for what takes minutes: what it lacks it says in one line."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PYTHON = """#!/bin/sh
case "$*" in
  --version) echo "Python 3.12.1" ;;
  *version_info*) exit {too_old} ;;
  *ensurepip*) exit {no_ensurepip} ;;
  "-m venv "*)
    mkdir -p .venv/bin
    for name in pip npm python; do cp bin/tool .venv/bin/$name; done
    for name in {fails}; do touch .venv/bin/$name.fails; done
    [ -z "{venv_fails}" ] || {{ echo "no space left"; exit 1; }} ;;
esac
"""
TOOL = """#!/bin/sh
echo "$0 $*" >> calls
[ ! -e "$0.fails" ] || { echo "first"; echo "the cause"; exit 1; }
"""


class Project:
    """A copy of the scripts, in a folder of its own, with a Python that is a stand-in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(PROJECT / "scripts", folder / "scripts")
        for name in ("pyproject.toml", "requirements.txt"):
            (folder / name).write_text("")
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.program("tool", TOOL)
        self.python()

    def python(
        self,
        *,
        too_old: bool = False,
        no_ensurepip: bool = False,
        venv_fails: bool = False,
        fails: str = "",
    ) -> None:
        self.program(
            "python3",
            PYTHON.format(
                too_old=int(too_old),
                no_ensurepip=int(no_ensurepip),
                venv_fails="yes" if venv_fails else "",
                fails=fails,
            ),
        )

    def program(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IEXEC)

    def setup(self, **environment: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(self.bin), "/usr/bin", "/bin"])
        return subprocess.run(
            [self.folder / "scripts" / "setup"],
            env={"PATH": path, "PYTHON": str(self.bin / "python3"), **environment},
            capture_output=True,
            text=True,
            timeout=30,
        )

    @property
    def calls(self) -> list[str]:
        """The programs of .venv that were called."""
        lines = (self.folder / "calls").read_text().splitlines()
        return [Path(line.split()[0]).name for line in lines]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def refusal(ended: subprocess.CompletedProcess[str]) -> str:
    """Return the one line that says what to do; what a program itself said may stand before it."""
    assert ended.returncode == 1
    (line,) = [line for line in ended.stderr.splitlines() if "must" in line]
    return line


def test_a_second_set_up_does_nothing(project: Project) -> None:
    assert project.setup(HOME="/nowhere").returncode == 0
    before = project.calls
    assert before.count("npm") == 1

    again = project.setup()

    assert (again.returncode, again.stderr, project.calls) == (0, "", before)


def test_changed_requirements_are_installed_into_the_same_venv(project: Project) -> None:
    project.setup()
    (project.folder / ".venv" / "kept").touch()
    (project.folder / "requirements.txt").write_text("rich\n")

    again = project.setup()

    assert again.returncode == 0
    assert "bringing .venv up to date" in again.stderr
    assert (project.folder / ".venv" / "kept").exists()


def test_fails_when_python_is_too_old(project: Project) -> None:
    project.python(too_old=True)
    assert "PYTHON must be a Python of 3.11 or newer, got" in refusal(project.setup())


def test_fails_when_there_is_no_python_at_all(project: Project) -> None:
    (project.bin / "python3").unlink()
    for name in ("dirname", "cksum", "awk", "df", "cat", "bash"):
        (project.bin / name).symlink_to(shutil.which(name) or name)
    ended = project.setup(PYTHON="", PATH=str(project.bin))
    assert "Python must be 3.11 or newer, got none that runs; install one" in refusal(ended)


def test_fails_when_python_has_no_venv(project: Project) -> None:
    project.python(no_ensurepip=True)
    assert "apt install python3-venv" in refusal(project.setup())


def test_fails_when_the_disk_is_full(project: Project) -> None:
    project.program(
        "df", '#!/bin/sh\necho "Filesystem size used free"\necho "x 9 9 150000 99% /"\n'
    )
    line = refusal(project.setup())
    assert f"free disk must be at least 2500 MB, got 150 MB at {project.folder}" in line


def test_fails_when_a_tool_fails_and_shows_its_last_words(project: Project) -> None:
    for tool, must in {
        "pip": "pip must install requirements.txt",
        "npm": "npm must install aws-cdk@2.1148.1",
    }.items():
        project.python(fails=tool)
        ended = project.setup()
        assert f"setup: {must}, got the error above; check the network" in refusal(ended)
        assert "  | the cause" in ended.stderr
        shutil.rmtree(project.folder / ".venv")


def test_fails_when_venv_fails_and_begins_anew_the_next_time(project: Project) -> None:
    project.python(venv_fails=True)
    ended = project.setup()
    assert "venv must be able to make .venv" in refusal(ended)
    assert "  | no space left" in ended.stderr

    project.python()
    assert project.setup().returncode == 0


def test_the_check_sees_an_init_file_in_a_source_root(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.setup()
    (tmp_path / "constructs").mkdir()
    (tmp_path / "constructs" / "__init__.py").touch()

    ended = subprocess.run(
        [tmp_path / "scripts" / "check"],
        env={"PATH": f"{project.bin}:/usr/bin:/bin", "PYTHON": str(project.bin / "python3")},
        capture_output=True,
        text=True,
    )

    assert ended.returncode == 1
    assert ended.stderr.strip().endswith("got constructs/__init__.py; remove it")


def test_all_scripts_are_executable_bash() -> None:
    found = [path for path in PROJECT.glob("scripts/*") if path.is_file() and not path.suffix]
    for script in [*found, PROJECT / ".ci" / "run"]:
        subprocess.run(["bash", "-n", script], check=True)
        if script.name != "environment":  # is sourced
            assert os.access(script, os.X_OK), script
