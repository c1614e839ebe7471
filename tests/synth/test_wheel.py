"""The wheel carries the Lambdas and the starter project, and what is installed finds them."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content, unpacked as pip would."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=120,
    )
    (wheel,) = folder.glob("*.whl")
    site = folder / "site"
    with zipfile.ZipFile(wheel) as content:
        content.extractall(site)
    return site


def test_the_wheel_has_every_lambda_and_the_library(site: Path) -> None:
    in_checkout = {path.name for path in (ROOT / "lambdas" / "transform_lambdas").glob("*.py")}
    packed = site / "batch_transform" / "_lambdas" / "transform_lambdas"

    assert {path.name for path in packed.glob("*.py")} == in_checkout
    assert not (site / "constructs").exists()


def test_the_installed_library_takes_the_lambdas_of_the_wheel(site: Path) -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "import batch_transform.functions as functions\n"
        "print(functions.__file__, functions.lambdas_directory())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=site.parent, capture_output=True, text=True, check=True
    )

    module, directory = done.stdout.split()
    assert Path(module).is_relative_to(site)
    assert Path(directory) == site / "batch_transform" / "_lambdas"


def test_the_installed_command_writes_the_whole_starter_project(site: Path) -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "from pathlib import Path\n"
        "from batch_transform_cli import starter_project\n"
        "assert Path(starter_project.__file__).is_relative_to(sys.path[0])\n"
        "print(*starter_project.write(Path('demo')).files)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=site.parent, capture_output=True, text=True, check=True
    )

    templates = ROOT / "src" / "batch_transform_cli" / "starter"
    names = {path.name for path in templates.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    written = {Path(name).name for name in done.stdout.split()}
    assert written == names - {"gitignore"} | {".gitignore", "pipelines.schema.json"}
