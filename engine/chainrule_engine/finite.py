"""Whether numbers are finite: asked of every gradient and every step, so it must cost next to nothing."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import Any

import numpy as np

from chainrule_engine.blocks import BLOCK
from chainrule_engine.parameters import Vector

_ZEROS = np.zeros(BLOCK, dtype=np.float32)


class NotFinite(ArithmeticError):
    """A loss or gradient that is NaN or infinite. row: its number in the data set, None where only the gradient is."""

    def __init__(self, *, shard: int, row: int | None) -> None:
        self.shard = shard
        self.row = row
        what = "the gradient" if row is None else f"the loss of row {row}"
        super().__init__(f"{what} is not finite (shard {shard})")


def is_finite(vector: Vector) -> bool:
    """Whether no element is NaN or infinite. vector: (n,) float32. Nothing is allocated.

    A product of 0 with NaN or infinity is NaN, and so is a sum that has it as a term: one dot with zeros tells, in half
    the time of isfinite and all. numpy warns of such a product, so call it where `invalid` is ignored."""
    size = vector.size
    if size == BLOCK:
        return bool(vector.dot(_ZEROS) == 0)
    if size < BLOCK:
        return bool(vector.dot(_ZEROS[:size]) == 0)
    return all(is_finite(vector[start : start + BLOCK]) for start in range(0, size, BLOCK))


def without_warnings() -> Callable[..., Any]:
    """A function that calls another, with its arguments, where numpy does not warn; for one thread at a time.

    What is not finite is refused with a reason afterwards; numpy's warning would only repeat it. numpy keeps its
    settings in the context, and to enter one that is there costs less than to change them each time."""
    call = contextvars.copy_context().run
    call(np.seterr, all="ignore")
    return call
