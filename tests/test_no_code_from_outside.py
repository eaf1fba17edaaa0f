"""Nothing that is received is ever unpickled or evaluated: no call in our packages could do it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("chainrule", "engine", "server", "worker")
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml", "code", "codeop"}
CALLS = {"eval", "exec", "compile", "__import__", "read_pickle", "frombuffer_object", "execfile", "runpy"}
# Functions that run source, where that is the engine's own, written by the engine from a checked graph.
ALLOWED = {
    ("engine/chainrule_engine/plan/numpy_program.py", "compile"),
    ("engine/chainrule_engine/plan/numpy_program.py", "exec"),
    ("engine/chainrule_engine/plan/numba_program.py", "compile"),
    ("engine/chainrule_engine/plan/numba_program.py", "eval"),
    ("engine/chainrule_engine/plan/numba_program.py", "exec"),
}


def suspects(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, what) for everything in a module that could run or unpickle what it is given."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names if name.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            yield node.lineno, node.module or ""
        elif isinstance(node, ast.Name) and node.id in CALLS:
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and node.attr in CALLS - {"compile"}:
            yield node.lineno, node.attr
        elif isinstance(node, ast.Call):
            yield from _suspect_keywords(node)


def _suspect_keywords(call: ast.Call) -> Iterator[tuple[int, str]]:
    for keyword in call.keywords:
        is_false = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
        if keyword.arg in ("allow_pickle", "shell") and not is_false:
            yield call.lineno, f"{keyword.arg}={ast.unparse(keyword.value)}"


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_received_is_unpickled_or_evaluated(package: str) -> None:
    found = {
        (str(path.relative_to(ROOT)), line, what)
        for path in sorted((ROOT / package).rglob("*.py"))
        for line, what in suspects(ast.parse(path.read_text()))
    }
    assert {each for each in found if (each[0], each[2]) not in ALLOWED} == set()


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import yaml",
        "eval(text)",
        "builtins.exec(text)",
        "f = compile",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=chosen)",
        "subprocess.run(text, shell=True)",
    ],
)
def test_the_search_finds_what_it_is_for(source: str) -> None:
    assert list(suspects(ast.parse(source)))
