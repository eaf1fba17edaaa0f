"""Who may import whom (docs: README, "How the code is laid out")."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = ("chainrule", "engine", "server", "worker")
FORBIDDEN = {
    "engine": {"chainrule", "server", "worker"},
    "chainrule": {"server", "worker"},
    "worker": {"server"},
    "server": {"worker"},
}
# The bridge from a spec to the engine's model; chainrule's other files import it inside functions only.
BRIDGES = {"chainrule/bridge/model_of_spec.py"}


def imports_of(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module


def imports_at_loading(node: ast.AST) -> Iterator[str]:
    """What loading a module imports: everything but what stands in functions and under TYPE_CHECKING."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield from imports_of(child)
        elif isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            for statement in child.orelse:
                yield from imports_at_loading(statement)
        elif not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from imports_at_loading(child)


@pytest.mark.parametrize("package", OURS)
def test_a_package_imports_only_what_its_layer_may(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        found = {name.split(".")[0] for name in imports_of(ast.parse(path.read_text()))}
        assert not found & FORBIDDEN[package], path


def test_the_client_loads_the_engine_only_when_it_needs_it() -> None:
    for path in sorted((ROOT / "chainrule").rglob("*.py")):
        if str(path.relative_to(ROOT)) not in BRIDGES:
            found = set(imports_at_loading(ast.parse(path.read_text())))
            assert not {
                name for name in found if name.split(".")[0] == "engine" or name == "chainrule.bridge.model_of_spec"
            }, path


def test_importing_the_package_loads_little_but_python_itself() -> None:
    # Modules are counted, and not milliseconds: the machine may be busy.
    program = "import sys; before = set(sys.modules); import {}; print(len(set(sys.modules) - before))"
    for module, most in (("chainrule", 40), ("chainrule.spec.expressions", 60), ("chainrule.cli.app", 140)):
        command = [sys.executable, "-P", "-c", program.format(module)]
        loaded = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
        assert int(loaded) <= most, module


def test_a_connection_loads_nothing_of_the_server_nor_the_engine() -> None:
    program = "import sys, chainrule; chainrule.connect().close(); print(*sys.modules)"
    command = [sys.executable, "-P", "-c", program]
    loaded = set(subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.split())
    assert "grpc" in loaded
    assert (
        not {
            "rich",
            "typer",
            "safetensors",
            "pandas",
            "sklearn",
            "chainrule_engine",
            "chainrule_server",
            "chainrule_worker",
        }
        & loaded
    )


def test_asking_for_help_loads_neither_grpc_nor_numpy_nor_the_engine() -> None:
    program = "import sys, chainrule, chainrule.cli.app; print(*sys.modules)"
    command = [sys.executable, "-P", "-c", program]
    loaded = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.split()
    assert not {"grpc", "numpy", "tomllib", "chainrule_engine", "chainrule_server", "chainrule_worker"} & set(loaded)
