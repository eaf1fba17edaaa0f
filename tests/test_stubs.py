"""The checked-in stubs are those of the protos."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from chainrule_server.access.permissions import EVERYBODY, PERMISSIONS
from chainrule_server.api.standard_services import SERVICES

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


def test_every_method_of_the_contract_says_which_roles_may_call_it() -> None:
    """A new RPC gets its line in server/chainrule_server/access/permissions.py; without one it is for admins alone."""
    methods = {f"/{name}/{method.name}" for name in SERVICES for method in _methods(name)}
    assert methods == {method for method in PERMISSIONS if method.startswith("/chainrule.")}
    assert all(roles <= EVERYBODY for roles in PERMISSIONS.values())


def _methods(service: str) -> Sequence[MethodDescriptor]:
    found: ServiceDescriptor = descriptor_pool.Default().FindServiceByName(service)
    return list(found.methods)
