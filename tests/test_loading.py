"""What is loaded when: `import chainrule`, a connection and --help stay light.

Who may import whom is said in pyproject.toml, and held by import-linter.
"""

from __future__ import annotations

import subprocess
import sys

OURS_THAT_COMPUTE = {"chainrule_engine", "chainrule_server", "chainrule_worker"}


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
    assert not ({"rich", "typer", "safetensors", "pandas", "sklearn"} | OURS_THAT_COMPUTE) & loaded


def test_asking_for_help_loads_neither_grpc_nor_numpy_nor_the_engine() -> None:
    program = "import sys, chainrule, chainrule.cli.app; print(*sys.modules)"
    command = [sys.executable, "-P", "-c", program]
    loaded = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.split()
    assert not ({"grpc", "numpy", "tomllib"} | OURS_THAT_COMPUTE) & set(loaded)
