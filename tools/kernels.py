"""Run the tests that compare floats under each kernel of OpenBLAS that this processor has, but for the one it chooses.

    .venv/bin/python -P tools/kernels.py [arguments for pytest]

`make test` runs them under the kernel that OpenBLAS chooses by itself. Kernels add up in different orders, so a test
that passes under one may fail under another, and on another machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

# The instructions that a kernel needs, as /proc/cpuinfo calls them.
KERNELS: dict[str, frozenset[str]] = {
    "Haswell": frozenset({"avx2", "fma"}),
    "Zen": frozenset({"avx2", "fma"}),
    "SkylakeX": frozenset({"avx2", "fma", "avx512f", "avx512dq", "avx512bw", "avx512vl"}),
}
# What compares floats, but for what starts processes for each comparison.
TESTS = [
    "tests/engine",
    "tests/test_practice.py",
    "tests/chainrule/client/test_data_frames.py",
    "tests/server/api/test_model_service.py",
    "tests/chainrule/estimators/test_estimators.py::test_a_row_is_predicted_the_same_alone_and_among_others",
]
CHOSEN = """
import numpy, threadpoolctl
print(*{each["architecture"] for each in threadpoolctl.threadpool_info() if each["internal_api"] == "openblas"})
"""


def possible_kernels(instructions: Collection[str]) -> list[str]:
    """The kernels that a processor with these instructions can run."""
    return [kernel for kernel, needed in KERNELS.items() if needed <= set(instructions)]


def instructions_of(cpuinfo: str) -> set[str]:
    """The instructions of the first processor in /proc/cpuinfo; empty where it doesn't tell."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            return set(value.split())
    return set()


def chosen_kernel(forced: str | None) -> str:
    """The kernel that OpenBLAS chooses in a new process, '' where numpy has another BLAS."""
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_CORETYPE"}
    if forced is not None:
        environment["OPENBLAS_CORETYPE"] = forced
    done = subprocess.run(
        [sys.executable, "-P", "-c", CHOSEN], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip()


def main(arguments: list[str]) -> int:
    """Run them all; return 1 if a test failed under any."""
    info = Path("/proc/cpuinfo")
    own = chosen_kernel(None)
    failed = []
    for kernel in possible_kernels(instructions_of(info.read_text() if info.exists() else "")):
        if kernel == own:
            print(f"{kernel}: the one that is chosen here; `make test` runs under it", flush=True)
        elif chosen_kernel(kernel) != kernel:
            print(f"notice: OpenBLAS doesn't run its {kernel} kernel here; its tests are skipped", flush=True)
        else:
            print(f"{kernel}:", flush=True)
            # numba's loops call no BLAS, and compile for a minute.
            command = [sys.executable, "-P", "-m", "pytest", "-q", "-k", "not numba", *arguments, *TESTS]
            if subprocess.run(command, env={**os.environ, "OPENBLAS_CORETYPE": kernel}, check=False).returncode:
                failed.append(kernel)
    if failed:
        print(f"tests failed under {', '.join(failed)}: OPENBLAS_CORETYPE={failed[0]} make test repeats it")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
