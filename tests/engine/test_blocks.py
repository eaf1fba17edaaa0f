"""Sums over fixed blocks: the same bits however many threads share the work."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule_engine.blocks import BLOCK, add_in_order, magnitude_sums, square_sums

VECTOR = (np.random.default_rng(0).standard_normal(5 * BLOCK + 77) * 10.0).astype(np.float32)


@given(st.sets(st.integers(0, 6), max_size=4))
def test_cutting_at_the_bounds_of_blocks_gives_the_same_sums(cuts: set[int]) -> None:
    bounds = [0, *(cut * BLOCK for cut in sorted(cuts)), VECTOR.size]
    for sums in (square_sums, magnitude_sums):
        parts = [sums(VECTOR[first:stop]) for first, stop in itertools.pairwise(bounds)]
        assert np.concatenate(parts).tobytes() == sums(VECTOR).tobytes()


def test_a_sum_does_not_depend_on_where_the_vector_lies_in_memory() -> None:
    for offset in range(1, 9):
        moved = np.empty(VECTOR.size + offset, np.float32)[offset:]
        moved[...] = VECTOR
        assert square_sums(moved).tobytes() == square_sums(VECTOR).tobytes()


def test_the_sums_are_those_of_exact_arithmetic_to_float64() -> None:
    exact = VECTOR.astype(np.float64)
    assert add_in_order(square_sums(VECTOR)) == pytest.approx(math.fsum(exact**2), rel=1e-14)
    assert add_in_order(magnitude_sums(VECTOR)) == pytest.approx(math.fsum(abs(exact)), rel=1e-14)


def test_the_largest_float32_does_not_overflow() -> None:
    largest = np.full(10, np.finfo(np.float32).max)
    assert math.isfinite(add_in_order(square_sums(largest)))


def test_a_vector_without_elements_has_the_sum_zero() -> None:
    assert add_in_order(square_sums(np.empty(0, np.float32))) == 0.0


def test_sums_are_added_first_to_last() -> None:
    assert add_in_order(np.array([1e16, 1.0, 1.0, -1e16])) == 0.0
    assert add_in_order(np.array([1.0, 1.0, 1e16, -1e16])) == 2.0
