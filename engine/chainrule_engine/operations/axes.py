"""Operations over the axes of one example: sums, norms, softmax, components, and joining.

Everywhere a is the operand, f the value, g = ∂loss/∂f; the pullback is what g contributes to ∂loss/∂a.
sum, mean, norm run over all axes of the example; softmax and its relatives over the last.
"""

# ruff: noqa: ARG001, ARG005  (all rules of a kind take the same arguments)

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule_engine.graph import Node
from chainrule_engine.operations.operation import Array, Axiswise, Misfit, Shape, axes_of, expanded

# The smallest normal float32: what is divided by at least this is never 0/0.
_TINY = 2.0**-126


def shifted(a: Array) -> Array:
    """a − max a along the last axis. Large numbers are subtracted from each other before small ones are added: a sum of
    exponentials is at most its number of terms, and its logarithm would be lost in the last digits of a."""
    return a - a.max(axis=-1, keepdims=True)


def exponentials(a: Array) -> Array:
    """e^(a − max a) along the last axis: the common factor cancels in a softmax, and nothing overflows."""
    return np.exp(shifted(a))


def _softmax(a: Array) -> Array:
    e = exponentials(a)
    return e / e.sum(axis=-1, keepdims=True)


def _log_softmax(a: Array) -> Array:
    s = shifted(a)
    return s - np.log(np.exp(s).sum(axis=-1, keepdims=True))


def _norm(node: Node, a: Array) -> Array:
    # Scaled by the largest element: the squares of what is far from 1 would overflow, or be 0.
    axes = axes_of(node.operands[0])
    largest = np.maximum(np.absolute(a).max(axis=axes), _TINY)
    scaled = a / _each(node, largest)
    return largest * np.sqrt((scaled * scaled).sum(axis=axes))


def _logsumexp_pullback(node: Node, g: Array, f: Array, a: Array) -> Array:
    # f is rounded to the last digit of max a, which e^(a − f) alone would show; as a common factor it cancels.
    e = np.exp(a - _column(f))
    return _column(g) * (e / e.sum(axis=-1, keepdims=True))


def _scalar(a: Node, *, options: tuple[float, ...]) -> Shape:
    return ()


def _same(a: Node, *, options: tuple[float, ...]) -> Shape:
    if not a.shape:
        raise Misfit("the operand must be a vector")
    return a.shape


def _without_last(a: Node, *, options: tuple[float, ...]) -> Shape:
    return _same(a, options=options)[:-1]


def _each(node: Node, g: Array) -> Array:
    """g of a scalar, for each element of the operand."""
    return expanded(node.operands[0], g)


def _column(g: Array) -> Array:
    return g.reshape((*g.shape, 1))


def _component_shape(a: Node, *, options: tuple[float, ...]) -> Shape:
    if len(options) > len(a.shape):
        raise Misfit(f"it has {len(a.shape)} axes and cannot take {len(options)} indices")
    for index, length in zip(options, a.shape, strict=False):
        if index >= length:
            raise Misfit(f"index {index} is out of range; indices run from 0 to {length - 1}")
    return a.shape[len(options) :]


def component_index(node: Node) -> tuple[Any, ...]:
    """The numpy index of the component, batched or not."""
    rest = len(node.shape)
    return (..., *(int(option) for option in node.options), *(slice(None),) * rest)


def _component_pullback(node: Node, g: Array, f: Array, a: Array) -> Array:
    contribution = np.zeros_like(a)
    contribution[component_index(node)] = g
    return contribution


def _concatenate_shape(*operands: Node, options: tuple[float, ...]) -> Shape:
    if any(len(operand.shape) > 1 for operand in operands):
        raise Misfit("only vectors and scalars can be joined")
    return (sum(operand.size for operand in operands),)


def _concatenate(node: Node, *values: Array) -> Array:
    return np.concatenate([v if o.shape else _column(v) for o, v in zip(node.operands, values, strict=True)], axis=-1)


def concatenate_start(node: Node, index: int) -> int:
    """Where operand `index` starts in the result."""
    return sum(operand.size for operand in node.operands[:index])


def _concatenate_pullback(node: Node, index: int, g: Array, f: Array, *values: Array) -> Array:
    start, operand = concatenate_start(node, index), node.operands[index]
    return g[..., start : start + operand.size] if operand.shape else g[..., start]


# fmt: off
AXISWISE = (
    Axiswise(
        "sum", "Σ aⱼ", 1, symbol="Σ",
        shape_rule=_scalar,
        value=lambda node, a: a.sum(axis=axes_of(node.operands[0])),
        pullbacks=(lambda node, g, f, a: _each(node, g),),
        partial_formulas=("1",),
        pullback_formulas=("g",),
    ),
    Axiswise(
        "mean", "1/n Σ aⱼ", 1,
        shape_rule=_scalar,
        value=lambda node, a: a.sum(axis=axes_of(node.operands[0])) * (1 / node.operands[0].size),
        pullbacks=(lambda node, g, f, a: _each(node, g * (1 / node.operands[0].size)),),
        partial_formulas=("1/n",),
        pullback_formulas=("g · 1/n",),
    ),
    Axiswise(
        # At a = 0 the derivative is taken as 0.
        "norm", "‖a‖ = √Σ aⱼ²", 1, symbol="‖ ‖",
        shape_rule=_scalar,
        value=_norm,
        pullbacks=(lambda node, g, f, a: _each(node, g) * (a / _each(node, np.maximum(f, _TINY))),),
        partial_formulas=("a / f",),
        pullback_formulas=("g · a / f",),
    ),
    Axiswise(
        "softmax", "e^aᵢ / Σⱼ e^aⱼ", 1,
        shape_rule=_same,
        value=lambda node, a: _softmax(a),
        pullbacks=(lambda node, g, f, a: f * (g - (g * f).sum(axis=-1, keepdims=True)),),
        partial_formulas=("∂fᵢ/∂aⱼ = fᵢ (1[i=j] − fⱼ)",),
        pullback_formulas=("f (g − Σⱼ gⱼ fⱼ)",),
    ),
    Axiswise(
        "log_softmax", "aᵢ − ln Σⱼ e^aⱼ", 1,
        shape_rule=_same,
        value=lambda node, a: _log_softmax(a),
        pullbacks=(lambda node, g, f, a: g - np.exp(f) * g.sum(axis=-1, keepdims=True),),
        partial_formulas=("∂fᵢ/∂aⱼ = 1[i=j] − e^fⱼ",),
        pullback_formulas=("g − eᶠ Σⱼ gⱼ",),
    ),
    Axiswise(
        "logsumexp", "ln Σⱼ e^aⱼ", 1,
        shape_rule=_without_last,
        value=lambda node, a: np.log(exponentials(a).sum(axis=-1)) + a.max(axis=-1),
        pullbacks=(_logsumexp_pullback,),
        partial_formulas=("softmax(a)",),
        pullback_formulas=("g · softmax(a)",),
    ),
    Axiswise(
        "component", "aᵢ", 1, symbol="[ ]",
        shape_rule=_component_shape,
        value=lambda node, a: a[component_index(node)],
        pullbacks=(_component_pullback,),
        partial_formulas=("1 at i, else 0",),
        pullback_formulas=("g at i, else 0",),
    ),
    Axiswise(
        "concatenate", "(a, b, …)", None, symbol="( , )",
        shape_rule=_concatenate_shape,
        value=_concatenate,
        pullbacks=(_concatenate_pullback,),
        partial_formulas=("1 at its place",),
        pullback_formulas=("its part of g",),
    ),
)
# fmt: on
