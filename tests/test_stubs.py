"""The checked-in stubs are those of the protos."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PINNED = "1.85.1"


def test_the_checked_in_stubs_are_what_the_protos_compile_to(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools", reason="grpcio-tools compiles the protos")
    if importlib.metadata.version("grpcio-tools") != PINNED:
        pytest.skip(f"the stubs were made by grpcio-tools {PINNED}")
    specification = importlib.util.spec_from_file_location("generate_stubs", ROOT / "tools" / "generate_stubs.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["generate_stubs"] = module
    specification.loader.exec_module(module)
    assert module.generate(tmp_path) == 0
    fresh = {path.name: path.read_text() for path in (tmp_path / "chainrule" / "v1").iterdir()}
    checked_in = {
        path.name: path.read_text()
        for path in (ROOT / "chainrule" / "v1").iterdir()
        if path.suffix in (".py", ".pyi") and path.name != "__init__.py"
    }
    assert checked_in.keys() == fresh.keys()
    assert [name for name in fresh if fresh[name] != checked_in[name]] == [], "run python tools/generate_stubs.py"
