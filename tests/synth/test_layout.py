import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("source_root", ["constructs", "lambdas", "src"])
def test_a_source_root_is_no_package(source_root: str) -> None:
    """With an `__init__.py`, ours would hide the `constructs` that aws_cdk imports."""
    assert (ROOT / source_root).is_dir()
    assert not (ROOT / source_root / "__init__.py").exists()


def test_aws_cdk_finds_its_own_constructs_from_the_checkout() -> None:
    program = "import constructs, aws_cdk; print(constructs.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout

    assert "site-packages" in found


def test_every_test_is_in_a_folder_that_pytest_is_told_of() -> None:
    assert [*(ROOT / "tests").glob("test_*.py")] == []


def test_the_library_offers_what_it_says() -> None:
    import batch_transform

    assert batch_transform.__all__ == sorted(batch_transform.__all__)
    assert all(hasattr(batch_transform, name) for name in batch_transform.__all__)


def test_the_library_needs_no_nag_and_no_development_package() -> None:
    imports = {
        line.split()[1].partition(".")[0]
        for module in (ROOT / "constructs" / "batch_transform").glob("*.py")
        for line in module.read_text().splitlines()
        if line.startswith(("import ", "from "))
    }

    third_party = imports - sys.stdlib_module_names
    assert third_party == {
        "aws_cdk",
        "batch_transform",
        "constructs",
        "pydantic",
        "pydantic_core",
        "transform_request",
        "yaml",
    }


def test_the_library_does_not_import_what_a_synthesis_pays_dearly_for() -> None:
    """See docs/decisions/functions-without-level-2.md."""
    program = "import sys; from batch_transform import BatchTransform; print(*sys.modules)"
    # pytest finds the sources by its own settings, a program of its own by the environment.
    imported = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(["constructs", "src"])},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()

    dear = {"aws_lambda", "aws_stepfunctions_tasks"}
    assert {f"aws_cdk.{name}" for name in dear} & set(imported) == set()
