"""Who may import whom (docs: README, "How the code is laid out")."""

from __future__ import annotations

import ast
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
BRIDGES = {"chainrule/modeling.py"}


def imports_of(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module


def top_level_imports(tree: ast.Module) -> set[str]:
    statements = [node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.If)]
    modules = {name for statement in statements for name in imports_of(statement)}
    functions = {
        name
        for statement in statements
        for inner in ast.walk(statement)
        if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef)
        for name in imports_of(inner)
    }
    return modules - functions


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
            found = top_level_imports(ast.parse(path.read_text()))
            assert not {name for name in found if name.split(".")[0] == "engine" or name == "chainrule.modeling"}, path
