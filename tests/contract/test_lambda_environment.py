"""What the functions read from their environment, and what the construct puts there."""

import ast
from pathlib import Path
from typing import Any

import pytest

HANDLERS = ["intake", "dispatch", "settle", "index", "lookup", "deletion"]


def read_names(source: str) -> set[str]:
    """The variables of `os.environ[...]`, `os.environ.get(...)` and of a local name for it."""
    tree = ast.parse(source)
    aliases = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and ast.unparse(node.value) == "os.environ"
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    environments = {"os.environ", *aliases}
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) in environments:
            assert isinstance(node.slice, ast.Constant), "read variables by literal names"
            found.add(str(node.slice.value))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {
            f"{environment}.get" for environment in environments
        } | {"os.getenv"}:
            found.add(str(ast.literal_eval(node.args[0])))
    return found


def test_an_alias_of_the_environment_is_seen_through() -> None:
    source = "import os\ne = os.environ\na = e['A']\nb = os.environ['B']\nc = os.environ.get('C')"

    assert read_names(source) == {"A", "B", "C"}


@pytest.mark.parametrize("module", HANDLERS)
def test_a_function_has_what_its_code_reads(
    module: str, functions: dict[str, dict[str, Any]], lambdas: Path
) -> None:
    read = read_names((lambdas / f"{module}.py").read_text())

    assert read
    assert read <= set(functions[module]["Environment"]["Variables"])


def test_only_handlers_read_the_environment(lambdas: Path) -> None:
    readers = {path.stem for path in lambdas.glob("*.py") if read_names(path.read_text())}

    assert readers <= set(HANDLERS)


@pytest.mark.parametrize("module", HANDLERS)
def test_the_handler_exists(module: str, lambdas: Path) -> None:
    tree = ast.parse((lambdas / f"{module}.py").read_text())

    assert "handle" in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_the_functions_are_those_six(functions: dict[str, dict[str, Any]]) -> None:
    assert set(functions) == set(HANDLERS)


def test_values_are_plain_text(functions: dict[str, dict[str, Any]]) -> None:
    variables = functions["dispatch"]["Environment"]["Variables"]

    assert variables["MAX_WAIT_S"] == "60"
    assert variables["MAX_OBJECTS"] == "1000"
    assert variables["MAX_BYTES"] == str(10 * 2**30)
    assert variables["MAX_CONCURRENT_RUNS"] == "2"
    assert variables["MARKER"] == ""
    settle = functions["settle"]["Environment"]["Variables"]
    assert settle["INDEXED"] == "true"
    assert settle["MAX_FAILED_FRACTION"] == ""
    assert functions["index"]["Environment"]["Variables"]["RETENTION_DAYS"] == ""


def test_the_state_machine_knows_every_permanent_error(lambdas: Path) -> None:
    from batch_transform.state_machine import PERMANENT_ERRORS

    tree = ast.parse((lambdas / "errors.py").read_text())
    classes = {
        node.name: {ast.unparse(base) for base in node.bases}
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    }
    permanent = {"PermanentError"}
    while more := {name for name, bases in classes.items() if bases & permanent} - permanent:
        permanent |= more

    assert set(PERMANENT_ERRORS) == permanent
