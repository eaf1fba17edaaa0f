"""Compile protos/ into chainrule/v1: run it after every change of a .proto file.

python tools/generate_stubs.py [FOLDER]
"""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent


def generate(folder: Path) -> int:
    """Write the stubs into FOLDER/chainrule/v1 and return protoc's exit code."""
    protos = sorted(str(path.relative_to(ROOT / "protos")) for path in (ROOT / "protos").rglob("*.proto"))
    includes = [
        str(ROOT / "protos"),
        str(files("grpc_tools") / "_proto"),
        # google/rpc/*.proto come with googleapis-common-protos.
        str(Path(str(files("google.rpc").joinpath("status.proto"))).parent.parent.parent),
    ]
    return int(
        protoc.main(
            [
                "protoc",
                *(f"-I{include}" for include in includes),
                *(f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")),
                *protos,
            ]
        )
    )


if __name__ == "__main__":
    sys.exit(generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT))
