"""malloc keeps what is freed, where it can be told to."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from chainrule.process.memory_tuning import keep_freed_memory

PROGRAM = """
import resource
from chainrule.process.memory_tuning import keep_freed_memory

assert keep_freed_memory() is True
size = 64 << 20
bytearray(b"x") * size
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    bytearray(b"x") * size
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc can be told")
def test_memory_that_was_freed_is_used_again_without_page_faults() -> None:
    command = [sys.executable, "-P", "-c", PROGRAM]
    faults = int(subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout)
    # 64 MiB are 16384 pages, ten times over.
    assert faults < 1000


@pytest.mark.parametrize("answer", [ValueError("unrecognized configuration name"), None, "musl 1.2"])
def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch, answer: ValueError | str | None) -> None:
    def confstr(name: str) -> str | None:
        if isinstance(answer, ValueError):
            raise answer
        return answer

    monkeypatch.setattr(os, "confstr", confstr)
    assert keep_freed_memory() is False
