"""Layer and batch normalization, and dropout.

layer_norm looks along one example; batch_norm looks along the rows of a microbatch, and is the only operation that
does. For evaluation a graph holds `normalize` with running statistics in its place, and no dropout: see
`chainrule_engine.evaluation`.
"""

# ruff: noqa: ARG001, ARG005  (all rules of a kind take the same arguments)

from __future__ import annotations

import numpy as np

from chainrule_engine.graph import Node
from chainrule_engine.operations.operation import (
    Array,
    Axiswise,
    Elementwise,
    Misfit,
    Operation,
    OptionRule,
    Shape,
    axes_of,
)

_EPSILON = OptionRule("ε", 1e-5, 1e-30, 1e30)


def _same(a: Node, *, options: tuple[float, ...]) -> Shape:
    if not a.shape:
        raise Misfit("the operand must be a vector: one number alone has no spread to divide by")
    return a.shape


def _batched(a: Node, *, options: tuple[float, ...]) -> Shape:
    if not a.batched:
        raise Misfit("the operand must depend on an input: it is the rows of a batch that are normalized")
    return a.shape


def _mean(a: Array, axes: tuple[int, ...]) -> Array:
    total = a.sum(axis=axes, keepdims=True)
    return total * (total.size / a.size)


def _deviation(a: Array, axes: tuple[int, ...], epsilon: float) -> Array:
    """√(variance + ε) of the centred values a."""
    return np.sqrt(_mean(a * a, axes) + epsilon)


def _centred(a: Array, axes: tuple[int, ...]) -> Array:
    """a − mean a. Twice: the mean of large numbers is rounded by as much as small ones differ, even of equal ones."""
    nearly = a - _mean(a, axes)
    return nearly - _mean(nearly, axes)


def _normalized(a: Array, axes: tuple[int, ...], epsilon: float) -> Array:
    centred = _centred(a, axes)
    return centred / _deviation(centred, axes, epsilon)


def _pullback(g: Array, f: Array, a: Array, axes: tuple[int, ...], epsilon: float) -> Array:
    # f = (a − m) / s; both the mean m and the deviation s depend on every a.
    return (g - _mean(g, axes) - f * _mean(g * f, axes)) / _deviation(_centred(a, axes), axes, epsilon)


# fmt: off
NORMALIZATION: tuple[Operation, ...] = (
    Axiswise(
        "layer_norm", "(a − mean a) / s, s = √(variance a + ε), over one example", 1, (_EPSILON,),
        shape_rule=_same,
        value=lambda node, a: _normalized(a, axes_of(node), node.options[0]),
        pullbacks=(lambda node, g, f, a: _pullback(g, f, a, axes_of(node), node.options[0]),),
        partial_formulas=("∂fᵢ/∂aⱼ = (1[i=j] − (1 + fᵢ fⱼ)/n) / s",),
        pullback_formulas=("(g − mean g − f · mean(g f)) / s",),
    ),
    Axiswise(
        "batch_norm", "(a − mean a) / s, s = √(variance a + ε), over the rows of the microbatch", 1, (_EPSILON,),
        shape_rule=_batched,
        value=lambda node, a: _normalized(a, (0,), node.options[0]),
        pullbacks=(lambda node, g, f, a: _pullback(g, f, a, (0,), node.options[0]),),
        partial_formulas=("∂fᵢ/∂aⱼ = (1[i=j] − (1 + fᵢ fⱼ)/n) / s",),
        pullback_formulas=("(g − mean g − f · mean(g f)) / s",),
    ),
    Elementwise(
        # b the running mean, c the running variance.
        "normalize", "(a − b) / √(c + ε)", 3, (_EPSILON,),
        value=lambda a, b, c, epsilon: (a - b) / np.sqrt(c + epsilon),
        partials=(
            lambda f, a, b, c, epsilon: 1 / np.sqrt(c + epsilon),
            lambda f, a, b, c, epsilon: -1 / np.sqrt(c + epsilon),
            lambda f, a, b, c, epsilon: -0.5 * f / (c + epsilon),
        ),
        partial_formulas=("1/√(c + ε)", "−1/√(c + ε)", "−f / (2 (c + ε))"),
    ),
    Elementwise(
        # b the mask: 0 with probability `rate`, else 1 / (1 − rate).
        "dropout", "a · mask", 2, (OptionRule("rate", None, 0.0, 1.0),),
        value=lambda a, b, rate: a * b,
        partials=(lambda f, a, b, rate: b, lambda f, a, b, rate: a),
        partial_formulas=("b", "a"),
    ),
)
# fmt: on
