"""Clipping of a mean gradient, by value or by its global norm.

Both are element by element, so they have the same bits however the vector is cut into ranges; the norm of the whole
vector is summed over fixed blocks first. Neither hides an element that is not a number: whoever must refuse it can see
it afterwards. An infinite element is hidden by `clip_by_value` alone, so look before it.
"""

from __future__ import annotations

import math

import numpy as np

from chainrule_engine.blocks import add_in_order, square_sums
from chainrule_engine.parameters import Vector
from chainrule_engine.settings import check_number


def check_limit(limit: float, *, setting: str) -> None:
    """Raise SettingError, with the setting's name in the job file, unless a limit is a finite number above 0."""
    check_number(limit, setting=setting, above=0)


def clip_by_value(gradient: Vector, *, limit: float, out: Vector) -> None:
    """Write each element to `out`, moved into [-limit, limit]. NaN stays NaN.

    gradient, out: (n,) float32, or the same range of both; `out` may be `gradient` itself. limit: above 0."""
    bound = np.float32(limit)
    np.clip(gradient, -bound, bound, out=out)


def global_norm(gradient: Vector) -> float:
    """√Σg² over the whole vector, (n,) float32, as a float64: from the sums of fixed blocks, added in order.

    Threads can share the work: add_in_order of the square_sums of their ranges, one after the other, is its square."""
    return math.sqrt(add_in_order(square_sums(gradient)))


def clip_by_global_norm(gradient: Vector, *, norm: float, limit: float, out: Vector) -> None:
    """Write gradient · min(1, limit / norm) to `out`: the direction stays, the norm becomes at most `limit`.

    norm: the global norm of the whole gradient. A gradient whose norm is not finite is written as it is.
    gradient, out: (n,) float32, or the same range of both; `out` may be `gradient` itself. limit: above 0.
    Source: Pascanu, Mikolov & Bengio 2013, algorithm 1 (arXiv:1211.5063)."""
    if norm > limit and math.isfinite(norm):
        np.multiply(gradient, np.float32(limit / norm), out=out)
    elif out is not gradient:
        np.copyto(out, gradient)
