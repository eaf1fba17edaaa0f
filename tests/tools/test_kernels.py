"""Which kernels of OpenBLAS the tests run under."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.kernels import KERNELS, TESTS, instructions_of, possible_kernels

ROOT = Path(__file__).parents[2]


def test_a_processor_runs_the_kernels_whose_instructions_it_has() -> None:
    assert possible_kernels({"sse2", "avx2", "fma"}) == ["Haswell", "Zen"]
    assert possible_kernels({"avx2", "fma", "avx512f", "avx512dq", "avx512bw", "avx512vl"}) == list(KERNELS)
    assert possible_kernels(set()) == []


def test_instructions_are_read_as_linux_tells_them() -> None:
    assert instructions_of("processor\t: 0\nflags\t\t: fpu avx2 fma\n\nflags : other\n") == {"fpu", "avx2", "fma"}
    assert instructions_of("Features : neon") == set()


@pytest.mark.parametrize("test", TESTS)
def test_what_is_run_is_there(test: str) -> None:
    path, _, name = test.partition("::")
    assert (ROOT / path).exists()
    assert not name or f"def {name}(" in (ROOT / path).read_text()
