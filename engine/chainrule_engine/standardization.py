"""When a column varies at all, and how much: what the rounding of its sums leaves of a mean and a standard deviation.

Whoever prepares rows adds up a column in an order of their own, which the trained bits rest on. Here is the one bound
for all of them, from the rounding error of such sums.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

EPSILON = float(np.finfo(np.float64).eps)
# Numbers that are computed in two ways differ by some units in the last place; that is no variation.
SAME_UNITS = 16


def settled(values: NDArray[np.float64], mean: float, scale: float) -> tuple[float, float]:
    """Mean and scale to standardize a column by, from its sums'. values: (n,), at least one, finite.

    The mean of n numbers that were added one after the other is off by up to n ε max|x|. A scale above that stands as
    it is. One below is computed again from the distances to the smallest value, which are exact where numbers are
    close. Where all lie within some units in the last place of each other, the column is constant: one of them, and
    1."""
    smallest, largest = float(values.min()), float(values.max())
    size = max(-smallest, largest)
    if not math.isfinite(scale) or scale > sum_error(len(values), size):
        return mean, scale
    spread = largest - smallest
    if spread <= SAME_UNITS * EPSILON * size:
        return float(values[0]), 1.0
    distances = (values - smallest) / spread
    middle = float(np.add.accumulate(distances)[-1]) / len(values)
    variance = float(np.add.accumulate(np.square(distances - middle))[-1]) / len(values)
    return smallest + spread * middle, spread * math.sqrt(variance)


def sum_error(count: int, size: float) -> float:
    """How far rounding may put the mean of so many numbers off, of which none is larger than size."""
    return count * EPSILON * size
