"""Sums over the flat vector whose bits depend on its elements alone, not on how many threads add them up.

The vector is cut into fixed blocks; each block has one float64 sum, and the sums are added in the blocks' order. So any
thread may sum any blocks, as long as its range starts at a block's start.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from chainrule_engine.parameters import Vector

# Elements in a block. It is part of the definition: another number gives other bits.
BLOCK = 65536
# A range of a vector may begin at any multiple of so many elements: the blocks of int8, whose scale is for all of one.
GRAIN = 1024

Sums = NDArray[np.float64]


def square_sums(vector: Vector) -> Sums:
    """The sum of squares of each block, (⌈n / BLOCK⌉,) float64. vector: (n,) float32.

    Of a range that starts at a multiple of BLOCK these are the whole vector's sums for that range. A product of two
    float32 is exact in float64, and no BLAS takes part: its dot depends on the number of threads."""
    return _block_sums(vector, np.square)


def magnitude_sums(vector: Vector) -> Sums:
    """The sum of absolute values of each block, (⌈n / BLOCK⌉,) float64; otherwise as square_sums."""
    return _block_sums(vector, np.absolute)


def add_in_order(sums: Sums) -> float:
    """The sum of the blocks' sums, first to last."""
    total = 0.0
    # A loop: sum() compensates its rounding errors in newer Pythons, and np.sum adds in pairs.
    for block_sum in sums.tolist():
        total += block_sum
    return total


def _block_sums(vector: Vector, elementwise: np.ufunc) -> Sums:
    starts = range(0, vector.size, BLOCK)
    sums = np.empty(len(starts))
    terms = np.empty(min(BLOCK, vector.size))
    for number, start in enumerate(starts):
        block = vector[start : start + BLOCK]
        sums[number] = np.add.reduce(elementwise(block, out=terms[: block.size], dtype=np.float64))
    return sums
