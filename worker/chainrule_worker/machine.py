"""What a worker tells of its machine: all that the bits of a gradient may depend on, and who it is."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import os
import platform
import socket
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_info

from chainrule.v1 import worker_service_pb2 as pb


def hello(name: str, *, wants_local_link: bool) -> pb.Hello:
    """The worker's first message."""
    return pb.Hello(
        name=name,
        process_id=os.getpid(),
        numpy_version=np.__version__,
        blas=_blas(),
        wants_local_link=wants_local_link,
        host=socket.gethostname(),
        processor=_processor(),
        instructions=_instructions(),
        numba=_numba(),
    )


def _blas() -> str:
    """The BLAS libraries that are loaded, with their versions and the kernels that they chose."""
    return "; ".join(
        sorted(
            f"{library.get('internal_api')} {library.get('version')} {library.get('architecture', '')}".strip()
            for library in threadpool_info()
            if library.get("user_api") == "blas"
        )
    )


def _instructions() -> str:
    """Such as 'x86_64 AVX2 AVX512F': numpy's own loops, of exp for example, are compiled for each."""
    found: list[str] = []
    # numpy names them in no public place but numpy.show_runtime, which prints.
    with contextlib.suppress(ImportError, AttributeError):
        known = importlib.import_module("numpy._core._multiarray_umath")
        found = [name for name in known.__cpu_dispatch__ if known.__cpu_features__.get(name)]
    return " ".join([platform.machine(), *found])


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _numba() -> str:
    try:
        versions = [importlib.metadata.version(package) for package in ("numba", "llvmlite")]
    except importlib.metadata.PackageNotFoundError:
        return ""
    return f"{versions[0]}, llvmlite {versions[1]}"
