"""Whether a column varies is told by the rounding error of its sums, and by no other bound."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from chainrule_engine.standardization import settled


def summed(values: NDArray[np.float64]) -> tuple[float, float]:
    """Mean and scale as a server adds them up: one after the other."""
    mean = np.add.accumulate(values)[-1] / len(values)
    with np.errstate(over="ignore", under="ignore"):
        return settled(values, mean, np.sqrt(np.add.accumulate(np.square(values - mean))[-1] / len(values)))


def exact(values: NDArray[np.float64]) -> tuple[float, float]:
    numbers = [Fraction(float(value)) for value in values]
    mean = sum(numbers) / len(numbers)
    spread = (max(numbers) - min(numbers)) or Fraction(1)
    variance = sum(((each - mean) / spread) ** 2 for each in numbers) / len(numbers)
    return float(mean), float(spread) * float(variance) ** 0.5


@pytest.mark.parametrize("units", [1, 2, 5])
@pytest.mark.parametrize("value", [14.62, 1.7e9, -0.1, 1e-300])
def test_differences_of_some_units_in_the_last_place_are_no_variation(value: float, units: int) -> None:
    values = np.full(50, value)
    values[::3] += units * np.spacing(value)
    assert summed(values) == (values[0], 1.0)


@pytest.mark.parametrize("count", [10, 1_000, 100_000])
@pytest.mark.parametrize(("value", "spread"), [(1.7e9, 1e-3), (1e12, 1.0), (-1.7e9, 1e-3), (5.0, 1e-12)])
def test_what_varies_by_more_is_information_however_many_rows_there_are(
    value: float, spread: float, count: int
) -> None:
    values = value + spread * np.random.default_rng(0).normal(size=count)
    mean, scale = summed(values)
    low = values.min()
    assert scale == pytest.approx((values - low).std(), rel=1e-6)
    assert mean == pytest.approx(low + (values - low).mean(), abs=spread / 100)


def test_one_row_that_differs_is_information() -> None:
    values = np.full(100_000, 1.7e9)
    values[7] += 1e-3
    _, scale = summed(values)
    assert scale == pytest.approx((values - 1.7e9).std(), rel=1e-6)


@pytest.mark.parametrize("size", [1e-170, 1e-250])
def test_small_numbers_whose_squares_vanish_still_vary(size: float) -> None:
    values = size * np.arange(1.0, 5.0)
    mean, scale = summed(values)
    assert (mean / size, scale / size) == (pytest.approx(2.5), pytest.approx(np.sqrt(1.25)))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(min_value=-1e6, max_value=1e6), min_size=2, max_size=30))
def test_a_scale_is_that_of_exact_numbers_or_1_where_nothing_varies(numbers: list[float]) -> None:
    values = np.array(numbers)
    mean, scale = summed(values)
    expected_mean, expected_scale = exact(values)
    size = np.abs(values).max()
    if values.max() - values.min() > 16 * np.finfo(np.float64).eps * size:
        # What is left of the sums' rounding is at most as large as the scale itself.
        assert 0.5 * expected_scale <= scale <= 2 * expected_scale
    else:
        assert scale == 1.0
    assert abs(mean - expected_mean) <= 32 * np.finfo(np.float64).eps * size * len(values)


def test_sums_that_are_large_enough_keep_their_bits() -> None:
    values = np.random.default_rng(1).normal(size=1_000) + 5
    mean, scale = values.mean(), values.std()
    assert settled(values, mean, scale) == (mean, scale)
